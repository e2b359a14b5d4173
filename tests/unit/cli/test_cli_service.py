"""The unit that `service install` writes, and what systemd says of it."""

import shutil
from pathlib import Path

import pytest
from cli_runs import Cli, fleet_file

from tritonfleet.cli.service import verified
from tritonfleet.cli.unit_text import Service, quoted, unit_text

COMMAND = ("/bin/true", "--file", "/srv/my models/100%.yaml")
SERVICES = [
    Service("demo", COMMAND, "/srv"),
    Service("demo", COMMAND, "/srv", state_dir="/data/state dir"),
    Service("demo", COMMAND, "/srv", user="root", system=True),
    Service("demo", COMMAND, "/srv", user="root", system=True, docker=True),
]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
@pytest.mark.parametrize("service", SERVICES)
def test_systemd_takes_it(tmp_path: Path, service: Service) -> None:
    path = tmp_path / service.name
    path.write_text(unit_text(service).replace("Requires=docker.service\n", ""))  # which is not on every host
    assert verified(path, system=True) == ""
    path.write_text(unit_text(service).replace("ExecStart=/bin/true", "ExecStart=bin/true"))
    assert "bin/true" in verified(path, system=True), "it does look"


def test_what_the_unit_says() -> None:
    own, _, system, containers = (unit_text(service) for service in SERVICES)
    for text in (own, system, containers):
        lines = text.splitlines()
        assert 'ExecStart=/bin/true --file "/srv/my models/100%%.yaml" controller' in lines
        assert 'ExecStop=/bin/true --file "/srv/my models/100%%.yaml" down -y' in lines
        assert {"Type=notify", "KillMode=process"} <= set(lines)
    assert "WantedBy=default.target" in own
    assert "User=" not in own
    assert {"User=root", "StateDirectory=tritonfleet", "WantedBy=multi-user.target"} <= set(
        system.splitlines()
    )
    assert "docker.service" not in system
    assert "Requires=docker.service" in containers
    assert 'Environment="TRITONFLEET_STATE_DIR=/data/state dir"' in unit_text(SERVICES[1])


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("plain/a-b.c", "plain/a-b.c"),
        ("a b", '"a b"'),
        ('a"b', '"a\\"b"'),
        ("$HOME", "$$HOME"),
        ("5%", "5%%"),
    ],
)
def test_words_are_quoted_for_systemd(word: str, text: str) -> None:
    assert quoted(word) == text


def test_install_writes_it_once_and_says_what_is_next(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fleet_file(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    unit = tmp_path / "config" / "systemd" / "user" / "tritonfleet-demo.service"
    printed = cli("service", "install", "--dry-run")
    assert printed.code == 0
    assert f"--file {file} controller" in printed.out
    assert not unit.exists()
    written = cli("service", "install")
    assert written.code == 0
    assert unit.read_text() == printed.out
    assert "systemctl --user enable --now tritonfleet-demo.service" in written.err
    assert f"TRITONFLEET_STATE_DIR={tmp_path / 'state'}" in unit.read_text()
    assert cli("service", "install").code == 0, "the same again is fine"
    unit.write_text("[Unit]\n")
    refused = cli("service", "install")
    assert refused.code == 2
    assert "--force writes over it" in refused.err
    assert cli("service", "install", "--force").code == 0


def test_variables_of_the_file_are_named_and_not_written(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet_file(tmp_path, models=["${TOKEN:-echo}"])
    (tmp_path / "echo").mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert "not in the unit" not in cli("service", "install").err
    monkeypatch.setenv("TOKEN", "echo")
    assert "set here, and not in the unit: TOKEN" in cli("service", "install").err
    unit = tmp_path / "config" / "systemd" / "user" / "tritonfleet-demo.service"
    assert "TOKEN" not in unit.read_text()


def test_a_system_s_unit_names_its_user(cli: Cli, tmp_path: Path) -> None:
    fleet_file(tmp_path)
    printed = cli("service", "install", "--system", "--run-as", "triton", "--dry-run").out
    assert "User=triton" in printed
    assert "WantedBy=multi-user.target" in printed


def test_the_operations_page_shows_what_is_written() -> None:
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    command = ("/srv/demo/.venv/bin/tritonfleet", "--file", "/srv/demo/tritonfleet.yaml")
    text = unit_text(Service("demo", command, "/srv/demo", user="triton", system=True))
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert f"# /etc/systemd/system/tritonfleet-demo.service\n{kept}\n```" in page

"""What shells are answered at TAB, over the protocol that their completion scripts speak."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from control_server import ControlServer, serve
from fleet_samples import busy_snapshot

from tritonfleet.controller.paths import FleetPaths


def asked(folder: Path, shell: str, words: str) -> str:
    """The answer to ``words`` with TAB at their end. Nothing is said on stderr: it would be in the prompt."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TRITONFLEET_")}
    environ |= {
        "TRITONFLEET_STATE_DIR": str(folder / "state"),
        "_TRITONFLEET_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tritonfleet.cli.main"],
        env=environ, cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def control(tmp_path: Path) -> ControlServer:
    (tmp_path / "tritonfleet.yaml").write_text("version: 1\nname: demo\npools: {}\n")
    paths = FleetPaths.of("demo", {"TRITONFLEET_STATE_DIR": str(tmp_path / "state")})
    with serve(paths.control_socket) as server:
        server.snapshots = [busy_snapshot()]
        yield server


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_replicas_by_name(tmp_path: Path, control: ControlServer, shell: str) -> None:
    answer = asked(tmp_path, shell, "tritonfleet drain ma")
    assert "main-0" in answer
    assert "main-4" in answer
    assert "image-0" not in answer
    assert control.requests == [("GET", "/snapshot", None)]


@pytest.mark.parametrize(
    ("words", "there", "not_there"),
    [
        ("tritonfleet dr", {"drain"}, {"down"}),
        ("tritonfleet scale ", {"main=", "image="}, {"main-0"}),
        ("tritonfleet logs ", {"router", "controller", "main", "main-0"}, set()),
        ("tritonfleet drain dev", {"device/cpu0"}, {"main-0"}),
        ("tritonfleet describe dev", {"device/cpu0"}, {"main"}),
        ("tritonfleet drain dev", {"device/cpu0"}, {"main"}),
        ("tritonfleet autoscale status i", {"image"}, {"main"}),
        ("tritonfleet models unload ", {"digits", "echo"}, set()),
        ("tritonfleet --fleet d", {"demo"}, set()),
        ("tritonfleet --fleet demo undrain image", {"image-0"}, {"main-0"}),
        ("tritonfleet --fleet other undrain image", set(), {"image-0"}),
        ("tritonfleet --file nowhere.yaml undrain image", set(), {"image-0"}),
        ("tritonfleet -o w", {"wide"}, {"json"}),
    ],
)
def test_what_fits_the_place(
    tmp_path: Path, control: ControlServer, words: str, there: set[str], not_there: set[str]
) -> None:
    assert control.socket.exists()
    answer = set(asked(tmp_path, "bash", words).split())
    assert there <= answer
    assert not not_there & answer


def test_nothing_is_said_when_nobody_answers(tmp_path: Path) -> None:
    (tmp_path / "tritonfleet.yaml").write_text("version: 1\nname: demo\npools: {}\n")
    assert asked(tmp_path, "bash", "tritonfleet drain ma").strip() == ""
    (tmp_path / "tritonfleet.yaml").write_text("{")
    assert asked(tmp_path, "bash", "tritonfleet drain ma").strip() == ""


def test_an_answer_that_is_no_snapshot_is_none(tmp_path: Path, control: ControlServer) -> None:
    control.refusals["/snapshot"] = (500, b"<html>")
    assert asked(tmp_path, "bash", "tritonfleet drain ma").strip() == ""

"""`init`: what it writes is valid on the host it was written for."""

import re
from pathlib import Path

import pytest
import yaml
from cli_runs import Cli

from tritonfleet.cli.fleet_text import Found, best_image, fleet_name_for, fleet_text, is_repository
from tritonfleet.config import load_fleet
from tritonfleet.core.model import Device, DeviceKind

GPUS = tuple(Device(f"GPU-{index}", DeviceKind.GPU, "H100", 80 << 30) for index in range(8))


def repository(folder: Path) -> Path:
    (folder / "echo" / "1").mkdir(parents=True)
    (folder / "digits").mkdir()
    (folder / "digits" / "config.pbtxt").touch()
    return folder


@pytest.mark.parametrize(
    ("gpus", "image", "folder"),
    [
        ((), "", "models"),
        (GPUS, "", "models"),
        (GPUS, "registry.local:5000/tritonserver:25.10-py3", "models"),
        (GPUS[:1], "", "my models: $new #1"),
    ],
)
def test_every_file_is_valid_and_says_what_was_found(
    tmp_path: Path, gpus: tuple[Device, ...], image: str, folder: str
) -> None:
    repository(tmp_path / folder)
    found = Found("demo", f"./{folder}", ("digits", "echo"), gpus, 4, image, "", 8001)
    path = tmp_path / "tritonfleet.yaml"
    path.write_text(fleet_text(found))
    spec = load_fleet(path, {})
    pool = spec.pools["main"]
    assert spec.driver == ("docker" if image else "process")
    assert pool.triton.image == image
    assert pool.model_repository == str(tmp_path / folder)
    assert pool.replicas.max == (len(gpus) or 4)
    assert all(device.id in path.read_text() for device in gpus)
    assert max(len(line) for line in path.read_text().splitlines()) <= 120


def test_what_is_commented_out_is_valid_too(tmp_path: Path) -> None:
    repository(tmp_path / "models")
    keys = r"# (?=policy|queue|models|autoscale|  target|metrics)"
    text, count = re.subn(keys, "", fleet_text(Found("demo", "./models", ("echo",))))
    assert count == 6
    path = tmp_path / "tritonfleet.yaml"
    path.write_text(text)
    spec = load_fleet(path, {})
    assert str(spec.metrics.listen) == "127.0.0.1:9400"
    assert spec.router.policy == "least_work"
    assert spec.pools["main"].autoscale is not None


@pytest.mark.parametrize(
    ("folder", "name"),
    [("My Models_2", "my-models-2"), ("2025", "demo"), ("", "demo"), ("-a-", "a"), ("x" * 50, "x" * 31)],
)
def test_a_folder_s_name_becomes_a_fleet_s(folder: str, name: str) -> None:
    assert fleet_name_for(folder) == name


def test_the_newest_server_image() -> None:
    tags = ["a/tritonserver:24.12-py3", "a/tritonserver:25.10-py3", "a/tritonserver:25.11-py3-sdk", "redis:8"]
    assert best_image(tags) == "a/tritonserver:25.10-py3"
    assert best_image(["redis:8"]) == ""
    assert best_image(["tritonfleet-triton:latest"]) == "tritonfleet-triton:latest"


def test_what_looks_like_a_repository(tmp_path: Path) -> None:
    assert is_repository(repository(tmp_path / "models")) == ("digits", "echo")
    assert is_repository(tmp_path) == ()
    assert is_repository(tmp_path / "none") == ()


def test_the_command_writes_once_and_validate_takes_it(cli: Cli, tmp_path: Path) -> None:
    repository(tmp_path / "model_repository")
    written = cli("init", "--name", "mine")
    assert written.code == 0
    assert "wrote tritonfleet.yaml: fleet mine, 2 models" in written.err
    assert cli("validate").code == 0
    assert yaml.safe_load((tmp_path / "tritonfleet.yaml").read_text())["name"] == "mine"
    again = cli("init")
    assert again.code == 2
    assert "tritonfleet.yaml exists already" in again.err
    assert "--force" in again.err
    assert cli("init", "--force", "--name", "other").code == 0
    assert yaml.safe_load((tmp_path / "tritonfleet.yaml").read_text())["name"] == "other"


def test_models_elsewhere_are_named(cli: Cli, tmp_path: Path) -> None:
    missing = cli("init")
    assert missing.code == 2
    assert "there is no model repository in" in missing.err
    assert "--model-repository" in missing.err
    assert "is no model repository" in cli("init", "--model-repository", ".").err
    repository(tmp_path / "deep" / "down")
    assert cli("-f", "deep/fleet.yaml", "init", "--model-repository", "deep/down").code == 0
    assert "model_repository: ./down" in (tmp_path / "deep" / "fleet.yaml").read_text()

"""What a daemon says → what a person is told, and which driver `auto` is."""

import json
from pathlib import Path

import pytest
import requests
from docker import errors

from tritonfleet.config import FleetSpec
from tritonfleet.core.model import DeviceKind
from tritonfleet.drivers import choose
from tritonfleet.drivers.devices import discover
from tritonfleet.drivers.docker_engine import (
    DockerEngine,
    NameTakenError,
    NotThereError,
    PortTakenError,
    explained,
)

NOBODY = {"DOCKER_HOST": "unix:///nobody/listens/here.sock"}


def refusal(said: str, code: int = 500) -> errors.APIError:
    response = requests.Response()
    response.status_code = code
    response._content = json.dumps({"message": said}).encode()
    return errors.APIError(said, response=response, explanation=said)


@pytest.mark.parametrize(
    ("said", "told", "remedy", "transient"),
    [
        ('could not select device driver "nvidia" with capabilities: [[gpu]]', "cannot give GPUs",
         "nvidia-container-toolkit", False),
        ("nvidia-container-cli: device error: GPU-1: unknown device", "refused the device",
         "nvidia-smi -L", False),
        ("write /x: no space left on device", "no space left on the Docker host", "docker system df", True),
        ("error setting rlimits for ready process: error setting rlimit type 8: operation not permitted",
         "may not raise limits", "ulimits: {}", False),
        ("something new", "something new", "journalctl -u docker", True),
    ],
)  # fmt: skip
def test_a_refusal_comes_with_its_remedy(said: str, told: str, remedy: str, transient: bool) -> None:
    error = explained(refusal(said), "cannot start main-0.1", "unix:///s")
    assert str(error).startswith("cannot start main-0.1: ")
    assert told in str(error)
    assert said in str(error)  # the daemon's own words are never lost
    assert remedy in error.remedy
    assert error.transient is transient


def test_refusals_that_the_driver_acts_on() -> None:
    taken = refusal('Conflict. The container name "/x" is already in use by container "1".', 409)
    assert isinstance(explained(taken, "w", "h"), NameTakenError)
    assert isinstance(explained(refusal("No such container: x", 404), "w", "h"), NotThereError)
    for said in ("Bind for 127.0.0.1:1 failed: port is already allocated", "listen: address already in use"):
        assert isinstance(explained(refusal(said), "w", "h"), PortTakenError)


@pytest.mark.parametrize(
    ("host", "name"),
    [("unix:///s", ""), ("ssh://me@gpubox", "gpubox"), ("tcp://192.0.2.7:2376", "192.0.2.7")],
)
def test_the_name_of_a_remote_host(host: str, name: str) -> None:
    engine = DockerEngine(host, {})
    assert engine.remote_name == name
    engine.close()


def test_the_file_s_host_wins_over_the_environment() -> None:
    for host, expected in (("", "tcp://env:1"), ("tcp://file:1", "tcp://file:1")):
        engine = DockerEngine(host, {"DOCKER_HOST": "tcp://env:1"})
        assert engine.host == expected
        engine.close()


def spec(driver: str, *images: str) -> FleetSpec:
    pools = {
        f"p{index}": {"model_repository": "/m", "triton": {"image": image}}
        for index, image in enumerate(images)
    }
    return FleetSpec.model_validate({"version": 1, "name": "demo", "driver": driver, "pools": pools})


def test_auto_is_process_without_an_image_or_without_a_daemon(tmp_path: Path) -> None:
    assert choose(spec("auto", "triton:1", ""), tmp_path, NOBODY) == "process"
    assert choose(spec("auto", "triton:1"), tmp_path, NOBODY) == "process"
    assert choose(spec("docker", "triton:1"), tmp_path, NOBODY) == "docker"


@pytest.mark.parametrize(("record", "driver"), [("main-0.1.cursor", "docker"), ("main-0.1.json", "process")])
def test_auto_stays_what_the_fleet_runs_on(tmp_path: Path, record: str, driver: str) -> None:
    (tmp_path / "instances").mkdir()
    (tmp_path / "instances" / record).touch()
    assert choose(spec("auto", "triton:1"), tmp_path, NOBODY) == driver


def test_listed_devices_are_trusted_where_no_gpu_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritonfleet.drivers.devices.gpus", dict)
    found = discover(("0", "GPU-1", "MIG-2"), trusting=True)
    assert [(device.id, device.kind) for device in found] == [
        ("0", DeviceKind.GPU),
        ("GPU-1", DeviceKind.GPU),
        ("MIG-2", DeviceKind.MIG),
    ]

"""`doctor` where replicas are containers: a real daemon judged, a real container as the probe of a device."""

import json
import os
from collections.abc import Callable

import docker_daemon
import pytest
from docker_fleets import DockerFleet

from tritonfleet.cli.doctor.command import probed
from tritonfleet.cli.terminal import Settings
from tritonfleet.config import load_fleet
from tritonfleet.core.model import Device, DeviceKind

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

QUIET = Settings(quiet=True)


def left() -> list[str]:
    """Names of containers that a probe has left."""
    rows = docker_daemon.ask(lambda client: client.containers(all=True))
    return [name for row in rows for name in row["Names"] if name.startswith("/doctor-")]


def test_the_daemon_and_the_image_are_found(docker_fleet: Callable[..., DockerFleet]) -> None:
    found = json.loads(docker_fleet().cli("doctor", "-o", "json", check=None).stdout)["checks"]
    checks = {check["name"]: check for check in found}
    assert checks["docker"]["verdict"] == "ok"
    assert checks["image"] == {"name": "image", "verdict": "ok", "found": docker_daemon.IMAGE, "fix": ""}
    assert checks["shared memory"]["verdict"] == "skipped"


def test_a_probe_is_a_container_and_leaves_none(docker_fleet: Callable[..., DockerFleet]) -> None:
    spec = load_fleet(docker_fleet().file, os.environ)
    found = probed(QUIET, spec, "docker", Device("cpu0", DeviceKind.CPU))
    assert found.error == ""
    assert "a model loads; ready after" in found.proved
    assert left() == []


def test_a_device_request_is_made_and_what_is_missing_inside_is_told(
    docker_fleet: Callable[..., DockerFleet],
) -> None:
    docker_daemon.require_gpu_stub()
    spec = load_fleet(docker_fleet(triton={"ulimits": {}}).file, os.environ)
    gpu = Device("GPU-00000000-0000-4000-8000-000000000000", DeviceKind.GPU)
    found = probed(QUIET, spec, "docker", gpu)
    assert found.proved == ""
    assert "device_probe" in found.error, "the container ran, and Triton found no GPU in it"
    assert left() == []

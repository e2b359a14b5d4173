"""Containers that lose their GPUs while they run: an nvidia-smi that a test can make say so, in real ones."""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker_daemon
import pytest
from docker_fleets import DockerFleet, Echoing

from tritonfleet.controller.paths import FleetPaths
from tritonfleet.core.device_access import seen
from tritonfleet.core.model import Device, DeviceKind
from tritonfleet.drivers import docker_facts
from tritonfleet.drivers.base import DriverError
from tritonfleet.drivers.docker_container import identity_of

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

GPUS = [f"GPU-{number:08x}-0000-4000-8000-000000000000" for number in range(2)]
GPU = Device(GPUS[0], DeviceKind.GPU)
IMAGE = "tritonfleet-triton-smi"
# The file goes with its container and outlives a mere restart: so does the state of being detached.
SMI = """#!/bin/sh
[ -e /tmp/hanging ] && exec sleep 600
if [ -e /tmp/detached ] || ! head -c 1 /dev/full >/dev/null 2>&1; then
    echo 'Failed to initialize NVML: Unknown Error'
    exit 255
fi
echo 'GPU 0: a stub (UUID: GPU-00000000-0000-4000-8000-000000000000)'
"""


def make_image(client: Any) -> None:
    """The image of the tests, with that nvidia-smi in it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        entry = tarfile.TarInfo("nvidia-smi")
        entry.size, entry.mode = len(SMI), 0o755
        tar.addfile(entry, io.BytesIO(SMI.encode()))
    made = client.create_container(docker_daemon.IMAGE)["Id"]
    try:
        client.put_archive(made, "/usr/local/bin", data.getvalue())
        client.commit(made, repository=IMAGE)
    finally:
        client.remove_container(made)


def detach(container: str, flag: str = "detached") -> None:
    docker_daemon.ask(lambda client: docker_facts.run_inside(client, container, "touch", f"/tmp/{flag}"))


@pytest.fixture(scope="module", autouse=True)
def image() -> Iterator[None]:
    docker_daemon.require()
    docker_daemon.require_gpu_stub()
    docker_daemon.ask(make_image)
    yield
    docker_daemon.ask(lambda client: client.remove_image(IMAGE))


async def test_a_look_is_a_new_process_in_the_container(on_devices: Callable[..., Any]) -> None:
    driver, instance = await on_devices(GPU, image=IMAGE)
    look = await driver.look(instance)
    assert (look.code, seen(look)) == (0, "there")
    detach(f"{instance.fleet}-main-0.1")
    look = await driver.look(instance)
    assert (look.code, look.said.strip()) == (255, "Failed to initialize NVML: Unknown Error")
    await driver.stop(instance, 0)
    with pytest.raises(DriverError, match=r"cannot look into main-0\.1"):
        await driver.look(instance)


async def test_a_look_sees_a_device_that_the_kernel_denies(on_devices: Callable[..., Any]) -> None:
    """What systemd does to a GPU's rule, done to that of another device; needs control groups version 1."""
    driver, instance = await on_devices(GPU, image=IMAGE)
    full = await driver._engine.call(
        "inspect", lambda client: client.inspect_container(identity_of(instance))
    )
    rules = Path(f"/sys/fs/cgroup/devices/docker/{full['Id']}/devices.deny")
    if not os.access(rules, os.W_OK):
        pytest.skip(f"needs control groups version 1 and root: {rules} cannot be written to")
    assert seen(await driver.look(instance)) == "there"
    rules.write_text("c 1:7 rwm")  # /dev/full
    assert seen(await driver.look(instance)) == "gone"


async def test_a_look_that_hangs_is_given_up(
    on_devices: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_facts, "SMI_S", 0.5)
    driver, instance = await on_devices(GPU, image=IMAGE)
    detach(f"{instance.fleet}-main-0.1", "hanging")
    with pytest.raises(DriverError, match=r"does not answer|timed out"):
        await driver.look(instance)
    await driver.stop(instance, 0)  # the threads are free, too


async def test_an_image_without_nvidia_smi_tells_nothing(on_devices: Callable[..., Any]) -> None:
    driver, instance = await on_devices(GPU)
    look = await driver.look(instance)
    assert seen(look) == "unknown"
    assert "nvidia-smi" in look.said


def fleet_with_checks(make: Callable[..., DockerFleet], gpus: int) -> DockerFleet:
    """A replica on each GPU, up, and seen with its GPU: one that never was has lost none."""
    fleet = make(
        devices=GPUS[:gpus], triton={"image": IMAGE, "ulimits": {}},
        replicas={"min": 1, "initial": gpus, "max": gpus},
        fleet={"device_checks": {"every": "300ms", "failures": 3, "pause": "1s"}},
    )  # fmt: skip
    fleet.cli("up", "-d", "--wait")
    remembered = FleetPaths.of(fleet.name, fleet.environ).state_file
    fleet.until(lambda _: remembered.read_text().count('"had_devices":true') == gpus, "they have their GPUs")
    return fleet


def test_a_detached_replica_gets_a_new_container_and_no_call_fails(
    docker_fleet: Callable[..., DockerFleet],
) -> None:
    fleet = fleet_with_checks(docker_fleet, 2)
    with Echoing(fleet.address) as clients:
        detach(f"{fleet.name}-main-0.1")
        fleet.until(lambda f: "main-0.1" not in f.containers(), "its container is gone")
        fleet.ready(2)
        new = next(name for name in fleet.containers() if name != "main-1.1")
        fleet.until(lambda _: clients.answered[new], "the new one answers")
    assert clients.failures == []
    (said,) = fleet.events("replica.detached")
    assert (said["subject"], said["reason"].partition(", 3 times")[0]) == (
        "main-0",
        "its container has lost its GPUs: nvidia-smi there says 'Failed to initialize NVML: Unknown Error'",
    )
    assert any("has lost its GPUs" in event["reason"] for event in fleet.events("replica.draining"))
    (request,) = fleet.containers()[new]["HostConfig"]["DeviceRequests"]
    assert request["DeviceIDs"] == [GPUS[0]]


def gpu_access(fleet: DockerFleet) -> dict[str, str]:
    """That line of `doctor`."""
    found = json.loads(fleet.cli("doctor", "-o", "json", check=1).stdout)["checks"]
    check: dict[str, str] = next(check for check in found if check["name"] == "gpu access")
    return check


def test_the_only_replica_is_kept_and_ps_says_why(docker_fleet: Callable[..., DockerFleet]) -> None:
    fleet = fleet_with_checks(docker_fleet, 1)
    detach(f"{fleet.name}-main-0.1")
    fleet.until(lambda f: "no device is free" in f.replicas()["main-0"]["reason"], "it is kept")
    assert "has lost its GPUs" in " ".join(fleet.cli("ps").stdout.split())
    assert list(fleet.containers()) == ["main-0.1"]
    assert gpu_access(fleet)["verdict"] == "failed"
    assert f"{fleet.name}-main-0.1 has lost its GPUs" in gpu_access(fleet)["found"]
    fleet.cli("restart", "main-0")
    fleet.until(lambda f: list(f.containers()) == ["main-0.2"], "a new container")
    fleet.ready(1)
    assert (gpu_access(fleet)["verdict"], gpu_access(fleet)["found"]) == (
        "ok",
        "1 container of this fleet with theirs",
    )

"""Which devices containers are given: read back from a daemon that a stub makes believe in GPUs."""

from collections.abc import Callable
from typing import Any

import docker_daemon
import pytest
from docker_fleets import DockerFleet

from tritonfleet.core.model import Device, DeviceKind

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

GPUS = [f"GPU-{number:08x}-0000-4000-8000-000000000000" for number in range(4)]
SLICES = ("MIG-1a2b3c4d-0000-5000-8000-000000000000", "MIG-1a2b3c4d-0000-5000-8000-000000000001")
NO_LIMITS = {"ulimits": {}}  # NVIDIA's recommended ones need a daemon with privileges


def given(inspected: dict[str, Any]) -> list[str]:
    (request,) = inspected["HostConfig"]["DeviceRequests"]
    assert (request["Driver"], request["Capabilities"]) == ("nvidia", [["gpu"]])
    found: list[str] = request["DeviceIDs"]
    return found


@pytest.fixture(autouse=True)
def stub() -> None:
    docker_daemon.require_gpu_stub()


def test_four_replicas_have_a_gpu_each_and_a_replacement_the_one_that_was_freed(
    docker_fleet: Callable[..., DockerFleet],
) -> None:
    fleet = docker_fleet(
        devices=GPUS, triton=NO_LIMITS,
        replicas={"min": 1, "initial": 4, "max": 4}, restart={"backoff": "100ms"},
    )  # fmt: skip
    fleet.cli("up", "-d", "--wait")
    before = {name: given(one) for name, one in fleet.containers().items()}
    assert sorted(before) == [f"main-{index}.1" for index in range(4)]
    assert sorted(ids[0] for ids in before.values()) == GPUS
    assert all(len(ids) == 1 for ids in before.values())
    docker_daemon.ask(lambda client: client.kill(f"{fleet.name}-main-2.1"))
    fleet.until(lambda f: "main-2.2" in f.containers(), "a new container")
    fleet.ready(4)
    assert given(fleet.containers()["main-2.2"]) == before["main-2.1"]


def test_two_gpus_for_each_replica_and_for_its_replacement(
    docker_fleet: Callable[..., DockerFleet],
) -> None:
    fleet = docker_fleet(
        devices=GPUS, triton=NO_LIMITS, restart={"backoff": "100ms"},
        replicas={"min": 1, "initial": 2, "max": 2, "devices_per_replica": 2},
    )  # fmt: skip
    fleet.cli("up", "-d", "--wait")
    before = {name: given(one) for name, one in fleet.containers().items()}
    assert before == {"main-0.1": GPUS[:2], "main-1.1": GPUS[2:]}
    docker_daemon.ask(lambda client: client.kill(f"{fleet.name}-main-1.1"))
    fleet.until(lambda f: "main-1.2" in f.containers(), "a new container")
    fleet.ready(2)
    assert given(fleet.containers()["main-1.2"]) == GPUS[2:]


def test_a_fleet_on_mig_slices(docker_fleet: Callable[..., DockerFleet]) -> None:
    fleet = docker_fleet(
        devices=[GPUS[0], *SLICES], triton=NO_LIMITS, restart={"backoff": "100ms"},
        replicas={"min": 1, "initial": 2, "max": 3},
    )  # fmt: skip
    fleet.cli("up", "-d", "--wait")
    before = {name: given(one) for name, one in fleet.containers().items()}
    assert before == {"main-0.1": [GPUS[0]], "main-1.1": [SLICES[0]]}
    docker_daemon.ask(lambda client: client.kill(f"{fleet.name}-main-1.1"))
    fleet.until(lambda f: "main-1.2" in f.containers(), "a new container")
    fleet.ready(2)
    assert given(fleet.containers()["main-1.2"]) == [SLICES[0]]


def test_a_gpu_is_shared_only_if_the_file_says_so(docker_fleet: Callable[..., DockerFleet]) -> None:
    sizes = {"min": 1, "initial": 2, "max": 2}
    alone = docker_fleet(devices=GPUS[:1], triton=NO_LIMITS, replicas=sizes)
    assert "1 fits on 1 device with 1 on each" in alone.cli("up", "-d", check=2).stderr
    shared = docker_fleet(devices=GPUS[1:2], triton=NO_LIMITS, replicas={**sizes, "per_device": 2})
    shared.cli("up", "-d", "--wait")
    assert {name: given(one) for name, one in shared.containers().items()} == {
        "main-0.1": [GPUS[1]], "main-1.1": [GPUS[1]],
    }  # fmt: skip


@pytest.fixture
def launch(on_devices: Callable[..., Any]) -> Callable[..., Any]:
    """Starts one container on the given devices and returns its inspection."""

    async def launch(*devices: Device) -> dict[str, Any]:
        _, started = await on_devices(*devices)
        assert started.devices == tuple(device.id for device in devices)
        return docker_daemon.containers(started.fleet)["main-0.1"]

    return launch


async def test_a_mig_slice_is_given_by_its_uuid(launch: Callable[..., Any]) -> None:
    inspected = await launch(Device(SLICES[1], DeviceKind.MIG))
    assert given(inspected) == [SLICES[1]]
    assert not any(pair.startswith("NVIDIA_VISIBLE_DEVICES=") for pair in inspected["Config"]["Env"])


async def test_a_gpu_that_is_listed_by_its_index_is_given_by_it(launch: Callable[..., Any]) -> None:
    assert given(await launch(Device("1", DeviceKind.GPU))) == ["1"]


async def test_several_devices_go_to_one_container_in_their_order(launch: Callable[..., Any]) -> None:
    inspected = await launch(Device(GPUS[3], DeviceKind.GPU), Device(GPUS[1], DeviceKind.GPU))
    assert given(inspected) == [GPUS[3], GPUS[1]]


async def test_a_cpu_slot_asks_for_no_device(launch: Callable[..., Any]) -> None:
    inspected = await launch(Device("cpu0", DeviceKind.CPU))
    assert inspected["HostConfig"]["DeviceRequests"] in (None, [])
    assert "NVIDIA_VISIBLE_DEVICES=void" in inspected["Config"]["Env"]

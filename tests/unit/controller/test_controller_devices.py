"""What the controller keeps of devices: readings, and who is there."""

import asyncio
from collections.abc import Iterable

from tritonfleet.controller.devices import DeviceDesk
from tritonfleet.core.model import Device, DeviceKind, DeviceReading, Replica, ReplicaState
from tritonfleet.drivers.devices import cpu_slots

GIB = 1 << 30
NOW = 1000.0
GPUS = (Device("GPU-a", DeviceKind.GPU, "H100", 80 * GIB), Device("GPU-b", DeviceKind.GPU, "H100", 80 * GIB))
READING = DeviceReading(NOW - 3, 80 * GIB, 30 * GIB, 0.37, 41.0, 250.5, 2)


async def test_readings_and_replicas_are_told_by_device() -> None:
    times = 0

    def read(devices: Iterable[Device], now: float) -> dict[str, DeviceReading]:
        nonlocal times
        times += 1
        assert tuple(devices) == GPUS
        return {"GPU-a": READING}

    desk = DeviceDesk(GPUS, read=read)
    await desk.look()
    here = Replica("main-0", "main", 1, ReplicaState.READY, NOW, "", "", devices=("GPU-a",))
    first, second = desk.infos([here])
    assert (first.id, first.reading, first.replicas) == ("GPU-a", READING, ("main-0",))
    assert (second.id, second.reading, second.replicas) == ("GPU-b", None, ())
    assert times == 1
    assert desk.free() == {"GPU-a": 50 * GIB}


async def test_a_device_that_does_not_answer_is_not_taken_for_an_empty_one() -> None:
    found = {"GPU-a": DeviceReading(NOW, trouble="GPU is lost"), "GPU-b": DeviceReading(NOW)}
    desk = DeviceDesk(GPUS, read=lambda devices, now: found)
    await desk.look()
    assert desk.free() == {"GPU-a": 0}  # what GPU-b has is not known


async def test_a_fleet_without_gpus_reads_nothing() -> None:
    async with asyncio.timeout(20):
        desk = DeviceDesk(cpu_slots(2), read=lambda devices, now: {"cpu0": READING})
        await desk.look()
        await desk.run()
    assert desk.readings == {}

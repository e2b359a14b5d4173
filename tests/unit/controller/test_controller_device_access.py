"""Containers that have lost their GPUs: the controller asks, finds out, and replaces their replicas."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any

import pytest
from controller_parts import (
    PaperDriver,
    fleet_of,
    kinds,
    reasons,
    report,
    spec_of,
    states,
    until,
    worker_that_runs,
)

from tritonfleet.config.spec import DeviceChecksSpec
from tritonfleet.controller import device_access
from tritonfleet.controller.adopt import adopt
from tritonfleet.controller.fleet import Fleet
from tritonfleet.core.device_access import DeviceLook
from tritonfleet.core.model import Device, DeviceKind
from tritonfleet.core.wire import CallTelemetry, RouterTelemetry
from tritonfleet.drivers.base import DriverError, Instance

THERE = DeviceLook(0, "GPU 0: NVIDIA A10 (UUID: GPU-0)")
GONE = DeviceLook(255, "Failed to initialize NVML: Unknown Error")
WHY = "its container has lost its GPUs: nvidia-smi there says 'Failed to initialize NVML: Unknown Error'"


class GpuDriver(PaperDriver):
    """``looks``: how often an instance was asked."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self.devices = tuple(Device(f"GPU-{index}", DeviceKind.GPU) for index in range(slots))
        self.looks: dict[str, int] = {}
        self.mute = False

    async def look(self, instance: Instance) -> DeviceLook | None:
        self.looks[instance.instance] = self.looks.get(instance.instance, 0) + 1
        if self.mute:
            raise DriverError("cannot look into it: 403 Forbidden")
        return self.servers[instance.instance].look or THERE


class Bench:
    """A fleet of ``size`` replicas on ``slots`` GPUs, ready, and a router that a test speaks for."""

    def __init__(self, folder: Path, slots: int, size: int, **checks: Any) -> None:
        self.driver = GpuDriver(slots)
        spec = spec_of(folder, replicas={"min": 0, "initial": size, "max": 6})
        rules = DeviceChecksSpec.model_validate({"every": 0.02, "failures": 3, "pause": 0.001, **checks})
        self.fleet = fleet_of(folder, self.driver, spec.model_copy(update={"device_checks": rules}))
        self.size = size

    def lose(self, *instances: str) -> None:
        for name in instances:
            self.driver[name].look = GONE

    def tell_drained(self) -> None:
        """The router holds nothing anywhere."""
        slots = self.fleet.slots.values()
        running = {slot.instance.instance: 0 for slot in slots if slot.instance}
        self.fleet.take_telemetry(report(self.fleet.feed.revision, running))

    async def settled(self) -> None:
        def done() -> bool:
            self.tell_drained()
            return list(states(self.fleet).values()) == ["ready"] * self.size

        await until(done)

    async def asked(self, instance: str, times: int) -> None:
        seen = self.driver.looks.get(instance, 0)
        await until(lambda: self.driver.looks.get(instance, 0) >= seen + times, f"{instance} is asked")


@pytest.fixture
async def benches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Makes benches whose fleets run until the test ends."""
    monkeypatch.setattr(device_access, "TURN_S", 0.01)
    made: list[tuple[Bench, asyncio.Task[None], Any]] = []

    async def make(slots: int, size: int, **checks: Any) -> Bench:
        bench = Bench(tmp_path, slots, size, **checks)
        bench.fleet.feed.open()
        context = worker_that_runs(bench.fleet)
        context.__enter__()
        made.append((bench, asyncio.create_task(bench.fleet.run()), context))
        await until(lambda: list(states(bench.fleet).values()) == ["ready"] * size)
        return bench

    yield make
    for bench, loop, context in made:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        await bench.fleet.close()
        context.__exit__(None, None, None)
        assert "controller.error" not in kinds(bench.fleet), reasons(bench.fleet, "controller.error")


async def test_with_a_free_gpu_the_new_container_is_ready_before_the_old_one_goes(benches: Any) -> None:
    bench = await benches(2, 1)
    await bench.asked("main-0.1", 1)
    bench.lose("main-0.1")
    await until(lambda: states(bench.fleet).get("main-1") == "ready")
    await until(lambda: states(bench.fleet)["main-0"] == "draining")
    (said,) = reasons(bench.fleet, "replica.detached")
    assert said == f"{WHY}, 3 times in a row: it is to be replaced"
    assert reasons(bench.fleet, "replica.draining")[0].startswith(WHY)
    await bench.settled()
    assert list(states(bench.fleet)) == ["main-1"]
    assert bench.driver.launched == ["main-0.1", "main-1.1"]


async def test_all_that_were_detached_at_once_are_replaced_one_after_the_other(benches: Any) -> None:
    bench = await benches(2, 2)
    await bench.asked("main-1.1", 2)
    bench.lose("main-0.1", "main-1.1")

    def renewed() -> bool:
        ready = [slot for slot in bench.fleet.slots.values() if slot.state.serving]
        assert ready, "one always serves"
        bench.tell_drained()
        return not {"main-0.1", "main-1.1"} & bench.driver.servers.keys()

    await until(renewed)
    await bench.settled()
    assert len(reasons(bench.fleet, "replica.detached")) == 2
    assert len(bench.driver.launched) == 4
    await bench.asked(bench.driver.launched[-1], 4)
    assert len(bench.driver.launched) == 4, "the new ones have their GPUs"


def told(fleet: Fleet, bad: int, good: int) -> RouterTelemetry:
    call = CallTelemetry("main-0.1", "digits", 0, {"13": bad, "0": good}, {}, 0.0)
    return replace(report(fleet.feed.revision, {"main-0.1": 0}), calls=(call,))


async def test_the_last_one_serves_on_while_its_answers_are_good(benches: Any) -> None:
    bench = await benches(1, 1)
    bench.fleet.take_telemetry(told(bench.fleet, 7, 7))  # of before
    await bench.asked("main-0.1", 1)
    bench.lose("main-0.1")
    await until(lambda: "no device is free" in bench.fleet.slots["main-0"].reason)
    bench.fleet.take_telemetry(told(bench.fleet, 7, 100))
    await bench.asked("main-0.1", 3)
    assert states(bench.fleet) == {"main-0": "ready"}
    assert len(reasons(bench.fleet, "replica.detached")) == 2  # that it was, and that it is kept
    bench.fleet.take_telemetry(told(bench.fleet, 207, 100))
    await until(lambda: states(bench.fleet)["main-0"] != "ready")
    await until(lambda: (bench.tell_drained(), "main-0.1" not in bench.driver.servers)[1])
    await bench.settled()
    assert len(bench.driver.launched) == 2


async def test_a_gpu_that_comes_back_is_told(benches: Any) -> None:
    bench = await benches(1, 1)
    await bench.asked("main-0.1", 1)
    bench.lose("main-0.1")
    await until(lambda: "no device is free" in bench.fleet.slots["main-0"].reason)
    bench.driver["main-0.1"].look = THERE
    await until(lambda: bench.fleet.slots["main-0"].reason == "its container has its GPUs again")
    assert bench.driver.launched == ["main-0.1"]


@pytest.mark.parametrize("checks", [{"failures": 0}, {"pause": 3600}], ids=["not asked for", "too young"])
async def test_nothing_is_replaced(benches: Any, checks: dict[str, Any]) -> None:
    bench = await benches(2, 1, **checks)
    await asyncio.sleep(0.1)
    bench.lose("main-0.1")
    await asyncio.sleep(0.3)
    assert bench.driver.launched == ["main-0.1"]
    assert "replica.detached" not in kinds(bench.fleet)
    assert bool(bench.driver.looks) is ("pause" in checks)


async def test_a_daemon_that_lets_nobody_look_is_asked_rarely_and_replaces_nothing(benches: Any) -> None:
    bench = await benches(2, 1)
    bench.driver.mute = True
    await bench.asked("main-0.1", 2)
    await asyncio.sleep(0.3)
    assert bench.driver.looks["main-0.1"] < 8
    assert states(bench.fleet) == {"main-0": "ready"}


async def test_a_new_controller_knows_which_containers_had_their_gpus(benches: Any, tmp_path: Path) -> None:
    bench = await benches(2, 1)
    await until(lambda: bench.fleet.slots["main-0"].had_devices)
    bench.lose("main-0.1")
    bench.fleet.save()
    second = fleet_of(tmp_path, bench.driver, bench.fleet.spec)
    await adopt(second)
    assert second.slots["main-0"].had_devices
    await second.close()


async def test_without_gpus_nobody_is_asked(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, PaperDriver(2))
    await fleet.access.run(fleet)  # returns
    assert fleet.access.review(fleet, time()) == {}
    await fleet.close()

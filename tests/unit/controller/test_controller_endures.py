"""What fails once must not be missing afterwards: a full disk, an engine that refuses, a task that raises."""

import asyncio
import threading
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from controller_parts import (
    PaperClient,
    PaperDriver,
    fleet_of,
    kinds,
    reasons,
    report,
    states,
    until,
    worker_that_runs,
)

from tritonfleet.controller import commands, lives, saved, shutdown
from tritonfleet.controller import fleet as fleet_module
from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.saved import SavedFleet
from tritonfleet.controller.shutdown import Shutdown
from tritonfleet.core.model import Device, DeviceReading, ExitStatus, ModelStatus
from tritonfleet.core.wire import DownRequest, DrainRequest, RestartRequest
from tritonfleet.drivers.base import DriverError, Instance, LaunchSpec

READY = {"main-0": "ready", "main-1": "ready"}


class Unwilling(PaperDriver):
    """What it is told to do fails with the first of ``troubles`` that is left."""

    def __init__(self) -> None:
        super().__init__()
        self.stop_troubles: list[Exception] = []
        self.start_troubles: list[Exception] = []
        self.wait_troubles: list[Exception] = []

    async def start(self, spec: LaunchSpec) -> Instance:
        if self.start_troubles:
            raise self.start_troubles.pop(0)
        return await super().start(spec)

    async def stop(self, instance: Instance, grace_s: float) -> ExitStatus:
        if self.stop_troubles:
            raise self.stop_troubles.pop(0)
        return await super().stop(instance, grace_s)

    async def wait(self, instance: Instance) -> ExitStatus:
        if self.wait_troubles:
            raise self.wait_troubles.pop(0)
        return await super().wait(instance)


@pytest.fixture
def driver() -> Unwilling:
    return Unwilling()


@pytest.fixture
async def fleet(tmp_path: Path, driver: Unwilling, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    """Its loop runs; two replicas are ready."""
    monkeypatch.setattr(fleet_module, "AGAIN_S", 0.01)
    monkeypatch.setattr(lives, "END_AGAIN_S", 0.01)
    monkeypatch.setattr(shutdown, "AGAIN_S", 0.01)
    fleet = fleet_of(tmp_path, driver)
    fleet.feed.open()
    loop = asyncio.create_task(fleet.run())
    await until(lambda: states(fleet) == READY)
    yield fleet
    assert not loop.done(), loop
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    await fleet.close()


class FullDisk:
    """No file of the fleet's own can be written any more: a folder is where it would be made."""

    def __init__(self, fleet: Fleet) -> None:
        paths = fleet.paths
        files = (paths.state_file, paths.revisions_file, paths.statistics_file, paths.autoscale_file)
        self._in_the_way = [path.with_name(path.name + ".new") for path in files]

    def __enter__(self) -> None:
        for path in self._in_the_way:
            path.mkdir()

    def __exit__(self, *_error: object) -> None:
        for path in self._in_the_way:
            path.rmdir()


async def test_on_a_full_disk_replicas_are_looked_after_and_noted_when_there_is_room(
    fleet: Fleet, driver: Unwilling
) -> None:
    with FullDisk(fleet):
        driver["main-0.1"].kill()
        await until(lambda: "main-0.2" in driver.servers and states(fleet) == READY)
        driver["main-1.1"].error = "it hangs"
        await until(lambda: "main-1.2" in driver.servers and states(fleet) == READY)
        assert "main-1.1" in driver.removed
    await until(lambda: "state.written" in kinds(fleet))
    known = saved.read(fleet.paths.state_file, SavedFleet)
    assert known is not None
    assert known.generations == {"main-0": 2, "main-1": 2}
    (said,) = reasons(fleet, "state.unwritten")
    assert "cannot be written: Is a directory; what runs goes on" in said
    assert "controller.error" not in kinds(fleet)


async def test_a_stop_that_fails_is_tried_until_it_is_done(fleet: Fleet, driver: Unwilling) -> None:
    driver.stop_troubles = [DriverError("the engine has a bad day"), OSError(5, "Input/output error")]
    commands.restart(fleet, "main-0", RestartRequest())
    await until(lambda: "main-0.2" in driver.servers and states(fleet) == READY)
    assert driver.removed == ["main-0.1"]
    first, second = reasons(fleet, "replica.stuck")
    assert first.endswith("cannot be ended, it is tried again: the engine has a bad day")
    assert "Input/output error" in second


async def test_what_cannot_be_removed_keeps_no_slot_and_no_down_waiting(
    fleet: Fleet, driver: Unwilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process has ended, so its device is free; a folder that is read-only stays so."""

    async def refusing(_instance: Instance) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(driver, "remove", refusing)
    commands.restart(fleet, "main-0", RestartRequest())
    await until(lambda: "main-0.2" in driver.servers and states(fleet) == READY)
    (said,) = reasons(fleet, "replica.stuck")
    assert "has ended, and what it leaves cannot be removed, it is tried again" in said
    ending = Shutdown(fleet)
    ending.begin(DownRequest())
    await asyncio.wait_for(ending.done.wait(), 20)
    assert all(server.exit is not None for server in driver.servers.values())


async def test_what_was_given_up_on_is_ended_before_its_device_is_used(
    fleet: Fleet, driver: Unwilling
) -> None:
    """The paper driver refuses two processes on one device."""
    driver.stop_troubles = [DriverError("not now")] * 5
    driver["main-0.1"].error = "it hangs"
    await until(lambda: "main-0.2" in driver.servers and states(fleet) == READY)
    assert driver.removed == ["main-0.1"]


async def test_a_launch_that_fails_unheard_of_is_a_failed_launch(fleet: Fleet, driver: Unwilling) -> None:
    driver.start_troubles = [OSError(24, "Too many open files")]
    driver["main-0.1"].kill()
    await until(lambda: "main-0.3" in driver.servers and states(fleet) == READY)
    assert any("Too many open files" in why for why in reasons(fleet, "replica.failed"))


async def test_a_launch_that_the_host_spoils_is_not_the_device_s_fault(
    fleet: Fleet, driver: Unwilling
) -> None:
    """A device where launches fail while the same configuration serves elsewhere would be set aside."""
    driver.start_troubles = [DriverError("no space left", by_device=False) for _ in range(4)]
    driver["main-0.1"].kill()
    await until(lambda: "main-0.6" in driver.servers and states(fleet) == READY)
    assert len(reasons(fleet, "replica.failed")) == 4
    blamed = [one.what for known in fleet.desk.health.values() for one in known.failures]
    assert not [what for what in blamed if "no space left" in what]


async def test_an_end_is_noticed_although_waiting_for_it_failed_once(fleet: Fleet, driver: Unwilling) -> None:
    driver.wait_troubles = [OSError(24, "Too many open files")]
    commands.restart(fleet, "main-0", RestartRequest())
    await until(lambda: "main-0.2" in driver.servers and states(fleet) == READY)
    driver["main-0.2"].kill()
    await until(lambda: "main-0.3" in driver.servers and states(fleet) == READY)


async def test_a_replica_is_watched_on_after_an_answer_nobody_understood(
    fleet: Fleet, driver: Unwilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = PaperClient.models
    answers = [ValueError("no such answer"), ValueError("no such answer")]

    async def models(self: PaperClient, timeout: float) -> tuple[ModelStatus, ...]:
        if answers:
            raise answers.pop()
        return await ask(self, timeout)

    monkeypatch.setattr(PaperClient, "models", models)
    await until(lambda: not answers)
    driver["main-0.1"].error = driver["main-1.1"].error = "it hangs"
    await until(lambda: {"main-0.2", "main-1.2"} <= driver.servers.keys() and states(fleet) == READY)
    assert reasons(fleet, "controller.error") == ["ValueError('no such answer')"], "told once"


async def test_a_turn_of_the_loop_that_fails_does_not_end_it(
    fleet: Fleet, driver: Unwilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, mistakes = fleet.outliers.review, [KeyError("main-7")]

    def review(*arguments: Any) -> None:
        if mistakes:
            raise mistakes.pop()
        turn(*arguments)

    monkeypatch.setattr(fleet.outliers, "review", review)
    await until(lambda: not mistakes)
    driver["main-0.1"].kill()
    await until(lambda: "main-0.2" in driver.servers and states(fleet) == READY)
    assert reasons(fleet, "controller.error") == ["KeyError('main-7')"]


async def test_down_goes_on_after_what_fails(
    fleet: Fleet, driver: Unwilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    troubles: list[Exception] = [DriverError("no list now")]
    listed = driver.list

    async def list_() -> Collection[Instance]:
        if troubles:
            raise troubles.pop()
        return await listed()

    monkeypatch.setattr(driver, "list", list_)
    driver.stop_troubles = [DriverError("not now"), OSError(28, "No space left on device")]
    ending = Shutdown(fleet)
    ending.begin(DownRequest())
    await asyncio.wait_for(ending.done.wait(), 20)
    assert driver.servers == {}


async def test_a_driver_of_gpus_that_hangs_does_not_keep_replicas_from_starting(
    tmp_path: Path, driver: Unwilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_module, "FIRST_LOOK_S", 0.05)
    goes_on = threading.Event()

    def read(_devices: object, _now: float) -> Mapping[str, DeviceReading]:
        goes_on.wait(60)
        return {}

    fleet = fleet_of(tmp_path, driver)
    fleet.desk._readable, fleet.desk._read = (Device("GPU-1", driver.devices[0].kind),), read
    loop = asyncio.create_task(fleet.run())
    try:
        await until(lambda: states(fleet) == READY)
    finally:
        goes_on.set()
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        await fleet.close()


# ---------------------------------------------------------------- what drains already


async def test_a_replica_that_drains_is_not_cut_short_by_a_drain_or_a_restart(
    fleet: Fleet, driver: Unwilling
) -> None:
    with worker_that_runs(fleet):
        commands.drain_device(fleet, "cpu0", DrainRequest())
        commands.restart(fleet, "main-0", RestartRequest())
        commands.drain(fleet, "main-0", DrainRequest(by="ann"))
        assert states(fleet)["main-0"] == "draining"
        assert driver["main-0.1"].grace_s is None
        fleet.take_telemetry(report(fleet.feed.revision, {"main-0.1": 0}))
        await until(lambda: "main-0.1" in driver.removed)
        await until(lambda: states(fleet)["main-0"] == "pending")
        assert fleet.slots["main-0"].held


async def test_a_drain_is_hastened_by_force(fleet: Fleet, driver: Unwilling) -> None:
    with worker_that_runs(fleet):
        server = driver["main-0.1"]
        commands.drain(fleet, "main-0", DrainRequest())
        assert states(fleet)["main-0"] == "draining"
        commands.drain(fleet, "main-0", DrainRequest(force=True))
        await until(lambda: "main-0.1" in driver.removed)
        assert server.grace_s == 0.0
        assert fleet.slots["main-0"].held

"""A controller dies at some instruction; the next one finds what runs and starts nothing twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import pytest
from controller_parts import PaperDriver, fleet_of, kinds, reasons, report, states, until, worker_that_runs

from tritonfleet.controller import commands, saved
from tritonfleet.controller.adopt import adopt
from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.saved import SavedFleet
from tritonfleet.core.wire import DrainRequest, RestartRequest
from tritonfleet.drivers.base import Instance


@pytest.fixture
def driver() -> PaperDriver:
    return PaperDriver()


@asynccontextmanager
async def controller(folder: Path, driver: PaperDriver) -> AsyncIterator[Fleet]:
    """One life of a controller; it ends without a goodbye, as SIGKILL would have it."""
    fleet = fleet_of(folder, driver)
    await adopt(fleet)
    loop = asyncio.create_task(fleet.run())
    try:
        yield fleet
    finally:
        state = fleet.paths.state_file.read_bytes()
        loop.cancel()
        for task in list(fleet._tasks):
            task.cancel()
        await asyncio.gather(loop, *fleet._tasks, return_exceptions=True)
        fleet.paths.state_file.write_bytes(state)
    assert "controller.error" not in kinds(fleet), reasons(fleet, "controller.error")


async def all_ready(fleet: Fleet, *names: str) -> None:
    """Ready, and noted as such on disk: the next life begins with what the disk says."""

    def noted() -> bool:
        saved_fleet = saved.read(fleet.paths.state_file, SavedFleet)
        slots = saved_fleet.slots if saved_fleet else {}
        return {name: slot.state.value for name, slot in slots.items()} == dict.fromkeys(names, "ready")

    await until(
        lambda: states(fleet) == dict.fromkeys(names, "ready") and noted(), f"{names} ready: {states(fleet)}"
    )


async def test_everything_is_taken_over_as_it_was(tmp_path: Path, driver: PaperDriver) -> None:
    async with controller(tmp_path, driver) as fleet:
        fleet.sizes["main"] = 3
        await all_ready(fleet, "main-0", "main-1", "main-2")
        before, revision, seq = fleet.replicas(), fleet.feed.revision, fleet.journal.seq
    for server in driver.servers.values():
        server.error = "busy"  # the first probes of the new controller fail: that must not matter
    async with controller(tmp_path, driver) as fleet:
        assert [r.state for r in fleet.replicas()] == [r.state for r in before]
        assert [r.handle for r in fleet.replicas()] == [r.handle for r in before]
        assert [r.models for r in fleet.replicas()] == [r.models for r in before]
        table = await anext(fleet.feed.follow())
        assert len(table.replicas) == 3, "the routers must not see a smaller fleet"
        assert table.revision > revision
        assert fleet.journal.since(seq)[0].type == "controller.adopted"
        assert fleet.journal.since(seq)[0].seq == seq + 1
        for server in driver.servers.values():
            server.error = ""
        assert fleet.size_of("main") == 3
    assert driver.launched == ["main-0.1", "main-1.1", "main-2.1"]


async def test_without_its_memory_it_still_finds_what_runs(tmp_path: Path, driver: PaperDriver) -> None:
    async with controller(tmp_path, driver) as fleet:
        await all_ready(fleet, "main-0", "main-1")
    fleet.paths.state_file.unlink()
    async with controller(tmp_path, driver) as fleet:
        table = await anext(fleet.feed.follow())
        assert len(table.replicas) == 2, "probed before the first table is handed out"
        await all_ready(fleet, "main-0", "main-1")
        driver["main-1.1"].kill()
        await until(lambda: "main-1.2" in driver.launched)
    assert driver.launched == ["main-0.1", "main-1.1", "main-1.2"]


async def test_what_died_meanwhile_is_replaced_and_told(tmp_path: Path, driver: PaperDriver) -> None:
    async with controller(tmp_path, driver) as fleet:
        await all_ready(fleet, "main-0", "main-1")
    driver["main-1.1"].kill()
    async with controller(tmp_path, driver) as fleet:
        await all_ready(fleet, "main-0", "main-1")
        (said,) = reasons(fleet, "replica.exited")
        assert "killed by SIGKILL, while no controller ran" in said
    assert driver.launched == ["main-0.1", "main-1.1", "main-1.2"]


async def test_after_a_reboot_everything_starts_anew(tmp_path: Path, driver: PaperDriver) -> None:
    async with controller(tmp_path, driver) as fleet:
        await all_ready(fleet, "main-0", "main-1")
    driver.servers.clear()
    async with controller(tmp_path, driver) as fleet:
        await all_ready(fleet, "main-0", "main-1")
    assert driver.launched == ["main-0.1", "main-1.1", "main-0.2", "main-1.2"]


async def test_a_drain_goes_on(tmp_path: Path, driver: PaperDriver) -> None:
    async with controller(tmp_path, driver) as fleet:
        with worker_that_runs(fleet):
            await all_ready(fleet, "main-0", "main-1")
            fleet.sizes["main"] = 1
            fleet.wake()
            await until(lambda: states(fleet)["main-1"] == "draining")
            await until(lambda: fleet.paths.state_file.read_text().count("draining") == 1)
    async with controller(tmp_path, driver) as fleet:
        with worker_that_runs(fleet):
            assert states(fleet) == {"main-0": "ready", "main-1": "draining"}
            fleet.take_telemetry(report(fleet.feed.revision, {"main-1.1": 0}))
            await until(lambda: states(fleet) == {"main-0": "ready"})
    assert driver.launched == ["main-0.1", "main-1.1"]


async def test_a_stop_goes_on(tmp_path: Path, driver: PaperDriver) -> None:
    driver.stops.clear()
    async with controller(tmp_path, driver) as fleet:
        await all_ready(fleet, "main-0", "main-1")
        fleet.sizes["main"] = 1
        fleet.wake()
        await until(lambda: driver["main-1.1"].grace_s)
        await until(lambda: "stopping" in fleet.paths.state_file.read_text())
    driver.stops.set()
    async with controller(tmp_path, driver) as fleet:
        await until(lambda: states(fleet) == {"main-0": "ready"})
    assert driver.removed == ["main-1.1"]


async def test_a_launch_under_way_is_found(tmp_path: Path, driver: PaperDriver) -> None:
    """The process exists; the controller died before it heard of it."""
    async with controller(tmp_path, driver) as fleet:
        await all_ready(fleet, "main-0", "main-1")
        driver.starts.clear()
        fleet.sizes["main"] = 3
        fleet.wake()
        await until(lambda: states(fleet).get("main-2") == "starting")
        spec = driver["main-1.1"].spec
    driver.starts.set()
    assert spec.replica == "main-1"
    started = type(spec)(
        **{
            **{name: getattr(spec, name) for name in spec.__slots__},
            "replica": "main-2",
            "devices": (driver.devices[2],),
        }
    )
    await driver.start(started)
    async with controller(tmp_path, driver) as fleet:
        await all_ready(fleet, "main-0", "main-1", "main-2")
    assert driver.launched == ["main-0.1", "main-1.1", "main-2.1"]


async def test_of_two_processes_of_one_slot_the_newer_stays(tmp_path: Path, driver: PaperDriver) -> None:
    async with controller(tmp_path, driver) as fleet:
        await all_ready(fleet, "main-0", "main-1")
        spec = driver["main-1.1"].spec
    again = type(spec)(
        **{
            **{name: getattr(spec, name) for name in spec.__slots__},
            "generation": 2,
            "devices": (driver.devices[2],),
        }
    )
    await driver.start(again)
    async with controller(tmp_path, driver) as fleet:
        await all_ready(fleet, "main-0", "main-1")
        assert fleet.replicas()[1].instance == "main-1.2"
    assert driver.removed == ["main-1.1"]


async def test_an_emptied_slot_stays_empty(tmp_path: Path, driver: PaperDriver) -> None:
    async with controller(tmp_path, driver) as fleet:
        await all_ready(fleet, "main-0", "main-1")
        commands.drain(fleet, "main-1", DrainRequest())
        await until(lambda: "main-1.1" in driver.removed)
        await until(lambda: '"held":true' in fleet.paths.state_file.read_text())
    async with controller(tmp_path, driver) as fleet:
        await asyncio.sleep(0.1)
        assert driver.launched == ["main-0.1", "main-1.1"]
        assert "undrain main-1" in fleet.slots["main-1"].reason
        commands.undrain(fleet, "main-1")
        await all_ready(fleet, "main-0", "main-1")


@pytest.mark.parametrize("state", ["draining", "stopping"])
async def test_a_slot_that_was_being_emptied_says_how_it_comes_back(
    tmp_path: Path, driver: PaperDriver, state: str
) -> None:
    driver.stops.clear()
    async with controller(tmp_path, driver) as fleet:
        with worker_that_runs(fleet) if state == "draining" else nullcontext():
            await all_ready(fleet, "main-0", "main-1")
            commands.drain(fleet, "main-1", DrainRequest())
            await until(lambda: f'"{state}"' in fleet.paths.state_file.read_text())
    driver["main-1.1"].kill()
    driver.stops.set()
    async with controller(tmp_path, driver) as fleet:
        assert fleet.slots["main-1"].reason == "emptied by hand; `tritonfleet undrain main-1` brings it back"
        await asyncio.sleep(0.1)
        assert driver.launched == ["main-0.1", "main-1.1"]


async def test_a_restart_goes_on(tmp_path: Path, driver: PaperDriver) -> None:
    driver.stops.clear()
    async with controller(tmp_path, driver) as fleet:
        await all_ready(fleet, "main-0", "main-1")
        commands.restart(fleet, "main-1", RestartRequest())
        await until(lambda: driver["main-1.1"].grace_s)
        await until(lambda: "stopping" in fleet.paths.state_file.read_text())
    driver.stops.set()
    async with controller(tmp_path, driver) as fleet:
        await all_ready(fleet, "main-0", "main-1")
    assert driver.launched == ["main-0.1", "main-1.1", "main-1.2"]


async def test_failures_are_not_forgotten(tmp_path: Path, driver: PaperDriver) -> None:
    """A crash loop stays one, though its next try is due at once."""
    driver.come_up_ready = False
    async with controller(tmp_path, driver) as fleet:
        while states(fleet).get("main-0") != "crash_loop":
            instance = fleet.slots["main-0"].instance if "main-0" in fleet.slots else None
            if instance is not None:
                driver[instance.instance].end(code=1)
            await asyncio.sleep(0.005)
        await until(lambda: "crash_loop" in fleet.paths.state_file.read_text())
        failures = fleet.slots["main-0"].failures
    async with controller(tmp_path, driver) as fleet:
        assert fleet.slots["main-0"].failures == failures
        assert fleet.slots["main-0"].generation >= failures


async def test_records_that_cannot_be_removed_keep_nobody_from_being_adopted(
    tmp_path: Path, driver: PaperDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tritonfleet.controller.adopt.END_S", 0.05)
    monkeypatch.setattr("tritonfleet.controller.lives.END_AGAIN_S", 0.01)
    async with controller(tmp_path, driver) as fleet:
        await all_ready(fleet, "main-0", "main-1")
    driver["main-0.1"].kill()
    remove, troubles = driver.remove, [OSError(30, "Read-only file system")] * 4

    async def refusing(instance: Instance) -> None:
        if troubles:
            raise troubles.pop()
        await remove(instance)

    monkeypatch.setattr(driver, "remove", refusing)
    async with controller(tmp_path, driver) as fleet:
        await all_ready(fleet, "main-0", "main-1")
        assert len(reasons(fleet, "replica.stuck")) == 1
        await until(lambda: "main-0.1" in driver.removed)

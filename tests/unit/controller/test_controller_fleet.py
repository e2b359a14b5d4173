"""The loop: what happens to replicas, and what is said about it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from controller_parts import (
    READY,
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

from tritonfleet.controller import lives
from tritonfleet.controller.fleet import Fleet
from tritonfleet.core.model import ModelStatus
from tritonfleet.drivers.base import DriverError


@pytest.fixture
def driver() -> PaperDriver:
    return PaperDriver()


@pytest.fixture
async def fleet(tmp_path: Path, driver: PaperDriver) -> AsyncIterator[Fleet]:
    """Its loop runs; two replicas are wanted."""
    fleet = fleet_of(tmp_path, driver)
    fleet.feed.open()
    loop = asyncio.create_task(fleet.run())
    yield fleet
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    await fleet.close()
    assert "controller.error" not in kinds(fleet), reasons(fleet, "controller.error")


def scaled(fleet: Fleet, size: int) -> None:
    fleet.sizes["main"] = size
    fleet.wake()


async def all_ready(fleet: Fleet, *names: str) -> None:
    await until(lambda: states(fleet) == dict.fromkeys(names, "ready"), f"{names} ready: {states(fleet)}")


async def test_a_fleet_starts_its_size_and_tells_the_routers(fleet: Fleet, driver: PaperDriver) -> None:
    await all_ready(fleet, "main-0", "main-1")
    assert kinds(fleet, "main-0") == ["replica.starting", "replica.ready"]
    (ready, _) = reasons(fleet, "replica.ready")
    assert ready.startswith("2 models ready after ")
    assert {slot.instance.devices for slot in fleet.slots.values() if slot.instance} == {("cpu0",), ("cpu1",)}
    table = await anext(fleet.feed.follow())
    assert [(row.instance, row.models) for row in table.replicas] == [
        ("main-0.1", ("digits", "echo")),
        ("main-1.1", ("digits", "echo")),
    ]


async def test_a_killed_replica_leaves_the_table_at_once_and_is_replaced(
    fleet: Fleet, driver: PaperDriver
) -> None:
    await all_ready(fleet, "main-0", "main-1")
    driver["main-1.1"].kill()
    await until(lambda: driver.launched == ["main-0.1", "main-1.1", "main-1.2"])
    await all_ready(fleet, "main-0", "main-1")
    (said,) = reasons(fleet, "replica.exited")
    assert said.startswith("pid 30010 killed by SIGKILL; starting again at once")
    assert fleet.slots["main-1"].restarts == 1
    assert driver.removed == ["main-1.1"]


async def test_one_that_fails_again_and_again_waits_longer_and_is_called_a_crash_loop(
    fleet: Fleet, driver: PaperDriver
) -> None:
    await all_ready(fleet, "main-0", "main-1")
    driver.come_up_ready = False
    failed = 0
    while states(fleet)["main-1"] != "crash_loop":
        instance = fleet.slots["main-1"].instance
        if instance is not None and driver[instance.instance].exit is None:
            driver[instance.instance].end(code=1, detail="model broken: no such module")
            failed += 1
        await asyncio.sleep(0.005)
    assert failed == 3
    delays = [event.data["delay_s"] for event in fleet.journal.since(0) if event.type == "replica.exited"]
    assert delays == [0.0, 0.1, 0.2]
    assert "exited with code 1: model broken: no such module" in fleet.slots["main-1"].reason
    assert len(reasons(fleet, "replica.crash_loop")) == 1
    driver.come_up_ready = True
    await all_ready(fleet, "main-0", "main-1")


async def test_a_launch_the_driver_refuses_is_retried_with_its_remedy_shown(
    tmp_path: Path, driver: PaperDriver
) -> None:
    driver.refusal = DriverError("there is no tritonserver", remedy="install one", transient=False)
    fleet = fleet_of(tmp_path, driver, spec_of(tmp_path, replicas={"min": 1, "max": 1}))
    loop = asyncio.create_task(fleet.run())
    await until(lambda: states(fleet) == {"main-0": "failed"})
    reason = fleet.slots["main-0"].reason
    assert reason.startswith("there is no tritonserver (install one); starting again in 0.2 s")
    driver.refusal = None
    await all_ready(fleet, "main-0")
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    await fleet.close()


async def test_loading_says_what_it_waits_for(fleet: Fleet, driver: PaperDriver) -> None:
    driver.come_up_ready = False
    scaled(fleet, 3)
    await until(lambda: "main-2.1" in driver.servers)
    await until(lambda: "the server's port is closed" in fleet.slots["main-2"].reason)
    driver["main-2.1"].models = (READY[0], ModelStatus("slow", False, (), "loading"))
    await until(lambda: fleet.slots["main-2"].reason == "waiting for slow (loading)")
    assert states(fleet)["main-2"] == "loading"


async def test_the_startup_timeout_gives_up_on_a_process_that_hangs(
    tmp_path: Path, driver: PaperDriver
) -> None:
    driver.come_up_ready = False
    fleet = fleet_of(tmp_path, driver, spec_of(tmp_path, startup_timeout=0.1, replicas={"min": 1, "max": 1}))
    loop = asyncio.create_task(fleet.run())
    await until(lambda: "main-0.2" in driver.launched)
    assert reasons(fleet, "replica.unhealthy")[0].startswith("not ready within 0.1 s: waiting for its models")
    assert "main-0.1" in driver.removed
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    await fleet.close()


async def test_one_failed_probe_means_nothing_and_three_in_a_row_mean_the_end(
    fleet: Fleet, driver: PaperDriver
) -> None:
    await all_ready(fleet, "main-0", "main-1")
    server, slot = driver["main-0.1"], fleet.slots["main-0"]
    server.error = "no answer within 1 s"
    await until(lambda: slot.failed_probes >= 1)
    server.error = ""
    await until(lambda: slot.failed_probes == 0)
    assert slot.instance is not None
    server.error = "no answer within 1 s"
    await until(lambda: "main-0.2" in driver.launched)
    (said,) = reasons(fleet, "replica.unhealthy")
    assert said.startswith("3 health probes in a row failed, the last one: no answer within 1 s")


async def test_nothing_is_concluded_from_silence_while_the_engine_is_silent_too(
    fleet: Fleet, driver: PaperDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lives, "BACK_S", 0.1)
    await all_ready(fleet, "main-0", "main-1")
    driver.away = "no Docker daemon"
    driver["main-0.1"].error = driver["main-1.1"].error = "connection refused"
    await until(lambda: kinds(fleet).count("replica.unknown") == 2)
    await asyncio.sleep(0.3)  # fifteen probes
    assert states(fleet) == {"main-0": "ready", "main-1": "ready"}
    assert fleet.slots["main-0"].reason == (
        "it does not answer, and whether it runs is not known: no Docker daemon"
    )
    driver.away = driver["main-0.1"].error = ""
    await until(lambda: reasons(fleet, "replica.known") == ["it answers again"])
    await until(lambda: "main-1.2" in driver.launched)  # which stayed silent
    assert "main-0.2" not in driver.launched


async def test_a_model_that_goes_leaves_the_table_but_not_the_replica(
    fleet: Fleet, driver: PaperDriver
) -> None:
    await all_ready(fleet, "main-0", "main-1")
    driver["main-0.1"].models = (READY[0], ModelStatus("echo", False, (), "unloaded"))
    await until(lambda: fleet.feed._table.replicas[0].models == ("digits",))
    assert states(fleet)["main-0"] == "ready"
    assert "replica.model_lost" not in kinds(fleet), "it was unloaded"
    driver["main-1.1"].models = (READY[0], ModelStatus("echo", False, (), "its process died"))
    await until(lambda: reasons(fleet, "replica.model_lost"))
    driver["main-1.1"].models = READY
    await until(lambda: reasons(fleet, "replica.model_back") == ["echo is ready again"])


async def test_scaling_down_drains_until_every_worker_says_it_is_empty(
    fleet: Fleet, driver: PaperDriver
) -> None:
    with worker_that_runs(fleet):
        await all_ready(fleet, "main-0", "main-1")
        scaled(fleet, 1)
        await until(lambda: states(fleet)["main-1"] == "draining")
        revision = fleet.feed.revision
        fleet.take_telemetry(report(revision - 1, {"main-1.1": 0}))  # it has not heard of the drain yet
        fleet.take_telemetry(report(revision, {"main-1.1": 1}))
        await asyncio.sleep(0.05)
        assert states(fleet)["main-1"] == "draining"
        assert fleet.replicas()[1].in_flight == 1
        assert driver["main-1.1"].grace_s is None
        fleet.take_telemetry(report(revision, {"main-1.1": 0}))
        await until(lambda: states(fleet) == {"main-0": "ready"})
    assert driver.removed == ["main-1.1"]
    assert kinds(fleet, "main-1")[-3:] == ["replica.draining", "replica.stopping", "replica.stopped"]


async def test_a_drain_ends_with_its_deadline(tmp_path: Path, driver: PaperDriver) -> None:
    fleet = fleet_of(tmp_path, driver, spec_of(tmp_path, drain_timeout=0.1))
    loop = asyncio.create_task(fleet.run())
    with worker_that_runs(fleet):
        await all_ready(fleet, "main-0", "main-1")
        scaled(fleet, 1)
        await until(lambda: "main-1" in states(fleet) and states(fleet)["main-1"] == "draining")
        fleet.take_telemetry(report(fleet.feed.revision, {"main-1.1": 5}))
        await until(lambda: states(fleet) == {"main-0": "ready"})
    assert "drain timeout with 5 requests in flight" in reasons(fleet, "replica.stopping")
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    await fleet.close()


async def test_one_that_dies_while_it_drains_is_simply_gone(fleet: Fleet, driver: PaperDriver) -> None:
    with worker_that_runs(fleet):
        await all_ready(fleet, "main-0", "main-1")
        scaled(fleet, 1)
        await until(lambda: states(fleet)["main-1"] == "draining")
        driver["main-1.1"].kill()
        await until(lambda: states(fleet) == {"main-0": "ready"})
    assert driver.launched == ["main-0.1", "main-1.1"]


async def test_a_launch_that_is_stopped_meanwhile_leaves_no_process(
    fleet: Fleet, driver: PaperDriver
) -> None:
    await all_ready(fleet, "main-0", "main-1")
    driver.starts.clear()
    scaled(fleet, 3)
    await until(lambda: states(fleet).get("main-2") == "starting")
    scaled(fleet, 2)
    await until(lambda: states(fleet)["main-2"] == "stopping")
    driver.starts.set()
    await all_ready(fleet, "main-0", "main-1")
    assert "main-2.1" not in driver.servers
    assert driver.removed == ["main-2.1"]


async def test_a_launch_under_way_has_its_device(fleet: Fleet, driver: PaperDriver) -> None:
    """The paper driver refuses two processes on one device."""
    await all_ready(fleet, "main-0", "main-1")
    driver.starts.clear()
    scaled(fleet, 3)
    await until(lambda: states(fleet).get("main-2") == "starting")
    scaled(fleet, 4)
    await until(lambda: states(fleet).get("main-3") == "starting")
    driver.starts.set()
    await all_ready(fleet, *(f"main-{ordinal}" for ordinal in range(4)))


async def test_more_than_fit_wait_and_say_why(fleet: Fleet, driver: PaperDriver) -> None:
    scaled(fleet, 5)
    await until(lambda: list(states(fleet).values()) == ["ready"] * 4 + ["pending"])
    assert fleet.slots["main-4"].reason == "no free device: all 4 are taken (1 per device)"
    fleet.slots["main-0"].failures = 0
    scaled(fleet, 4)
    await all_ready(fleet, *(f"main-{ordinal}" for ordinal in range(4)))


async def test_a_new_configuration_replaces_one_by_one(
    fleet: Fleet, driver: PaperDriver, tmp_path: Path
) -> None:
    await all_ready(fleet, "main-0", "main-1")
    fewest = 2
    fleet.spec = spec_of(tmp_path, triton={"args": ["--log-verbose=1"]})
    wanted = fleet.targets()[0].config_hash
    fleet.wake()

    def done() -> bool:
        nonlocal fewest
        ready = [r for r in fleet.replicas() if r.state.value == "ready"]
        fewest = min(fewest, len(ready))
        return len(fleet.slots) == 2 and {r.config_hash for r in ready} == {wanted} and len(ready) == 2

    await until(done)
    assert fewest == 2
    assert len(driver.launched) == 4


async def test_statistics_are_read_from_those_that_are_ready(fleet: Fleet, driver: PaperDriver) -> None:
    await all_ready(fleet, "main-0", "main-1")
    await until(lambda: fleet.slots["main-0"].reading is not None)
    reading = fleet.slots["main-0"].reading
    assert reading is not None
    assert reading.counters["digits", "1"].success_count == 0
    assert reading.rates[0].window_s == 0.0


async def test_generations_are_never_used_twice(fleet: Fleet, driver: PaperDriver) -> None:
    await all_ready(fleet, "main-0", "main-1")
    scaled(fleet, 1)
    await all_ready(fleet, "main-0")
    scaled(fleet, 2)
    await all_ready(fleet, "main-0", "main-1")
    assert driver.launched == ["main-0.1", "main-1.1", "main-1.2"]

"""A replica that answers badly though its probes pass: the routers say so, the controller replaces it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from time import time

import pytest
from controller_parts import PaperDriver, fleet_of, kinds, reasons, report, states, until, worker_that_runs

from tritonfleet.controller.fleet import Fleet
from tritonfleet.core.wire import CallTelemetry, ReplicaTelemetry, RouterTelemetry

WHY = "5 failures in a row: not chosen for 30 s"


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Two ready replicas and a router worker whose reports a test writes."""
    fleet = fleet_of(tmp_path, PaperDriver(3))
    fleet.feed.open()
    loop = asyncio.create_task(fleet.run())
    with worker_that_runs(fleet):
        await until(lambda: states(fleet) == {"main-0": "ready", "main-1": "ready"})
        yield fleet
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    await fleet.close()
    assert "controller.error" not in kinds(fleet), reasons(fleet, "controller.error")


def told(fleet: Fleet, ejections: int, *, bad: dict[str, int], good: dict[str, int]) -> RouterTelemetry:
    """main-0 was left out so often; what was answered so far, by instance."""
    rows = (
        ReplicaTelemetry("main-0.1", 0, 0, 0.0, 2, True, WHY, ejected=True, ejections=ejections),
        ReplicaTelemetry("main-1.1", 0, 0, 0.0, 2, True),
    )
    calls = tuple(
        CallTelemetry(name, "digits", 0, {"13": bad.get(name, 0), "0": good.get(name, 0)}, {}, 0.0)
        for name in ("main-0.1", "main-1.1")
    )
    return RouterTelemetry(0, 4242, 0.0, fleet.feed.revision, 1, 0, 0, 0, rows, calls)


async def test_it_is_drained_and_launched_again_and_its_device_remembered(fleet: Fleet) -> None:
    fleet.take_telemetry(told(fleet, 1, bad={"main-0.1": 5}, good={"main-1.1": 5}))
    fleet.tick(time())
    assert states(fleet)["main-0"] == "ready"  # the routers try it again first
    fleet.take_telemetry(told(fleet, 2, bad={"main-0.1": 10}, good={"main-1.1": 40}))
    fleet.tick(time())
    (said,) = reasons(fleet, "replica.unhealthy")
    assert said == (
        f"the routers left it out 2 times ({WHY}), "
        "while the others answered 35 of 35 calls well: it is replaced"
    )
    assert states(fleet)["main-0"] == "draining"

    def drained() -> bool:
        fleet.take_telemetry(report(fleet.feed.revision, {"main-0.1": 0, "main-1.1": 0}))
        return fleet.slots["main-0"].generation == 2 and states(fleet)["main-0"] == "ready"

    await until(drained)
    assert fleet.slots["main-0"].devices == ("cpu2",), "where nothing has failed"
    assert len(fleet.desk.health["cpu0"].failures) == 1


async def test_requests_that_fail_everywhere_replace_nobody(fleet: Fleet) -> None:
    fleet.take_telemetry(told(fleet, 1, bad={"main-0.1": 5, "main-1.1": 5}, good={}))
    fleet.tick(time())
    fleet.take_telemetry(told(fleet, 2, bad={"main-0.1": 10, "main-1.1": 40}, good={"main-1.1": 5}))
    fleet.tick(time())
    assert states(fleet) == {"main-0": "ready", "main-1": "ready"}

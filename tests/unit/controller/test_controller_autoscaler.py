"""From reports to signals to sizes: windows, pins, dry runs, and a controller that comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from controller_parts import PaperDriver, fleet_of, kinds, reasons, report, spec_of, until, worker_that_runs

from tritonfleet.config import FleetSpec
from tritonfleet.config.autoscale_spec import AutoscaleSpec
from tritonfleet.controller.adopt import adopt
from tritonfleet.controller.autoscaler import openings
from tritonfleet.controller.commands import RefusedError, scale
from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.signals import PoolSamples, sample, utilization
from tritonfleet.controller.slot import Reading, Slot
from tritonfleet.core.histogram import Histogram
from tritonfleet.core.model import ReplicaState
from tritonfleet.core.stats import ModelCounters, ModelRates
from tritonfleet.core.wire import CallTelemetry, RouterTelemetry, ScaleRequest
from tritonfleet.drivers.base import Instance
from tritonfleet.drivers.clock import steady_time

NOW = 1_000_000.0
QUICK = {"scale_up": {"window": 4, "panic_window": 2}, "scale_down": {"stabilization": 20, "step": 4}}


def rates(busy: float, requests: float = 20.0, window_s: float = 2.0) -> ModelRates:
    """Of one model, ``busy`` of the time, without batching."""
    return ModelRates("digits", "1", window_s, requests, 0.0, requests, requests, 0.001, busy / requests)


def slot(
    number: int, *, busy: float = 0.5, age: float = 1.0, ready_for: float = 100.0, now: float = NOW
) -> Slot:
    instance = Instance(
        "f", "main", f"main-{number}", 1, "h", (), "pid 1", "127.0.0.1", 1, 2, 3, now - 200, 5
    )
    return Slot(
        f"main-{number}", "main", ReplicaState.READY, "", 1, instance=instance, ready_at=now - ready_for,
        slots={"digits": 2}, instances={"digits": 1}, cold_start_s=3.0,
        reading=Reading(now - age, {}, (rates(busy),)),
    )  # fmt: skip


def said(
    instances: list[str],
    *,
    finished: int,
    took_s: float = 0.05,
    in_flight: int = 1,
    waiting: int = 0,
    pid: int = 1,
    worker: int = 0,
    since: float = 0.0,
) -> RouterTelemetry:
    """A worker's report: every instance has ``finished`` so many calls of ``took_s``."""
    latency = Histogram()
    for _ in range(finished):
        latency.record(took_s)
    calls = tuple(
        CallTelemetry(name, "digits", in_flight, {"0": finished}, latency.sparse(), latency.sum_s)
        for name in instances
    )
    return RouterTelemetry(
        worker, pid, since, 1, 1, finished, 0, 0, (), calls, waiting, {"digits": waiting} if waiting else {}
    )


# ------------------------------------------------------------ signals


def test_windows_are_differences_of_cumulative_counts() -> None:
    samples, slots = PoolSamples(), [slot(0), slot(1)]
    names = ["main-0.1", "main-1.1"]
    for step in range(21):  # 10 s, 20 calls a second on each, 10 of which wait at the end
        seen = said(names, finished=1000 + 10 * step, waiting=10 if step > 16 else 0)
        samples.add(sample([seen], 0.2, slots, NOW - 10 + step / 2), 16)
    found = samples.signals(slots, NOW, (10.0, 2.0), room=4)
    stable, fast = found.stable, found.fast
    assert (found.ready, found.room, found.cold_start_s) == (2, 4, 3.0)
    assert stable.rate.value == pytest.approx(41, rel=0.05)  # 40 answered, 1 a second more waits
    assert fast.waiting.value == pytest.approx(8, abs=2)
    assert stable.p99_s.value == pytest.approx(0.05 + 10 / 40, rel=0.1)  # and the longest wait, by Little
    assert stable.service_s.value == pytest.approx(0.025)
    assert stable.work.value == pytest.approx(41 * 0.025, rel=0.05)
    assert stable.utilization.value == pytest.approx(0.5)
    assert fast.occupancy is not None
    assert fast.occupancy.value == pytest.approx((2 + 8) / 4, rel=0.3)
    assert stable.queue_mean_s.fresh


@pytest.mark.parametrize("again", [{"pid": 2}, {}], ids=["pid", "same-pid-in-a-container"])
def test_a_router_worker_that_was_restarted_counts_from_zero(again: dict[str, Any]) -> None:
    samples, slots = PoolSamples(), [slot(0)]
    for step in range(11):
        seen = said(["main-0.1"], finished=5000 if step < 5 else 10 * (step - 5))
        seen = replace(seen, started_at=NOW - 2.5, **again) if step >= 5 else seen
        samples.add(sample([seen], 0.2, slots, NOW - 5 + step / 2), 16)
    rate = samples.signals(slots, NOW, (5.0, 5.0)).stable.rate.value
    assert rate == pytest.approx(10, abs=1)


def test_a_worker_that_is_heard_again_has_not_answered_all_that_in_a_moment() -> None:
    """An external one that could not reach the controller for a while: its counts are of a whole day."""
    samples, slots = PoolSamples(), [slot(0)]
    for step in range(31):  # 20 a second through each of two workers
        reports = [said(["main-0.1"], finished=10 * step)]
        if step >= 24:
            reports.append(said(["main-0.1"], finished=1_000_000 + 10 * step, worker=1))
        samples.add(sample(reports, 0.2, slots, NOW - 15 + step / 2), 16)
    found = samples.signals(slots, NOW, (15.0, 6.0))
    assert found.stable.rate.value == pytest.approx(40)
    assert found.fast.rate.value == pytest.approx(40)


def test_time_in_which_nobody_reported_is_no_part_of_a_window() -> None:
    """A controller that has just come back, 2 s before the first reports: 20 answers in each of the next."""
    samples, slots = PoolSamples(), [slot(0)]
    for step in range(9):
        age = None if step < 4 else 0.2
        reports = [] if age is None else [said(["main-0.1"], finished=1000 + 10 * step, waiting=5)]
        samples.add(sample(reports, age, slots, NOW - 4 + step / 2), 16)
        if step == 4:
            first = samples.signals(slots, NOW - 2, (15.0, 6.0)).stable
            assert first.rate.trouble == "the routers' reports began just now"
    seen = samples.signals(slots, NOW, (15.0, 6.0)).stable
    assert seen.rate.value == pytest.approx(20)
    assert seen.queue_mean_s.value == pytest.approx(5 / 20, rel=0.05)  # by Little, and 1 ms in Triton


def test_requests_in_streams_arrive_and_a_stream_is_none_itself() -> None:
    samples, slots = PoolSamples(), [slot(0)]
    for step in range(11):  # 20 requests a second in streams, two streams a second end
        told = said(["main-0.1"], finished=step, in_flight=0)
        calls = tuple(replace(call, streamed=10 * step, streams=step) for call in told.calls)
        samples.add(sample([replace(told, calls=calls)], 0.2, slots, NOW - 5 + step / 2), 16)
    assert samples.signals(slots, NOW, (5.0, 5.0)).stable.rate.value == pytest.approx(20)


def test_averaging_in_cold_samples() -> None:
    """A replica that has just become ready: neither its slow first answers nor its statistics count."""
    samples, slots = PoolSamples(), [slot(0, busy=0.6), slot(1, busy=0.01, ready_for=1.0)]
    for step in range(11):
        warm, cold = said(["main-0.1"], finished=10 * step), said(["main-1.1"], finished=step, took_s=9.0)
        samples.add(sample([warm, cold], 0.2, slots, NOW - 5 + step / 2), 16)
    found = samples.signals(slots, NOW, (5.0, 5.0))
    assert (found.ready, found.warming) == (1, 1)
    assert found.stable.utilization.value == pytest.approx(0.6)
    assert found.stable.p99_s.value == pytest.approx(0.05, rel=0.1)


def test_a_replica_that_was_ready_by_a_clock_ahead_is_measured_like_any_other() -> None:
    """The wall clock was two hours ahead when the controller before started, and was put right since."""
    now = steady_time()
    kept = replace(slot(0).saved(), ready_at=now + 7200)
    again = Slot.restored("main-0", kept)
    again.instances, again.reading = {"digits": 1}, Reading(now + 9, {}, (rates(0.5),))
    found = PoolSamples().signals([again], now + 10, (15.0, 6.0))
    assert (found.ready, found.warming) == (1, 0)
    assert found.stable.utilization.value == pytest.approx(0.5)


def test_a_worker_that_is_silent_makes_signals_old_not_zero() -> None:
    samples, slots = PoolSamples(), [slot(0)]
    for step in range(11):
        samples.add(sample([said(["main-0.1"], finished=10 * step)], None, slots, NOW - 5 + step / 2), 16)
    found = samples.signals(slots, NOW, (5.0, 5.0))
    assert found.stable.work.value is None
    assert "report" in found.stable.work.trouble
    assert found.stable.utilization.fresh


def test_replicas_that_do_not_answer_are_not_idle() -> None:
    old = utilization([slot(0, busy=0.8), slot(1, busy=0.0, age=60.0)], NOW, 15.0)
    assert old.value == pytest.approx(0.8)  # of those that answer
    assert not old.fresh
    assert "60 s old" in old.trouble
    none = utilization([slot(0, age=60.0)], NOW, 15.0)
    assert none.value is None


def counted(requests: int, busy_s: float) -> dict[tuple[str, str], ModelCounters]:
    """What Triton says after so many requests, without batching."""
    ns = int(busy_s * 1e9)
    entry = ModelCounters("digits", "1", requests, requests, requests, ns, 0, requests, 0, 0, ns, 0, 0)
    return {("digits", "1"): entry}


def test_statistics_are_of_the_window_and_not_of_the_first_seconds() -> None:
    """Two requests a second, but for the first 10 s with 20 a second, of which each took a tenth as long."""
    reading = Reading(NOW, counted(0, 0.0))
    for step in range(1, 16):
        requests = 20 * 2 * min(step, 5) + 2 * 2 * max(step - 5, 0)
        busy_s = 0.02 * 20 * 2 * min(step, 5) + 0.2 * 2 * 2 * max(step - 5, 0)
        reading = reading.followed_by(NOW + 2 * step, counted(requests, busy_s))
    [last] = reading.over(15.0, not_before=0.0)
    assert (last.window_s, last.request_rate, last.compute_s) == (14.0, 2.0, pytest.approx(0.2))
    [whole] = reading.over(100.0, not_before=NOW)
    assert whole.request_rate == pytest.approx(8.0)
    [warm] = reading.over(100.0, not_before=NOW + 29.0)  # no reading is that young: the last two at least
    assert (warm.window_s, warm.request_rate) == (2.0, 2.0)


def test_a_model_that_was_loaded_in_the_window_is_known_from_its_first_reading_on() -> None:
    reading = Reading(NOW, {}).followed_by(NOW + 2, counted(10, 1.0)).followed_by(NOW + 4, counted(20, 2.0))
    [found] = reading.over(15.0, not_before=0.0)
    assert (found.window_s, found.request_rate) == (2.0, 5.0)


def test_what_was_answered_is_told_beside_what_arrived() -> None:
    """A backlog: 20 a second are answered, 10 arrive."""
    samples, slots = PoolSamples(), [slot(0)]
    for step in range(21):
        seen = said(["main-0.1"], finished=10 * step, waiting=200 - 5 * step)
        samples.add(sample([seen], 0.2, slots, NOW - 10 + step / 2), 16)
    stable = samples.signals(slots, NOW, (10.0, 2.0)).stable
    assert stable.work.value == pytest.approx(10 * 0.025, rel=0.05)
    assert stable.done.value == pytest.approx(20 * 0.025, rel=0.05)


def test_without_traffic_there_is_nothing_to_wait_for() -> None:
    samples, slots = PoolSamples(), [slot(0, busy=0.0)]
    for step in range(11):
        samples.add(sample([said(["main-0.1"], finished=7, in_flight=0)], 0.2, slots, NOW - 5 + step / 2), 16)
    seen = samples.signals(slots, NOW, (5.0, 5.0)).stable
    assert (seen.work.value, seen.p99_s.value, seen.rate.value) == (0.0, 0.0, 0.0)
    assert seen.work.fresh


def test_calls_that_execute_nothing_are_no_work() -> None:
    """Somebody polls ModelMetadata: that neither counts as work nor hides how much there is."""
    samples, slots = PoolSamples(), [slot(0)]
    assert slots[0].reading is not None
    slots[0].reading.rates = (ModelRates("digits", "1", 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),)
    for step in range(11):
        samples.add(sample([said(["main-0.1"], finished=10 * step)], 0.2, slots, NOW - 5 + step / 2), 16)
    seen = samples.signals(slots, NOW, (5.0, 5.0)).stable
    assert seen.rate.value == pytest.approx(20, rel=0.1)
    assert seen.work.value == 0.0
    assert seen.work.fresh


# ------------------------------------------------------------ sizes


def spec_with(folder: Path, **autoscale: Any) -> FleetSpec:
    return spec_of(folder, replicas={"min": 1, "initial": 2, "max": 6}, autoscale={**QUICK, **autoscale})


class Scaled:
    """A fleet whose load and clock a test sets. ``work`` is in replicas' worth of busy time."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.now, self.work, self.finished = fleet, NOW, 0.5, 0.0

    async def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            ready = [one for one in self.fleet.slots.values() if one.state is ReplicaState.READY]
            names = [one.instance.instance for one in ready if one.instance is not None]
            self.finished += self.work * 10  # 50 ms each
            busy = min(self.work / max(len(ready), 1), 1.0)
            for one in ready:
                one.ready_at, one.slots, one.instances = self.now - 100, {"digits": 2}, {"digits": 1}
                one.reading = Reading(self.now, {}, (rates(busy, max(busy * 20, 1e-9)),))
            done = round(self.finished / max(len(names), 1))
            self.fleet.telemetry.take(said(names, finished=done, in_flight=0), self.now)
            self.fleet.autoscaler.step(self.now)
            await asyncio.sleep(0)

    @property
    def size(self) -> int:
        return self.fleet.size_of("main")


@asynccontextmanager
async def scaled(folder: Path, **autoscale: Any) -> AsyncIterator[Scaled]:
    """Two paper replicas, ready; the fleet's own loop does not run."""
    fleet = fleet_of(folder, PaperDriver(6), spec_with(folder, **autoscale))
    await adopt(fleet)
    with worker_that_runs(fleet):
        fleet.tick(NOW)
        await until(lambda: sum(one.state is ReplicaState.READY for one in fleet.slots.values()) == 2)
        for one in fleet.lives.watches.values():
            one._observe = lambda *_: None
            one._statistics_due = lambda: False
        try:
            yield Scaled(fleet)
        finally:
            for server in fleet.driver.servers.values():  # type: ignore[attr-defined] # a PaperDriver
                server.end(code=0)
            await fleet.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tritonfleet.yaml").write_text("")
    return tmp_path


async def test_more_work_means_more_replicas_and_the_journal_says_why(folder: Path) -> None:
    async with scaled(folder) as one:
        one.work = 1.9
        await one.pass_time(10)
        assert one.size == 3
        (reason,) = reasons(one.fleet, "pool.autoscaled")
        assert reason.startswith("2 → 3: ")
        assert "replicas' worth of work" in reason
        assert one.fleet.autoscaler.reason("main").startswith("autoscaled: ")


async def test_without_the_section_nothing_scales_by_itself(folder: Path) -> None:
    fleet = fleet_of(folder, PaperDriver(6), spec_of(folder))
    fleet.autoscaler.step(NOW)
    assert fleet.size_of("main") == 2
    assert fleet.autoscaler.reason("main") == "the fleet file's size"
    assert [status.mode for status in fleet.autoscaler.statuses()] == ["off"]
    await fleet.close()


async def test_a_dry_run_decides_and_changes_nothing(folder: Path) -> None:
    async with scaled(folder, dry_run=True) as one:
        one.work = 1.9
        await one.pass_time(10)
        assert one.size == 2
        (reason,) = reasons(one.fleet, "pool.would_autoscale")
        assert reason.endswith("(not done: dry run)")
        (status,) = one.fleet.autoscaler.statuses()
        assert (status.mode, status.size, status.wanted) == ("dry run", 2, 3)


async def test_a_wish_under_a_pin_is_told_even_if_it_is_the_last_deed_again(folder: Path) -> None:
    async with scaled(folder) as one:
        one.work = 1.9
        while one.size == 2:
            await one.pass_time(0.5)
        scale(one.fleet, ScaleRequest({"main": 2}, by="ann"))
        await one.pass_time(10)
        assert one.size == 2
        (wish,) = reasons(one.fleet, "pool.would_autoscale")
        assert wish.startswith("2 → 3: ")
        assert wish.endswith("(not done: pinned)")


async def test_a_pin_holds_and_its_end_goes_on_from_it(folder: Path) -> None:
    async with scaled(folder) as one:
        scale(one.fleet, ScaleRequest({"main": 5}, by="ann"))
        one.work = 1.9
        await one.pass_time(30)
        assert one.size == 5
        assert not reasons(one.fleet, "pool.autoscaled")
        assert one.fleet.autoscaler.reason("main") == "scaled by hand"
        scale(one.fleet, ScaleRequest(auto=("main",), by="ann"))
        assert one.size == 5
        assert reasons(one.fleet, "pool.unpinned") == ["main is sized by its load again by ann"]


async def test_a_pin_for_some_time_ends_by_itself(folder: Path) -> None:
    async with scaled(folder) as one:
        one.fleet.autoscaler.pin({"main": 4}, "ann", one.now + 5)
        await one.pass_time(4)
        assert "main" in one.fleet.sizes
        await one.pass_time(2)
        assert "main" not in one.fleet.sizes
        assert one.size == 4
        assert "pool.unpinned" in kinds(one.fleet)


async def test_pause_holds_the_size_there_is(folder: Path) -> None:
    async with scaled(folder) as one:
        answer = scale(one.fleet, ScaleRequest(pause=("main",), by="autoscale pause", for_s=60))
        assert answer.message == "held main at 2 for 60 s"
        assert one.fleet.autoscaler.reason("main") == "paused by hand"
        with pytest.raises(RefusedError):
            scale(one.fleet, ScaleRequest({"main": 3}, for_s=-1))
        assert one.size == 2


async def test_a_controller_that_comes_back_keeps_the_size(folder: Path) -> None:
    async with scaled(folder) as one:
        one.work = 1.9
        await one.pass_time(10)
        one.fleet.autoscaler.pin({}, "", None)
        one.fleet.autoscaler.save(one.now)
        again = Fleet(
            one.fleet.spec, one.fleet.file, one.fleet.paths, PaperDriver(6), one.fleet.devices,
            one.fleet.lives._client_for,
        )  # fmt: skip
        assert again.size_of("main") == 3
        remembered = again.autoscaler._memory["main"]
        assert remembered == one.fleet.autoscaler._memory["main"]
        again.journal.close()


@pytest.mark.parametrize("restarted", [False, True], ids=["one controller", "another controller"])
async def test_a_pool_that_is_scaled_again_goes_on_from_the_size_it_has(
    folder: Path, *, restarted: bool
) -> None:
    """Its load had set it to 1 when the section was taken out of the file; then the file said 5."""
    async with scaled(folder) as one:
        await one.pass_time(30)
        assert one.size == 1
        again = spec_of(folder, replicas={"min": 1, "initial": 5, "max": 6})
        one.fleet.spec = again
        await one.pass_time(20)
        assert one.size == 5
        main = again.pools["main"].model_copy(update={"autoscale": AutoscaleSpec.model_validate(QUICK)})
        scaling = again.model_copy(update={"pools": {"main": main}})
        if restarted:
            fleet = fleet_of(folder, PaperDriver(6), scaling)
            assert fleet.size_of("main") == 5
            fleet.journal.close()
        one.fleet.spec = scaling
        assert one.size == 5
        await one.pass_time(2)
        assert one.size == 5


async def test_no_device_is_left_beside_the_other_pools(folder: Path) -> None:
    """Fewer devices than the other pool has replicas: some are set aside, or were never there."""
    file = spec_with(folder)
    other = spec_of(folder, replicas={"min": 1, "initial": 4, "max": 6}).pools["main"]
    fleet = fleet_of(
        folder, PaperDriver(1), file.model_copy(update={"pools": {**file.pools, "other": other}})
    )
    assert fleet.autoscaler._room("main") == 0
    await fleet.close()


async def test_silent_routers_never_shrink_a_pool(folder: Path) -> None:
    async with scaled(folder) as one:
        await one.pass_time(30)
        assert one.size == 1  # half a replica's work
    async with scaled(folder / "other") as two:
        two.fleet.telemetry.take(report(0), NOW - 3600)
        for _ in range(60):
            two.now += 0.5
            two.fleet.autoscaler.step(two.now)
        assert two.size == 2


def test_a_schedule_becomes_the_windows_around_now() -> None:
    entry = {"cron": "0 8 * * *", "for": "10h", "min": 4}
    scaling = AutoscaleSpec.model_validate({"schedule": [entry]})
    day = 86400.0
    found = openings(scaling, 10 * day + 9 * 3600)
    assert [(one.name, one.minimum, one.starts_at, one.ends_at) for one in found] == [
        ('"0 8 * * *" (UTC)', 4, 10 * day + 8 * 3600, 10 * day + 18 * 3600),
        ('"0 8 * * *" (UTC)', 4, 11 * day + 8 * 3600, 11 * day + 18 * 3600),
    ]


async def test_a_request_wakes_a_pool_at_once_and_a_pool_that_a_person_emptied_stays_so(folder: Path) -> None:
    (folder / "models" / "digits").mkdir(parents=True)
    file = spec_with(folder)
    main = file.pools["main"]
    bounds = main.replicas.model_copy(update={"min": 0, "initial": 0})
    pool = main.model_copy(update={"replicas": bounds, "model_repository": f"{folder}/models"})
    fleet = fleet_of(folder, PaperDriver(6), file.model_copy(update={"pools": {"main": pool}}))
    with worker_that_runs(fleet):
        fleet.autoscaler.step(NOW)
        assert fleet.autoscaler.asleep() == {"digits": pool.startup_timeout}
        fleet.telemetry.take(said([], finished=0, waiting=1), NOW)
        fleet.sizes["main"] = 0
        assert fleet.autoscaler.asleep() == {}
        fleet.autoscaler.step(NOW + 0.1)
        assert fleet.size_of("main") == 0
        del fleet.sizes["main"]
        fleet.autoscaler.step(NOW + 0.2)  # not only with the next decision that is due
        assert fleet.size_of("main") == 1
        assert reasons(fleet, "pool.autoscaled") == ["0 → 1: woken by a request for model digits"]
    await fleet.close()


async def test_a_model_that_another_pool_serves_does_not_sleep_and_wakes_none(folder: Path) -> None:
    """Its requests wait for that pool as ever; without it they wake the one that sleeps."""
    async with scaled(folder) as one:
        fleet = one.fleet
        bounds = {"min": 0, "initial": 0, "max": 2}
        spare = spec_of(folder, replicas=bounds, models=["digits"], autoscale=QUICK).pools["main"]
        fleet.spec = fleet.spec.model_copy(update={"pools": {**fleet.spec.pools, "spare": spare}})
        fleet.telemetry.take(said(["main-0.1"], finished=9, waiting=3), one.now)
        fleet.autoscaler.step(one.now)
        assert fleet.autoscaler.asleep() == {}
        assert fleet.size_of("spare") == 0
        for slot in fleet.slots.values():
            slot.enter(ReplicaState.FAILED, "killed")
        fleet.autoscaler.step(one.now + 0.25)
        assert fleet.autoscaler.asleep() == {"digits": spare.startup_timeout}
        assert fleet.size_of("spare") == 1


def test_a_schedule_is_by_the_wall_clock_and_a_step_of_it_moves_its_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scaling = AutoscaleSpec.model_validate({"schedule": [{"cron": "0 8 * * *", "for": "1h", "min": 2}]})
    now = steady_time()
    before = openings(scaling, now)
    monkeypatch.setattr("tritonfleet.controller.autoscaler.time", lambda: steady_time() + 7 * 86_400 - 3600)
    after = openings(scaling, now)
    for was, is_now in zip(before, after, strict=True):
        assert (is_now.starts_at - was.starts_at) % 86_400 == pytest.approx(3600, abs=1)

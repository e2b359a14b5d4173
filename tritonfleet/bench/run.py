"""Loads one after the other, each measured window by window until its figures are stable.

What flows in: a model's description, its requests as bytes, loads. What flows out: a `Level` for each load,
and on the way `Progress` for whoever watches. A load that never becomes stable, or is interrupted, is
reported all the same, with the reason.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonfleet.bench import schedule
from tritonfleet.bench.client import LoadClient
from tritonfleet.bench.results import (
    ClientCost,
    Level,
    ServerShare,
    histogram,
    percentile,
    percentiles,
)
from tritonfleet.bench.traffic import Bodies, SequenceBodies, Tally, Traffic
from tritonfleet.core.stability import WINDOWS, Verdict, Window, judge
from tritonfleet.triton import messages
from tritonfleet.triton.messages import ServerTimes

DRAIN_S = 5.0
SHORTEST_S = 0.1  # an interrupted window below this tells nothing
TICK_S = 0.25
SCHEDSTAT = Path("/proc/thread-self/schedstat")  # ns on a core, ns waiting for one, ...


@dataclass(frozen=True, slots=True)
class Concurrency:
    value: int


@dataclass(frozen=True, slots=True)
class RequestRate:
    value: float
    distribution: str = "constant"


@dataclass(frozen=True, slots=True)
class Intervals:
    seconds: Sequence[float]

    @property
    def value(self) -> float:
        """Requests per second on average."""
        return len(self.seconds) / sum(self.seconds)


Load = Concurrency | RequestRate | Intervals
KINDS = {Concurrency: "concurrency", RequestRate: "request_rate", Intervals: "request_intervals"}


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure. ``window_count`` above 0: a window lasts for so many requests, not ``window_s``;
    ``request_count`` above 0: no windows. ``percentile`` None: the mean is to be stable."""

    window_s: float = 5.0
    window_count: int = 0
    request_count: int = 0
    warmup_s: float = 1.0
    warmup_requests: int = 0
    stability: float = 10.0  # per cent
    max_trials: int = 10
    percentile: float | None = None
    sequences: int = 4  # at a time, for loads of a rate
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """``share`` of what this load takes at most, 0 to 1."""

    load: Load
    phase: str
    share: float
    rate: float
    latency_s: float | None
    failed: int


class Bench:
    """``tell`` is called a few times a second; ``stop`` set: finish with what there is.
    ``counts``: requests by replica so far, for answers that do not tell; None: nobody knows."""

    def __init__(
        self,
        client: LoadClient,
        model: messages.ModelInfo,
        bodies: Callable[[], Bodies | SequenceBodies],
        plan: Plan,
        tell: Callable[[Progress], None],
        stop: asyncio.Event,
        counts: Callable[[], Awaitable[dict[str, int]]] | None = None,
    ) -> None:
        self._client, self._model, self._bodies, self._plan = client, model, bodies, plan
        self._tell, self._stop, self._counts = tell, stop, counts
        self._block = client.block(messages.MODEL_INFER)
        self._done = asyncio.Event()  # as many answers as were waited for
        self._goal = 0

    async def measure(self, load: Load) -> Level:
        """Warm up, then window after window."""
        traffic = Traffic(self._client, self._block, self._bodies(), tells_replica=self._model.tells_replica)
        traffic.changed = lambda: self._done.set() if traffic.tally.count >= self._goal else None
        counted = await self._counts() if self._counts is not None else {}
        try:
            return await self._measure(load, traffic, counted)
        finally:
            traffic.stop()

    async def _measure(self, load: Load, traffic: Traffic, counted: dict[str, int]) -> Level:
        plan = self._plan
        await self._warm_up(load, traffic)
        if plan.warmup_requests and not plan.request_count:
            self._start(load, traffic)
        times = await self._times()
        traffic.cut()
        if plan.request_count:  # none of its answers may be cut away
            self._start(load, traffic, plan.request_count)
        cpu, waited, began = time.process_time(), _waited_s(), time.perf_counter()
        parts, windows, verdict = await self._windows(load, traffic)
        wall = time.perf_counter() - began
        cpu, waited_after = time.process_time() - cpu, _waited_s()
        times_after = await self._times()
        traffic.stop()
        await traffic.drain(DRAIN_S)
        tally = Tally()
        for part in parts[-WINDOWS:]:
            tally.add(part)
        ranked, late = sorted(tally.latencies_s), sorted(tally.late_s)
        seconds = sum(window.seconds for window in windows[-WINDOWS:])
        replicas, by = tally.replicas, "answers" if tally.replicas else ""
        if self._counts is not None and not replicas:
            after = await self._counts()
            replicas = {name: count - counted.get(name, 0) for name, count in after.items()}
            replicas, by = {name: count for name, count in replicas.items() if count > 0}, "statistics"
        return Level(
            kind=KINDS[type(load)],
            value=load.value,
            seconds=seconds,
            requests=len(ranked),
            rate=len(ranked) / seconds if seconds else 0.0,
            mean_s=sum(ranked) / len(ranked) if ranked else None,
            percentiles_s=percentiles(ranked, plan.percentile),
            stable=verdict.stable,
            reason=verdict.reason,
            client=ClientCost(
                cpu=cpu / wall,
                waited=None if waited is None or waited_after is None else (waited_after - waited) / wall,
                late_p99_s=percentile(late, 99) if late else None,
                queued_most=traffic.queued_most,
            ),
            failures=tally.failures,
            failure_texts=tally.texts,
            unanswered=traffic.unanswered,
            replicas=replicas,
            replicas_by=by if replicas else "",
            server=_share(times, times_after),
            windows=tuple(windows),
            histogram=histogram(ranked),
            interrupted=self._stop.is_set(),
        )

    def _start(self, load: Load, traffic: Traffic, count: int = -1) -> None:
        if isinstance(load, Concurrency):
            traffic.closed_loop(load.value, count)
        elif isinstance(load, RequestRate):
            gaps = schedule.gaps(load.value, load.distribution, self._plan.seed)
            traffic.open_loop(gaps, self._plan.sequences, count)
        else:
            traffic.open_loop(schedule.repeated(load.seconds), self._plan.sequences, count)

    async def _warm_up(self, load: Load, traffic: Traffic) -> None:
        """By a number of requests, which are all answered before the load begins, or by time, which runs into
        it. A load of ``request_count`` has the former only."""
        plan = self._plan
        if plan.warmup_requests:
            self._start(load, traffic, plan.warmup_requests)
            await self._wait(load, traffic, "warming up", plan.warmup_requests, None, 0.0)
            traffic.stop()
            await traffic.drain(DRAIN_S)
        elif not plan.request_count:
            self._start(load, traffic)
            await self._wait(load, traffic, "warming up", 0, plan.warmup_s, 0.0)

    async def _windows(self, load: Load, traffic: Traffic) -> tuple[list[Tally], list[Window], Verdict]:
        plan = self._plan
        parts: list[Tally] = []
        windows: list[Window] = []
        verdict = Verdict(False, "interrupted before anything was measured")
        trials = 1 if plan.request_count else plan.max_trials
        for trial in range(trials):
            began = time.perf_counter()
            share = trial / trials
            if plan.request_count:
                await self._wait(load, traffic, "", plan.request_count, None, share)
            elif plan.window_count:
                await self._wait(load, traffic, f"window {trial + 1}", plan.window_count, None, share)
            else:
                await self._wait(load, traffic, f"window {trial + 1}", 0, plan.window_s, share)
            seconds = time.perf_counter() - began
            if self._stop.is_set() and seconds < SHORTEST_S and windows:
                break
            part = traffic.cut()
            parts.append(part)
            windows.append(Window(seconds, len(part.latencies_s) / seconds, self._figure(part)))
            verdict = judge(windows, plan.stability)
            if verdict.stable or self._stop.is_set():
                break
        if plan.request_count:
            verdict = Verdict(False, f"one run of {plan.request_count} requests")
        if self._stop.is_set():
            verdict = Verdict(False, "interrupted: " + verdict.reason)
        return parts, windows, verdict

    def _figure(self, part: Tally) -> float | None:
        """The latency that has to be stable."""
        if not part.latencies_s:
            return None
        if self._plan.percentile is None:
            return sum(part.latencies_s) / len(part.latencies_s)
        return percentile(sorted(part.latencies_s), self._plan.percentile)

    async def _wait(
        self, load: Load, traffic: Traffic, phase: str, count: int, seconds: float | None, share: float
    ) -> None:
        """For ``count`` answers, or so many seconds, or until `stop`; tells the progress meanwhile."""
        self._goal = count
        self._done.clear()
        began = time.perf_counter()
        trials = 1 if self._plan.request_count else self._plan.max_trials
        while not self._stop.is_set():
            elapsed = time.perf_counter() - began
            if seconds is not None and elapsed >= seconds:
                return
            if seconds is None and traffic.tally.count >= count:
                return
            tally = traffic.tally
            part = elapsed / seconds if seconds else tally.count / max(count, 1)
            mean = sum(tally.latencies_s) / len(tally.latencies_s) if tally.latencies_s else None
            self._tell(
                Progress(
                    load, phase, share + min(part, 1.0) / trials if phase != "warming up" else 0.0,
                    len(tally.latencies_s) / elapsed if elapsed > TICK_S / 2 else 0.0, mean,
                    sum(tally.failures.values()),
                )
            )  # fmt: skip
            tick = TICK_S if seconds is None else min(TICK_S, seconds - elapsed)
            waiting = self._done if seconds is None else self._stop
            try:
                async with asyncio.timeout(tick):
                    await waiting.wait()
            except TimeoutError:
                continue

    async def _times(self) -> ServerTimes | None:
        """The server's statistics of the model; None from one that has none."""
        asked = messages.about(self._model.name, self._model.version)
        answer = await self._client.ask(messages.MODEL_STATISTICS, asked)
        return messages.server_times(answer.message) if answer.status == 0 else None


def _share(before: ServerTimes | None, after: ServerTimes | None) -> ServerShare | None:
    if before is None or after is None or after.requests <= before.requests:
        return None
    requests = after.requests - before.requests
    executions = max(1, after.executions - before.executions)
    return ServerShare(
        requests,
        (after.queue_ns - before.queue_ns) / requests / 1e9,
        (after.compute_ns - before.compute_ns) / requests / 1e9,
        (after.inferences - before.inferences) / executions,
    )


def _waited_s() -> float | None:
    """How long this thread was ready to run and had no core; None where the kernel does not count it."""
    try:
        return int(SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return None

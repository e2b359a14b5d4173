"""What the routers and the replicas report → the autoscaler's signals of a pool, over two windows.

Counters are cumulative and belong to a worker process and a launch of a replica; samples of them are kept
for the longest window, and a window's numbers are differences of two samples. A series that began in between
counts from zero; one that ended counts as far as it came. A worker that is older than the window and was not
heard at its beginning makes it shorter: what it had counted until then happened before. What replicas measure
in their first seconds is left out.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tritonfleet.controller.slot import Slot
from tritonfleet.controller.watch import STATISTICS_INTERVAL_S
from tritonfleet.core.histogram import Histogram
from tritonfleet.core.model import ReplicaState
from tritonfleet.core.signals import STALE_S, Signal, Signals, Window
from tritonfleet.core.stats import ModelRates
from tritonfleet.core.wire import CallTelemetry, RouterTelemetry
from tritonfleet.core.wire_routers import Process

SAMPLE_S = 0.5
WARM_S = 5.0  # the first requests after a load are slow, and the first statistics cover them

Series = tuple[Process, str, str]  # whose counters, instance, model


@dataclass(frozen=True, slots=True)
class Sample:
    """All that workers had said at ``at`` about one pool; ``age_s``: of the oldest report, None when a worker
    that runs has not reported; ``workers``: those that had."""

    at: float
    age_s: float | None
    calls: Mapping[Series, CallTelemetry] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)  # by model
    workers: frozenset[Process] = frozenset()

    def in_flight(self, model: str) -> int:
        return sum(call.in_flight for series, call in self.calls.items() if series[2] == model)


def sample(
    reports: Iterable[RouterTelemetry], age_s: float | None, slots: Iterable[Slot], now: float
) -> Sample:
    """What concerns the replicas in ``slots``, those of one pool."""
    instances = {slot.instance.instance for slot in slots if slot.instance is not None}
    models = {name for slot in slots for name in (*slot.instances, *slot.slots)}
    calls: dict[Series, CallTelemetry] = {}
    waiting: dict[str, int] = {}
    workers: set[Process] = set()
    for report in reports:
        workers.add(report.process)
        for call in report.calls:
            if call.instance in instances:
                calls[report.process, call.instance, call.model] = call
        for model, count in report.waiting_by_model.items():
            if model in models:
                waiting[model] = waiting.get(model, 0) + count
    return Sample(now, age_s, calls, waiting, frozenset(workers))


@dataclass(slots=True)
class _Traffic:
    """Of one model in one window."""

    finished: int = 0
    arrived: float = 0.0
    mean_load: float = 0.0  # in flight and waiting
    mean_waiting: float = 0.0
    most_waiting: int = 0
    latency: Histogram = field(default_factory=Histogram)


class PoolSamples:
    """The samples of one pool, and the windows they make."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque()

    def due(self, now: float) -> bool:
        return not self._samples or now - self._samples[-1].at >= SAMPLE_S

    def add(self, taken: Sample, longest_s: float) -> None:
        self._samples.append(taken)
        while len(self._samples) > 2 and self._samples[1].at <= taken.at - longest_s:
            self._samples.popleft()

    def signals(
        self, slots: list[Slot], now: float, spans_s: tuple[float, float], room: int | None = None
    ) -> Signals:
        """``spans_s``: of the stable and of the fast window."""
        ready = [slot for slot in slots if slot.state is ReplicaState.READY]
        warm = [slot for slot in ready if slot.ready_at is None or now - slot.ready_at >= WARM_S]

        def count(*states: ReplicaState) -> int:
            return sum(slot.state in states and not slot.held for slot in slots)

        cold = [slot.cold_start_s for slot in slots if slot.cold_start_s is not None]
        return Signals(
            ready=len(warm),
            warming=len(ready) - len(warm),
            loading=count(ReplicaState.STARTING, ReplicaState.LOADING),
            pending=count(ReplicaState.PENDING),
            broken=count(ReplicaState.FAILED, ReplicaState.CRASH_LOOP),
            leaving=sum(slot.state in (ReplicaState.DRAINING, ReplicaState.STOPPING) for slot in slots),
            room=room,
            youngest_s=min((now - slot.ready_at for slot in warm if slot.ready_at is not None), default=None),
            cold_start_s=max(cold, default=None),
            stable=self._window(ready, warm, now, spans_s[0]),
            fast=self._window(ready, warm, now, spans_s[1]),
        )

    def _window(self, ready: list[Slot], warm: list[Slot], now: float, span_s: float) -> Window:
        inside = _comparable([one for one in self._samples if one.at >= now - span_s - SAMPLE_S])
        age = self._samples[-1].age_s if self._samples else None
        models = sorted({name for slot in ready for name in slot.instances})
        if len(inside) < 2 or age is None or inside[-1].at - inside[0].at < min(span_s, 2.0) / 2:
            why = "no report of every router worker" if age is None else "the routers' reports began just now"
            unknown = Signal(why=why)
            return Window(span_s, utilization(warm, now, span_s), unknown, unknown, *[unknown] * 6)
        elapsed = max(inside[-1].at - inside[0].at, 1e-3)
        cold = {slot.instance.instance for slot in ready if slot not in warm and slot.instance is not None}
        traffic = {model: _traffic(inside, model, cold) for model in models}
        return _window_of(span_s, elapsed, age, traffic, ready, warm, now)


def _comparable(samples: list[Sample]) -> list[Sample]:
    """Those whose differences mean something: with a report of every worker that ran, and from when on all
    are heard that are heard now, or were yet to begin."""
    told = [one for one in samples if one.age_s is not None]
    heard = told[-1].workers if told else frozenset()
    while told and any(began < told[0].at for _, _, began in heard - told[0].workers):
        del told[0]
    return told


def _traffic(inside: list[Sample], model: str, cold: set[str]) -> _Traffic:
    found = _Traffic()
    first, last = inside[0], inside[-1]
    for series in {key for one in inside for key in one.calls if key[2] == model}:
        states = [one.calls[series] for one in inside if series in one.calls]
        began = first.calls.get(series)
        ended = states[-1]
        found.finished += _ended(ended) - (_ended(began) if began else 0)
        if series[1] not in cold:
            found.latency.merge([_grown(began, ended)])
    loads = [one.in_flight(model) + one.waiting.get(model, 0) for one in inside]
    waits = [one.waiting.get(model, 0) for one in inside]
    change = last.in_flight(model) + waits[-1] - first.in_flight(model) - waits[0]
    found.arrived = max(found.finished + change, 0)
    found.mean_load, found.mean_waiting = sum(loads) / len(loads), sum(waits) / len(waits)
    found.most_waiting = max(waits)
    return found


def _ended(call: CallTelemetry) -> int:
    """Requests that have ended. A stream is none itself: those in it are."""
    return sum(call.codes.values()) - call.streams + call.streamed


def _grown(before: CallTelemetry | None, after: CallTelemetry) -> Histogram:
    """What was recorded between two reports of one series."""
    if before is None:
        return Histogram.from_sparse(after.latency, after.latency_sum_s)
    counts = {key: count - before.latency.get(key, 0) for key, count in after.latency.items()}
    return Histogram.from_sparse(counts, after.latency_sum_s - before.latency_sum_s)


def _rates(slot: Slot, span_s: float) -> tuple[ModelRates, ...]:
    """What the replica's statistics say of the last ``span_s`` seconds, without its first ones."""
    if slot.reading is None:
        return ()
    return slot.reading.over(span_s + SAMPLE_S, (slot.ready_at or 0.0) + WARM_S - STATISTICS_INTERVAL_S)


def utilization(warm: list[Slot], now: float, span_s: float) -> Signal:
    """Of the busiest model: busy time of its executions, as Triton counts it, over the time of its instances.
    Replicas that have not answered lately are not taken for idle: they make the signal old."""
    readings = [slot.reading for slot in warm if slot.reading is not None]
    if not warm:
        return Signal(why="no replica has been ready for long enough")
    if len(readings) < len(warm) or any(rate.window_s == 0 for one in readings for rate in one.rates):
        return Signal(why=f"{len(warm) - len(readings) or 'some'} of {len(warm)} have no statistics yet")
    age = max(now - reading.at for reading in readings)
    fresh = [slot for slot in warm if slot.reading is not None and now - slot.reading.at <= STALE_S]
    busy: dict[str, float] = {}
    instances: dict[str, int] = {}
    for slot in fresh:
        for model, count in slot.instances.items():
            instances[model] = instances.get(model, 0) + count
        for rate in _rates(slot, span_s):
            if rate.model in slot.instances:
                busy[rate.model] = busy.get(rate.model, 0.0) + rate.busy
    if not fresh:
        return Signal(None, age, "no replica answers with statistics")
    shares = [min(busy.get(model, 0.0) / count, 1.0) for model, count in instances.items()]
    return Signal(max(shares, default=0.0), age)


@dataclass(frozen=True, slots=True)
class _Cost:
    """What a model's requests cost: seconds of a replica (of all its instances), and in Triton's queue."""

    service_s: float | None
    queue_s: float


def _cost(slots: list[Slot], model: str, span_s: float) -> _Cost:
    busy = requests = queued = capacity = replicas = 0.0
    for slot in slots:
        for rate in _rates(slot, span_s):
            if rate.model == model and rate.request_rate > 0:
                busy += rate.busy
                requests += rate.request_rate
                queued += rate.queue_s * rate.request_rate
                capacity += slot.instances.get(model, 1)
                replicas += 1
    if not requests:  # calls that Triton executes nothing for, such as ModelMetadata, cost nothing
        told = any(rate.window_s > 0 for slot in slots if slot.reading for rate in slot.reading.rates)
        return _Cost(0.0 if told else None, 0.0)
    return _Cost(busy / requests * replicas / capacity, queued / requests)


def _window_of(
    span_s: float, elapsed: float, age: float, traffic: Mapping[str, _Traffic], ready: list[Slot],
    warm: list[Slot], now: float,
) -> Window:  # fmt: skip
    """Of several models, the worst one's value."""
    works: list[float] = []
    services: list[tuple[float, float]] = []
    answered: list[float] = []
    loads: list[float] = []
    means: list[float] = []
    tails: list[float] = []
    worst: list[float] = []
    unknown_cost = []
    limits = {name: sum(slot.slots.get(name, 0) for slot in ready) for name in traffic}
    for model, seen in traffic.items():
        cost = _cost(warm, model, span_s)
        if seen.arrived and cost.service_s is None:
            unknown_cost.append(model)
        work = seen.arrived / elapsed * (cost.service_s or 0.0)
        works.append(work)
        services.append((work, cost.service_s or 0.0))
        answered.append(seen.finished / elapsed * (cost.service_s or 0.0))
        if limits[model]:
            loads.append(seen.mean_load / limits[model])
        waited, longest = _router_waits(seen, elapsed)
        p99 = seen.latency.quantile(0.99) or 0.0
        means.append(waited + cost.queue_s)
        tails.append(longest + max(p99 - (cost.service_s or 0.0), 0.0))
        worst.append(longest + p99)

    def known(value: float) -> Signal:
        return Signal(value, age)

    has_limit = any(limits.values())
    no_cost = Signal(why=f"no replica has told yet what requests of {', '.join(unknown_cost)} cost")
    return Window(
        span_s,
        utilization(warm, now, span_s),
        no_cost if unknown_cost else known(max(works, default=0.0)),
        known(max(loads, default=0.0)) if has_limit else None,
        known(sum(seen.arrived for seen in traffic.values()) / elapsed),
        known(sum(seen.mean_waiting for seen in traffic.values())),
        known(max(means, default=0.0)),
        known(max(tails, default=0.0)),
        known(max(worst, default=0.0)),
        no_cost if unknown_cost else known(max(services, default=(0.0, 0.0))[1]),
        no_cost if unknown_cost else known(max(answered, default=0.0)),
    )


def _router_waits(seen: _Traffic, elapsed: float) -> tuple[float, float]:
    """Mean and longest wait in the routers' queues, by Little's law: what waits ÷ what leaves a second."""
    rate = seen.finished / elapsed
    if rate <= 0:
        return (elapsed, elapsed) if seen.most_waiting else (0.0, 0.0)
    return seen.mean_waiting / rate, seen.most_waiting / rate

"""Each target of a pool's autoscaling → the number of replicas that meets it, with the arithmetic in words.

Utilization is a matter of division: what arrives, in replicas' worth of busy time, over the share of it that
a replica may be busy. Latency, queue time and queue depth are not proportional to the number of replicas:
they go through a queueing estimate fitted to what is measured (`core.queueing`). What is known only from a
queue says that there is too little, not how much is missing, so it may ask for twice of what serves, no more;
replicas that still load are no reason to ask again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from tritonfleet.core.queueing import FULL, Enough, enough
from tritonfleet.core.signals import Signal, Signals, Window, shown, time_shown

DRAIN_S = 30.0  # within this a backlog is to be worked off
TOLERANCE = 0.1  # of the target, as the Kubernetes HPA has it: noise of this size moves nothing
UNEXPLAINED = 0.2  # of the busy time: less is how counts of different moments differ
EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Targets:
    """Any subset; None leaves one out. Times in seconds."""

    utilization: float | None = 0.65
    p99_s: float | None = None
    queue_mean_s: float | None = None
    queue_p99_s: float | None = None
    queue_depth: float | None = None  # requests in the routers' queues, per replica


@dataclass(frozen=True, slots=True)
class Answer:
    """What one target asks for. ``count`` None: its signals are missing or stale, ``why`` says which."""

    target: str
    count: int | None
    why: str
    backlog: bool = False  # known from a queue only


def answers(
    targets: Targets, signals: Signals, window: Window, work_ahead: float | None, size: int = 0
) -> list[Answer]:
    """One or more per target. ``work_ahead``: the forecast of ``window.work``, if it is to be used. ``size``:
    what there is, without spare ones; it is left alone for the sake of a few per cent."""
    found: list[Answer] = []
    if targets.utilization is not None:
        found += _utilization(targets.utilization, signals, window, work_ahead, size)
    timed: list[tuple[str, float | None, str]] = [
        ("latency.p99", targets.p99_s, "p99_s"),
        ("queue_time.mean", targets.queue_mean_s, "queue_mean_s"),
        ("queue_time.p99", targets.queue_p99_s, "queue_p99_s"),
    ]
    for name, allowed, source in timed:
        if allowed is not None:
            found.append(_time(name, allowed, source, signals, window))
    if targets.queue_depth is not None:
        found.append(_depth(targets.queue_depth, signals, window))
    return [_bounded(answer, signals) for answer in found]


def _bounded(answer: Answer, signals: Signals) -> Answer:
    limit = 2 * signals.serving
    if not answer.backlog or answer.count is None or answer.count <= limit:
        return answer
    why = f"{answer.why}; a queue may ask for twice of the {signals.serving} that serve, no more"
    return Answer(answer.target, limit, why, backlog=True)


def _lacking(target: str, **needed: Signal) -> Answer | None:
    wrong = [f"{name} is {signal.trouble}" for name, signal in needed.items() if signal.trouble]
    return Answer(target, None, "; ".join(wrong)) if wrong else None


def total_work(signals: Signals, window: Window) -> float | None:
    """What there is to do, in replicas' worth of busy time: what arrives, and what keeps the replicas busy
    beyond what was answered (work that does not come through our routers). Where one of these is unknown, the
    larger of what arrives and what the replicas are measured to do; None when neither is known.

    A replica that has not served for all of the window is busy now and has answered little in it: until it
    has, the difference says nothing, and what arrives is all that counts."""
    arrives = window.work.value if window.work.fresh else None
    busy = window.utilization.value if window.utilization.fresh else None
    if busy is None:
        return arrives
    measured = busy * signals.ready
    if arrives is None:
        return measured
    if signals.youngest_s is not None and signals.youngest_s < window.span_s:
        return arrives
    if window.done.value is None or not window.done.fresh:
        return max(arrives, measured)
    other = measured - window.done.value
    return arrives + other if other > UNEXPLAINED * measured else arrives


def _utilization(
    target: float, signals: Signals, window: Window, work_ahead: float | None, size: int
) -> list[Answer]:
    name, found = "target_utilization", []
    lacking = _lacking(name, utilization=window.utilization, work=window.work)
    work = total_work(signals, window)
    if lacking is not None and work is None:
        found.append(lacking)
    if work is not None:
        why = f"{work:.2f} replicas' worth of work arrives"
        if window.utilization.value is not None and window.utilization.fresh:
            why += f", {signals.ready} measured are busy {window.utilization.value * 100:.0f} % of the time"
        count, said = _over(work, target), ""
        if size < count and work <= size * target * (1 + TOLERANCE):
            count, said = size, f", within {TOLERANCE * 100:.0f} % of what {size} may do"
        draining, extra = _draining(work, window)
        if draining > count:
            count, said = draining, f", {extra:.2f} to work off what waits"
        found.append(Answer(name, count, f"{why}{said}; target {target * 100:.0f} %"))
        if lacking is not None:
            found.append(lacking)
    if work_ahead is not None and work is not None and work_ahead > work:
        ahead = min(work_ahead, 2 * max(work, 1.0))
        why = f"{ahead:.2f} replicas' worth is forecast for when a replica started now is ready"
        count = _over(ahead, target)
        if size < count and ahead <= size * target * (1 + TOLERANCE):
            count = size
        found.append(Answer("forecast", count, f"{why}; target {target * 100:.0f} %"))
    if window.occupancy is not None:
        found.append(_occupancy(target, signals, window, window.occupancy))
    return found


def _occupancy(target: float, signals: Signals, window: Window, occupancy: Signal) -> Answer:
    """How full the replicas are says nothing of what a backlog needs, where that is known."""
    lacking = _lacking("occupancy", occupancy=occupancy)
    if lacking is not None or occupancy.value is None:
        return lacking or Answer("occupancy", None, "missing")
    count = _over(occupancy.value * signals.serving, target)
    why = f"in flight and waiting are {occupancy.value * 100:.0f} % of what {signals.serving} usefully hold"
    work = total_work(signals, window)
    if work is not None and window.work.fresh and window.service_s.fresh:
        enough_for_it = max(_over(work, target), _draining(work, window)[0])
        if enough_for_it < count:
            why += f", but {enough_for_it} would work that off in {DRAIN_S:g} s"
            return Answer("occupancy", enough_for_it, f"{why}; target {target * 100:.0f} %", backlog=True)
    return Answer("occupancy", count, f"{why}; target {target * 100:.0f} %", backlog=True)


def _draining(work: float, window: Window) -> tuple[int, float]:
    """Replicas for ``work`` and to work off what waits in time, for which they may be busy all the time; and
    how many replicas' worth the latter is."""
    waiting, service = window.waiting, window.service_s
    if not waiting.fresh or not service.fresh or not waiting.value or not service.value:
        return 0, 0.0
    extra = waiting.value * service.value / DRAIN_S
    return _over(work + extra, 1.0), extra


def _over(work: float, target: float) -> int:
    return max(ceil(work / target - EPSILON), 0)


def _time(target: str, allowed: float, source: str, signals: Signals, window: Window) -> Answer:
    measured: Signal = getattr(window, source)
    lacking = _lacking(target, **{source.removesuffix("_s"): measured}, work=window.work)
    work = total_work(signals, window)
    if lacking is not None or work is None or measured.value is None:
        return lacking or Answer(target, None, "the work that arrives is unknown")
    said = f"{shown(source, measured.value)} measured, {time_shown(allowed)} allowed"
    if measured.value == 0 or signals.ready == 0:
        return Answer(target, _floor(work), f"{said}: nothing waited", backlog=True)
    service = window.service_s.value or 0.0
    served = min(service, measured.value) if source == "p99_s" else 0.0  # no replica count makes that shorter
    found = _wait(
        signals, work, service, measured.value - served, allowed - served, _has_backlog(window, allowed)
    )
    return Answer(
        target, found.count, f"{said}{_result(found, served, measured.value <= allowed)}", backlog=True
    )


def _wait(
    signals: Signals, work: float, service_s: float, measured_s: float, allowed_s: float, backlog: bool
) -> Enough:
    if service_s <= 0:
        return Enough(0, measured_s, reachable=measured_s <= allowed_s)
    return enough(
        now=signals.ready, work=work, service_s=service_s, measured_s=measured_s, allowed_s=allowed_s,
        most=max(4 * signals.serving, 8), backlog=backlog,
    )  # fmt: skip


def _has_backlog(window: Window, allowed_s: float) -> bool:
    """Whether the time is lost in a queue that all replicas share: they are busy all the time, or what waits
    in the routers would alone, by Little's law, take longer than is allowed. Requests that a full queue
    refused have no part in the work that arrives, so that alone does not tell."""
    waiting, rate, busy = window.waiting, window.rate, window.utilization
    if busy.fresh and busy.value is not None and busy.value >= FULL:
        return True
    if not waiting.fresh or not rate.fresh or not waiting.value:
        return False
    return waiting.value > allowed_s * (rate.value or 0.0)


def _result(found: Enough, served: float, met: bool) -> str:
    if found.count == 0:
        return "" if met else ": more replicas would not help, the time is not lost in a queue they share"
    return f": {time_shown(found.predicted_s + served)} expected with {found.count}"


def _floor(work: float) -> int:
    """The fewest that are not overrun, where a target says nothing else."""
    return _over(work, 0.95)


def _depth(allowed: float, signals: Signals, window: Window) -> Answer:
    target = "queue_depth"
    lacking = _lacking(target, waiting=window.waiting, rate=window.rate)
    work, waiting, rate = total_work(signals, window), window.waiting.value, window.rate.value
    if lacking is not None or work is None or waiting is None or rate is None:
        return lacking or Answer(target, None, "the work that arrives is unknown")
    said = f"{waiting / max(signals.serving, 1):.1f} wait per replica, {allowed:g} allowed"
    if waiting == 0 or signals.ready == 0:
        return Answer(target, _floor(work), said, backlog=True)
    service = window.service_s.value or 0.0
    if rate <= 0 or service <= 0:
        count = signals.serving + (waiting > allowed * signals.serving)
        return Answer(target, count, f"{said}; nothing is answered", backlog=True)

    def fits(count: int) -> bool:  # by Little's law: the requests that wait are rate × wait
        return (
            _wait(signals, work, service, waiting / rate, allowed * count / rate, backlog=True).count <= count
        )

    return Answer(target, _first(fits, max(4 * signals.serving, 8)), said, backlog=True)


def _first(fits: Callable[[int], bool], most: int) -> int:
    return next((count for count in range(1, most) if fits(count)), most)

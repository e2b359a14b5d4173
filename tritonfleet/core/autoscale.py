"""How many replicas a pool should have: (policy, signals, memory, now) → a decision, with its reason.

Up at once, to the largest of the targets' answers (`core.autoscale_targets`): usually by the stable window;
in a panic (the fast window asks for a multiple of what is ready) by the fast one. What has been ordered and
still loads is part of the size, so it is never ordered twice. Down one step at a time, and only when all that
was asked for in the stabilization window is less, when every signal is there and fresh, when nothing loads or
leaves, and when the work of now, put on one replica fewer, stays well inside the targets. A schedule
(`core.schedule`) raises what came out of that, whatever the signals, and within the bounds.
"""

from dataclasses import dataclass, field, replace

from tritonfleet.core.autoscale_targets import Answer, Targets, answers, total_work
from tritonfleet.core.forecast import Forecast, observe
from tritonfleet.core.schedule import Opening, opened
from tritonfleet.core.signals import Signal, Signals, named

MARGIN = 0.9  # of the target, that the replicas which remain may reach: what shrinks must not grow again
COLD_START_S = 30.0  # until one was measured
LEAD_MARGIN_S = (
    5.0  # a scheduled start is this much earlier: for the next decision, and the probe that sees it
)
GAP_S = 30.0  # without anything measured this long, the past is no witness of what was needed


@dataclass(frozen=True, slots=True)
class Policy:
    """Bounds and habits of one pool. Times in seconds."""

    minimum: int
    maximum: int
    targets: Targets = field(default_factory=Targets)
    spare: int = 0  # kept on top, for the loss of so many
    panic_threshold: float = 2.0  # the fast window asking for this multiple of what is ready is a panic
    panic_hold_s: float = 30.0  # after the last sign of it
    stabilization_s: float = 300.0
    step_s: float = 15.0  # between two steps down
    forecast: bool = True
    schedule: tuple[Opening, ...] = ()  # each entry's windows around now


@dataclass(frozen=True, slots=True)
class Memory:
    """What must outlast a decision, and a controller. ``asked``: when how many were asked for, only those
    that can still be the largest of a window, so their counts fall."""

    size: int | None = None
    since: float = 0.0  # what is needed has been measured without a gap since then
    at: float = 0.0  # it was measured last
    asked: tuple[tuple[float, int], ...] = ()
    panic_until: float = 0.0
    changed_at: float = 0.0
    forecast: Forecast = field(default_factory=Forecast)
    cold_start_s: float | None = None  # the last one that was measured


@dataclass(frozen=True, slots=True)
class Decision:
    """``count`` replicas, for ``reason``. ``asked`` is what the targets ask for, spare included, before
    bounds; ``clipped`` names the bound that was in the way. ``signals`` are all of them, as they were."""

    at: float
    before: int
    count: int
    reason: str
    memory: Memory
    asked: int | None = None
    panic: bool = False
    clipped: str = ""
    answers: tuple[Answer, ...] = ()
    signals: Signals = field(default_factory=lambda: Signals(0))

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(f"{answer.target}: {answer.why}" for answer in self.answers if answer.count is None)


def decide(policy: Policy, signals: Signals, memory: Memory, now: float) -> Decision:
    """``memory.size`` is the size in force; None: ``policy.minimum``."""
    cold = memory.cold_start_s if signals.cold_start_s is None else signals.cold_start_s
    memory = replace(memory, cold_start_s=cold, changed_at=min(memory.changed_at, now))
    by_load = _by_load(policy, signals, memory, now)
    lead_s = COLD_START_S if cold is None else cold
    opening = opened(policy.schedule, lead_s + LEAD_MARGIN_S, now)
    if opening is None:
        return by_load
    return _scheduled(policy, by_load, opening, opening.why(lead_s, now), memory.changed_at)


def _scheduled(policy: Policy, by_load: Decision, opening: Opening, why: str, changed_at: float) -> Decision:
    """At least what the schedule has, as far as the bounds allow."""
    before = by_load.before
    least, clipped = _clip(policy, by_load.signals, before, opening.minimum)
    but = f"; not {opening.minimum}, because {clipped}" if clipped else ""
    if by_load.count >= least:
        if not clipped or by_load.count != before:
            return by_load
        return replace(by_load, reason=f"{before} held: {why}{but}; {by_load.reason}", clipped=clipped)
    if before >= least:  # the load would have it shrink
        memory = replace(by_load.memory, size=before, changed_at=changed_at)
        return replace(by_load, count=before, reason=f"{before} held: {why}{but}", memory=memory)
    memory = replace(by_load.memory, size=least, changed_at=by_load.at)
    return replace(
        by_load, count=least, reason=f"{before} → {least}: {why}{but}", clipped=clipped, memory=memory
    )


def _by_load(policy: Policy, signals: Signals, memory: Memory, now: float) -> Decision:
    size = min(max(policy.minimum if memory.size is None else memory.size, policy.minimum), policy.maximum)
    if memory.at == 0.0 or not 0 <= now - memory.at <= GAP_S:  # negative: the controller's clock was set
        memory = replace(memory, since=now, asked=(), panic_until=0.0)
    memory, ahead = _forecast(policy, signals, replace(memory, size=size), now)
    bearing = max(size - policy.spare, 0)
    found = answers(policy.targets, signals, signals.stable, ahead, bearing)
    fast = answers(policy.targets, signals, signals.fast, None, bearing)
    asked, panic = _largest(found), False
    if _is_panic(policy, signals, fast):
        memory = replace(memory, panic_until=now + policy.panic_hold_s)
    if now < memory.panic_until:
        panic = True
        found += [replace(answer, target=f"panic {answer.target}") for answer in fast]
        asked = _largest(found)
    if asked is not None:
        asked += policy.spare
        memory = replace(
            memory, asked=_remembered(memory.asked, asked, now, policy.stabilization_s),
            at=now if signals.serving else memory.at,
        )  # fmt: skip
    decision = Decision(now, size, size, "", memory, asked, panic, "", tuple(found), signals)
    if size == 0 and signals.wanted_by:
        return _woken(policy, decision, now)
    if signals.serving == 0:
        return replace(decision, reason=f"held at {size}: no replica serves, so nothing can be measured")
    if asked is None:
        return replace(decision, reason=f"held at {size}: no target has its signals{_missing(decision)}")
    if asked > size:
        return _up(policy, decision, asked, now)
    return _down(policy, decision, now)


def _woken(policy: Policy, decision: Decision, now: float) -> Decision:
    """One replica, which then counts as asked for: it does not go to sleep again at once."""
    count, clipped = _clip(policy, decision.signals, 0, 1)
    why = f"woken by a request for model {decision.signals.wanted_by}"
    if count == 0:
        return replace(decision, reason=f"held at 0: {why}, but {clipped}", clipped=clipped)
    asked = _remembered(decision.memory.asked, 1, now, policy.stabilization_s)
    memory = replace(decision.memory, size=1, changed_at=now, asked=asked)
    return replace(decision, count=1, reason=f"0 → 1: {why}", memory=memory)


def _forecast(policy: Policy, signals: Signals, memory: Memory, now: float) -> tuple[Memory, float | None]:
    """What is forecast for when a replica started now would be ready; None while that is not to be used."""
    work = total_work(signals, signals.fast)
    if not policy.forecast or policy.targets.utilization is None or work is None:
        return memory, None
    horizon = memory.cold_start_s or COLD_START_S
    forecast = observe(memory.forecast, work, now, horizon)
    ahead = forecast.ahead(horizon) if forecast.earns_its_place else None
    return replace(memory, forecast=forecast), ahead


def _largest(found: list[Answer]) -> int | None:
    return max((answer.count for answer in found if answer.count is not None), default=None)


def _is_panic(policy: Policy, signals: Signals, fast: list[Answer]) -> bool:
    largest = _largest(fast)
    return largest is not None and largest >= policy.panic_threshold * max(signals.serving, 1)


def _remembered(
    asked: tuple[tuple[float, int], ...], count: int, now: float, window_s: float
) -> tuple[tuple[float, int], ...]:
    return (*(one for one in asked if one[0] > now - window_s and one[1] > count), (now, count))


def _why(decision: Decision, *, largest: bool) -> str:
    """The words of the answer that decided; ``largest`` False: of the one that asks for the most, too, but as
    the reason why no more are needed."""
    known = [answer for answer in decision.answers if answer.count is not None]
    first = max(known, key=lambda answer: answer.count or 0)
    said = f"{first.target.removeprefix('panic ')} asks for {first.count} ({first.why})"
    return said if largest else f"at most {said}"


def _missing(decision: Decision) -> str:
    return f" ({'; '.join(dict.fromkeys(decision.missing))})" if decision.missing else ""


def _clip(policy: Policy, signals: Signals, size: int, asked: int) -> tuple[int, str]:
    """The size that can be had, and what is in the way of more."""
    limit, bound = policy.maximum, f"replicas.max is {policy.maximum}"
    if signals.room is not None and signals.room < limit:
        limit, bound = max(signals.room, policy.minimum), f"the devices hold {signals.room}"
    limit = max(limit, size) if signals.room is not None and size <= policy.maximum else limit
    return min(asked, limit), bound if asked > limit else ""


def _spare(policy: Policy) -> str:
    return f", and {policy.spare} spare" if policy.spare else ""


def _up(policy: Policy, decision: Decision, asked: int, now: float) -> Decision:
    signals, before = decision.signals, decision.before
    count, clipped = _clip(policy, signals, before, asked)
    why = f"{_why(decision, largest=True)}{_spare(policy)}"
    panic = "panic: " if decision.panic else ""
    coming = f"; {signals.coming} already on their way" if signals.coming else ""
    if count <= before:
        reason = f"held at {before}: {panic}{why}, but {clipped}{coming}"
        return replace(decision, reason=reason, clipped=clipped)
    but = f"; not {asked}, because {clipped}" if clipped else ""
    return replace(
        decision, count=count, clipped=clipped, reason=f"{before} → {count}: {panic}{why}{but}{coming}",
        memory=replace(decision.memory, size=count, changed_at=now),
    )  # fmt: skip


def _down(policy: Policy, decision: Decision, now: float) -> Decision:
    before = decision.before
    obstacle, clipped = _obstacle(policy, decision, now)
    why = f"{_why(decision, largest=False)}{_spare(policy)}"
    if obstacle:
        return replace(decision, reason=f"{before} held: {obstacle}; {why}", clipped=clipped)
    if decision.asked == before:
        return replace(decision, reason=f"{before} held: {why}")
    count = before - 1
    reason = f"{before} → {count}: for {policy.stabilization_s:g} s no more than that was asked for; {why}"
    return replace(
        decision, count=count, reason=reason, memory=replace(decision.memory, size=count, changed_at=now)
    )


def _obstacle(policy: Policy, decision: Decision, now: float) -> tuple[str, str]:
    """Why the pool does not shrink now, and the bound that is in the way, if it is one; "" for nothing."""
    signals, memory, before = decision.signals, decision.memory, decision.before
    if decision.asked is None or decision.asked >= before:
        return "", ""
    if decision.missing:
        return f"it does not shrink without every signal{_missing(decision)}", ""
    if wrong := _stale(decision.answers, policy, signals):
        return f"it does not shrink on {wrong}", ""
    if decision.panic:
        return f"in panic for {memory.panic_until - now:.0f} s more, nothing shrinks", ""
    if signals.loading or signals.warming:
        return f"{signals.loading + signals.warming} still load or warm up, and nothing shrinks meanwhile", ""
    if signals.leaving:
        return f"{signals.leaving} still drain or stop: one at a time", ""
    if before <= policy.minimum:
        bound = f"replicas.min is {policy.minimum}"
        return bound, bound
    return _too_early(policy, decision, now) or _too_tight(policy, decision, before - 1), ""


def _stale(found: tuple[Answer, ...], policy: Policy, signals: Signals) -> str:
    """Signals that the targets rest on, beside those that made an answer impossible already."""
    used = {"work", "utilization"} | (
        {"waiting", "rate"} if policy.targets.queue_depth is not None else set()
    )
    wrong = [
        f"{name} ({signal.trouble})"
        for name, signal in named(signals.stable).items()
        if name in used and signal.trouble
    ]
    return ", ".join(wrong) if found else "nothing"


def _too_early(policy: Policy, decision: Decision, now: float) -> str:
    memory, window = decision.memory, policy.stabilization_s
    needed = [(at, count) for at, count in memory.asked if count >= decision.before]
    if needed:
        last, count = needed[-1]
        return f"{count} were asked for {now - last:.0f} s ago; that counts for {window:g} s"
    if now - memory.since < window:
        return f"it has been watched for {now - memory.since:.0f} s of the {window:g} s that must pass"
    if now - memory.changed_at < policy.step_s:
        return f"the last change was {now - memory.changed_at:.0f} s ago, steps are {policy.step_s:g} s apart"
    return ""


def _too_tight(policy: Policy, decision: Decision, count: int) -> str:
    """Put the work of now on ``count`` replicas (and of these, the spare ones lost): is there room left?"""
    signals, target = decision.signals, policy.targets.utilization
    work = total_work(signals, signals.stable)
    bearing = count - policy.spare
    limit = (0.95 if target is None else target) * MARGIN
    if work is None:
        return "the work that would be spread on fewer is unknown"
    if bearing <= 0:
        return "" if work == 0 and count >= policy.spare else f"{count} would leave none beside the spare"
    if work / bearing > limit:
        return (
            f"{bearing} would be busy {work / bearing * 100:.0f} % of the time, which is more than the "
            f"{limit * 100:.0f} % that a smaller pool may begin with"
        )
    return ""


def freshness(signal: Signal) -> str:
    return signal.trouble or f"{signal.age_s:.1f} s old"

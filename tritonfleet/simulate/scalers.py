"""Who sets the size of a simulated pool: a number, or `core.autoscale`, fed as the controller feeds it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from tritonfleet.core.autoscale import Memory, Policy, decide
from tritonfleet.core.signals import Signal, Signals, Window
from tritonfleet.simulate.meter import Meter

EPOCH_S = 1e6  # virtual time begins here for `core.autoscale`, to which 0 means "never"
MODEL = "simulated"  # the only one of the pool
STATISTICS_S = 2.0  # Triton's statistics are read this often: what is known is half of it old


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool at one moment. ``ready`` counts those that serve, ``warming`` those of them that have done
    so for less than 5 s. ``slots``: requests that one replica usefully holds; ``waiting``: those in the
    router."""

    size: int
    minimum: int
    maximum: int
    ready: int
    warming: int
    loading: int
    leaving: int
    instances: int
    slots: int
    cold_start_s: float | None
    youngest_s: float | None = None  # since the last of those that are measured began to serve
    waiting: int = 0


class Scaler(Protocol):
    name: str
    interval_s: float

    def desired(self, now: float, pool: Pool, meter: Meter) -> int:
        """The size from now on; bounds are the caller's."""


class Static:
    """Always the same."""

    name, interval_s = "static", 60.0

    def __init__(self, count: int) -> None:
        self._count = count

    def desired(self, now: float, pool: Pool, meter: Meter) -> int:  # noqa: ARG002 # it looks at nothing
        return self._count


class Fleet:
    """`core.autoscale.decide` every 2 s. ``tell`` hears every change, with its reason. ``memory`` is that of
    the last decision."""

    name, interval_s = "tritonfleet", 2.0

    def __init__(
        self,
        policy: Policy,
        tell: Callable[[float, str], None] = lambda _now, _reason: None,
        spans_s: tuple[float, float] = (15.0, 6.0),
    ) -> None:
        self._policy, self._tell, self._spans = policy, tell, spans_s
        self.memory = Memory()
        self._tail = policy.targets.p99_s is not None or policy.targets.queue_p99_s is not None

    def desired(self, now: float, pool: Pool, meter: Meter) -> int:
        signals = Signals(
            ready=pool.ready - pool.warming, warming=pool.warming, loading=pool.loading, leaving=pool.leaving,
            youngest_s=pool.youngest_s, cold_start_s=pool.cold_start_s,
            wanted_by=MODEL if pool.waiting and not pool.ready else "",
            stable=window(self._spans[0], pool, meter, tail=self._tail),
            fast=window(self._spans[1], pool, meter, tail=self._tail),
        )  # fmt: skip
        memory = replace(self.memory, size=pool.size)
        decision = decide(self._policy, signals, memory, EPOCH_S + now)
        self.memory = decision.memory
        if decision.count != decision.before:
            self._tell(now, decision.reason)
        return decision.count


def window(span_s: float, pool: Pool, meter: Meter, *, tail: bool = False) -> Window:
    """As `controller.signals` makes it of one model: the same formulas, on the simulation's counts. ``tail``:
    with the signals of p99."""
    seen, told = meter.window(span_s, tail=tail), meter.window(span_s, ago_s=STATISTICS_S / 2)
    if seen is None or told is None:
        return Window(span_s)

    def known(value: float) -> Signal:
        return Signal(value, 0.0)

    capacity = max(told.ready, 1e-9) * pool.instances * told.span_s
    service = told.busy_s / told.finished / pool.instances if told.finished else 0.0
    queued = told.queue_s / told.finished if told.finished else 0.0
    leaves = seen.finished / seen.span_s
    waited = seen.waiting / leaves if leaves else (seen.span_s if seen.most_waiting else 0.0)
    longest = seen.most_waiting / leaves if leaves else waited
    rate = seen.arrived / seen.span_s
    not_asked = Signal(why="no target needs it")
    return Window(
        span_s,
        known(min(told.busy_s / capacity, 1.0)) if told.ready else Signal(why="no replica is ready"),
        known(rate * service),
        known((seen.in_flight + seen.waiting) / (pool.slots * pool.ready)) if pool.ready else None,
        known(rate),
        known(seen.waiting),
        known(waited + queued),
        not_asked if seen.p99_s is None else known(longest + max(seen.p99_s - service, 0.0)),
        not_asked if seen.p99_s is None else known(longest + seen.p99_s),
        known(service),
        known(leaves * service),
    )

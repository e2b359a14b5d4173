"""A replica as the controller holds it: the slot's state, its process, what was observed. Mutable."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tritonfleet.controller.saved import SavedSlot
from tritonfleet.core.model import ModelStatus, Replica, ReplicaState
from tritonfleet.core.rollout import LaunchFailure
from tritonfleet.core.stats import ModelCounters, ModelRates, rates
from tritonfleet.drivers.base import Instance
from tritonfleet.drivers.clock import steady_time as time

AfterStop = Literal["forget", "relaunch", "hold"]


Counters = dict[tuple[str, str], ModelCounters]  # by model and version
KEPT_S = 62.0  # a minute, and a reading: longer windows are judged by this


@dataclass(slots=True)
class Reading:
    """The statistics of one replica, as of ``at``. ``rates`` are those since the reading before; ``past`` are
    the readings before it, oldest first."""

    at: float
    counters: Counters = field(default_factory=dict)
    rates: tuple[ModelRates, ...] = ()
    past: tuple[tuple[float, Counters], ...] = ()

    def followed_by(self, now: float, counters: Counters) -> "Reading":
        past = (*(one for one in self.past if one[0] >= now - KEPT_S), (self.at, self.counters))
        grown = tuple(rates(self.counters.get(key), entry, now - self.at) for key, entry in counters.items())
        return Reading(now, counters, grown, past)

    def over(self, span_s: float, not_before: float) -> tuple[ModelRates, ...]:
        """The rates of the last ``span_s`` seconds, or of as many as there are from ``not_before`` on; at
        least those since the reading before."""
        if not self.past:
            return self.rates
        first = max(self.at - span_s, not_before)
        reaching = [one for one in self.past if one[0] >= first] or [self.past[-1]]
        found = []
        for key, entry in self.counters.items():
            at, before = next(((at, told[key]) for at, told in reaching if key in told), (self.at, None))
            found.append(rates(before, entry, self.at - at))
        return tuple(found)


@dataclass(slots=True)
class Slot:
    id: str
    pool: str
    state: ReplicaState
    reason: str
    generation: int = 0
    since: float = field(default_factory=time)
    instance: Instance | None = None
    launching: asyncio.Task[None] | None = None  # the last launch, under way or over
    clearing: asyncio.Task[None] | None = None  # the end of a process that was given up on
    devices: tuple[str, ...] = ()  # those it was launched on; its instance says so too, but comes later
    config_hash: str = ""
    ready_at: float | None = None
    cold_start_s: float | None = None  # of the last launch that became ready
    restarts: int = 0
    failures: int = 0  # in a row
    failure: LaunchFailure | None = None  # of the last launch, if that is how it ended
    retry_at: float | None = None
    drain_deadline: float | None = None
    drain_revision: int = 0  # the table's revision that told the routers
    after_stop: AfterStop = "forget"
    stop_reason: str = ""
    had_devices: bool = False  # its container has shown its GPUs once
    held: bool = False  # emptied by a person: stays so until undrain
    models: tuple[ModelStatus, ...] = ()
    failed_probes: int = 0
    reading: Reading | None = None
    slots: dict[str, int] = field(default_factory=dict)  # by model: calls it can usefully hold
    instances: dict[str, int] = field(default_factory=dict)  # by model: executions it can have at once
    decoupled: tuple[str, ...] = ()  # models that may answer a request more than once
    steps: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by ensemble: the models it asks
    settings_seen: int = 0  # the fleet's settings up to this revision were replayed on this launch
    settings_sent: int = 0  # so many
    replaying: asyncio.Task[None] | None = None

    def enter(self, state: ReplicaState, reason: str, now: float | None = None) -> None:
        if state is not self.state:
            self.since = time() if now is None else now
        self.state, self.reason = state, reason

    def empty(self) -> None:
        """Nothing runs there, and nothing is to: it is held."""
        self.enter(ReplicaState.PENDING, f"emptied by hand; `tritonfleet undrain {self.id}` brings it back")

    def view(self, in_flight: Callable[[str], int | None]) -> Replica:
        """As decisions and people see it."""
        instance = self.instance
        return Replica(
            id=self.id,
            pool=self.pool,
            generation=self.generation,
            state=self.state,
            since=self.since,
            reason=self.reason,
            config_hash=self.config_hash,
            devices=instance.devices if instance else self.devices,
            host=instance.host if instance else "",
            grpc_port=instance.grpc_port if instance else 0,
            http_port=instance.http_port if instance and instance.tls is None else 0,  # see triton.launch
            metrics_port=instance.metrics_port if instance else 0,
            handle=instance.handle if instance else "",
            started_at=instance.started_at if instance else None,
            ready_at=self.ready_at,
            restarts=self.restarts,
            retry_at=self.retry_at,
            drain_deadline=self.drain_deadline,
            in_flight=in_flight(instance.instance) if instance and self.state.serving else None,
            models=self.models,
            held=self.held,
            tls=instance is not None and instance.tls is not None,
        )

    def saved(self) -> SavedSlot:
        return SavedSlot(
            self.pool, self.generation, self.state, self.reason, self.ready_at, self.restarts, self.failures,
            self.held, self.after_stop, self.cold_start_s, self.models, self.drain_deadline, self.had_devices,
        )  # fmt: skip

    @classmethod
    def restored(cls, name: str, saved: SavedSlot) -> "Slot":
        ready_at = saved.ready_at
        if ready_at is not None:
            ready_at = min(ready_at, time())  # the controller before may have had a clock that was ahead
        return cls(
            name, saved.pool, saved.state, saved.reason, saved.generation, ready_at=ready_at,
            restarts=saved.restarts, failures=saved.failures, held=saved.held,
            after_stop=saved.after_stop if saved.after_stop in ("relaunch", "hold") else "forget",  # type: ignore[arg-type] # narrowed by the test before
            cold_start_s=saved.cold_start_s, models=saved.models, drain_deadline=saved.drain_deadline,
            had_devices=saved.had_devices,
        )  # fmt: skip

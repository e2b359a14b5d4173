"""What the dashboard shows, in one answer of the control API: ``GET /v1/board``.

A part of the wire format (`core.wire`)."""

from dataclasses import dataclass, field

from tritonfleet.core.wire import AutoscaleStatus, Event, FleetSnapshot

__all__ = ["Board", "Traffic", "TrafficPoint", "TrafficRates"]


@dataclass(frozen=True, slots=True)
class TrafficRates:
    """Calls as the routers count them, over ``window_s``. Times are seconds; None: no call ended."""

    request_rate: float = 0.0  # calls that ended, a second
    error_rate: float = 0.0  # those of them with another status than OK
    p50_s: float | None = None
    p99_s: float | None = None
    window_s: float = 0.0

    @property
    def error_share(self) -> float:
        return self.error_rate / self.request_rate if self.request_rate else 0.0


@dataclass(frozen=True, slots=True)
class TrafficPoint:
    """One step of history: what ended between the point before and ``at``."""

    at: float
    request_rate: float
    error_rate: float
    p50_s: float | None
    p99_s: float | None


@dataclass(frozen=True, slots=True)
class Traffic:
    """``points``: the last minutes, oldest first. The rest: the last seconds, and ``waiting`` as of now."""

    step_s: float
    points: tuple[TrafficPoint, ...] = ()
    total: TrafficRates = TrafficRates()
    replicas: dict[str, TrafficRates] = field(default_factory=dict)  # by replica id
    models: dict[str, TrafficRates] = field(default_factory=dict)
    waiting: int = 0  # calls that no replica has room for yet
    waiting_by_model: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Board:
    """One reading of everything. ``events``: the newest, oldest first."""

    snapshot: FleetSnapshot
    traffic: Traffic
    autoscale: tuple[AutoscaleStatus, ...] = ()
    events: tuple[Event, ...] = ()

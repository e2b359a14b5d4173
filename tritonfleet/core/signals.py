"""What the autoscaler is told of a pool: measured values, each with its age, over two windows.

``stable`` is the longer window that decisions usually rest on, ``fast`` the short one that tells of panic. A
value that nobody can tell is None with the age of the last one that was known, never 0.
"""

from dataclasses import dataclass, fields

STALE_S = 10.0  # statistics are read every 2 s and workers report every second


@dataclass(frozen=True, slots=True)
class Signal:
    """``age_s`` is None when it was never known. ``why`` says what is missing, in words."""

    value: float | None = None
    age_s: float | None = None
    why: str = ""

    @property
    def fresh(self) -> bool:
        return self.value is not None and self.age_s is not None and self.age_s <= STALE_S

    @property
    def trouble(self) -> str:
        """ "" if it is fresh, else what is wrong with it."""
        if self.fresh:
            return ""
        if self.value is None or self.age_s is None:
            return self.why or "missing"
        return f"stale, {self.age_s:.0f} s old"


UNKNOWN = Signal()


@dataclass(frozen=True, slots=True)
class Window:
    """Means over the last ``span_s`` seconds unless said otherwise; of several models, the worst one's.

    ``work`` is what arrives, in replicas' worth of busy time: arrivals a second × busy seconds a request.
    ``done`` is what was answered, in the same unit: more than arrived, while a backlog is worked off.
    ``occupancy`` is None (not: unknown) where no model has a limit that it could be measured by.
    """

    span_s: float = 0.0
    utilization: Signal = UNKNOWN  # busy time of executions ÷ (measured replicas × instances × time), 0..1
    work: Signal = UNKNOWN
    occupancy: Signal | None = None  # (in flight + waiting) ÷ what the replicas can usefully hold
    rate: Signal = UNKNOWN  # arrivals a second, all models
    waiting: Signal = UNKNOWN  # requests in the routers' queues
    queue_mean_s: Signal = UNKNOWN  # in the routers' queues and in Triton's
    queue_p99_s: Signal = UNKNOWN
    p99_s: Signal = UNKNOWN  # from arrival at the router to the end of the answer
    service_s: Signal = UNKNOWN  # busy seconds a request costs a replica
    done: Signal = UNKNOWN  # answers a second × busy seconds a request


UNITS = {
    "utilization": "%", "work": "replicas", "occupancy": "%", "rate": "/s", "waiting": "requests",
    "queue_mean_s": "s", "queue_p99_s": "s", "p99_s": "s", "service_s": "s",
    "done": "replicas",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Signals:
    """``ready`` counts replicas that serve and have done so for long enough to be measured."""

    ready: int
    warming: int = 0  # ready so recently that what they measure is not typical
    loading: int = 0  # starting or loading
    pending: int = 0  # wait for a device
    broken: int = 0  # failed; started again after their backoff
    leaving: int = 0  # draining or stopping
    room: int | None = None  # the most that fit on the devices beside the other pools
    youngest_s: float | None = None  # since the last of the ``ready`` ones began to serve; None: unknown
    cold_start_s: float | None = None  # the longest lately measured from launch to ready
    wanted_by: str = ""  # a model that a request waits for while no replica serves
    stable: Window = Window()
    fast: Window = Window()

    @property
    def serving(self) -> int:
        return self.ready + self.warming

    @property
    def coming(self) -> int:
        return self.loading + self.pending


def named(window: Window) -> dict[str, Signal]:
    """The window's signals by name; one that does not apply is left out."""
    found = {field.name: getattr(window, field.name) for field in fields(window) if field.name != "span_s"}
    return {name: signal for name, signal in found.items() if signal is not None}


def shown(name: str, value: float | None) -> str:
    """A signal's value for people: ``71 %``, ``12.0/s``, ``18 ms``."""
    if value is None:
        return "unknown"
    unit = UNITS[name]
    if unit == "%":
        return f"{value * 100:.0f} %"
    if unit == "s":
        return time_shown(value)
    return f"{value:.1f}/s" if unit == "/s" else f"{value:.1f} {unit}"


def time_shown(seconds: float) -> str:
    if seconds == float("inf"):
        return "without end"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"

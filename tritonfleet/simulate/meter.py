"""What a simulated fleet is measured to do, in bins of half a second, and what windows of them say."""

from collections import deque
from dataclasses import dataclass, field

from tritonfleet.core.histogram import Histogram

BIN_S = 0.5
KEPT_S = 121.0


@dataclass(slots=True)
class Bin:
    """One bin. ``busy_s``, ``queue_s`` (seconds in Triton's queue) and ``finished`` are counted when a
    request ends, as Triton does; the levels are those at the bin's end."""

    arrived: int = 0
    finished: int = 0
    busy_s: float = 0.0
    queue_s: float = 0.0
    latencies: Histogram = field(default_factory=Histogram)
    in_flight: int = 0  # at replicas
    waiting: int = 0  # in the router
    ready: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """Sums over a window, and means of its levels."""

    span_s: float
    arrived: int
    finished: int
    busy_s: float
    queue_s: float
    in_flight: float
    waiting: float
    most_waiting: int
    ready: float
    p99_s: float | None  # where it was asked for


class Meter:
    def __init__(self) -> None:
        self._bins: deque[Bin] = deque(maxlen=int(KEPT_S / BIN_S))
        self.now = Bin()

    def close(self, in_flight: int, waiting: int, ready: int) -> None:
        """The bin is over; these are the levels."""
        one = self.now
        one.in_flight, one.waiting, one.ready = in_flight, waiting, ready
        self._bins.append(one)
        self.now = Bin()

    def window(self, span_s: float, *, ago_s: float = 0.0, tail: bool = False) -> Seen | None:
        """The ``span_s`` seconds until ``ago_s`` ago, or as many as there are; None before the first bin is
        over. ``tail``: with the p99, which is work."""
        last = round(ago_s / BIN_S)
        count = min(max(round(span_s / BIN_S), 1), len(self._bins) - last)
        if count <= 0:
            return None
        found = [self._bins[-index] for index in range(count + last, last, -1)]
        p99_s = Histogram().merge(one.latencies for one in found).quantile(0.99) or 0.0 if tail else None
        return Seen(
            count * BIN_S,
            sum(one.arrived for one in found),
            sum(one.finished for one in found),
            sum(one.busy_s for one in found),
            sum(one.queue_s for one in found),
            sum(one.in_flight for one in found) / count,
            sum(one.waiting for one in found) / count,
            max(one.waiting for one in found),
            sum(one.ready for one in found) / count,
            p99_s,
        )

"""What a load brought: one `Level` for each load that was tried."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from tritonfleet.core.stability import Window

PERCENTS = (50.0, 90.0, 95.0, 99.0, 99.9)
BUSY = 0.9  # of a core: from here on the client may be what is measured
LATE_S = 0.005  # and so if it sends this much too late


@dataclass(frozen=True, slots=True)
class ClientCost:
    """What the generator itself needed. Shares of one core; ``waited``: ready to run, while others ran.
    ``late_p99_s``: how late requests left, for an open loop."""

    cpu: float
    waited: float | None
    late_p99_s: float | None
    queued_most: int  # calls that waited here for a stream

    @property
    def limit(self) -> str:
        """Why this client may be what was measured; "" if it was not."""
        if self.cpu >= BUSY:
            return f"it used {self.cpu * 100:.0f} % of a core, all that one process can"
        if self.waited is not None and self.cpu + self.waited >= BUSY:
            return (
                f"it used {self.cpu * 100:.0f} % of a core and waited {self.waited * 100:.0f} % of the time "
                "for one that others used"
            )
        if self.late_p99_s is not None and self.late_p99_s > LATE_S:
            return f"1 % of the requests left over {self.late_p99_s * 1000:.0f} ms late"
        return ""


@dataclass(frozen=True, slots=True)
class ServerShare:
    """What the server's statistics say of the time of the load, other clients' requests included."""

    requests: int
    queue_s: float  # mean of a request
    compute_s: float
    batch: float  # mean items of an execution


@dataclass(frozen=True, slots=True)
class Level:
    """One load. Latencies in seconds, of answers with status OK; ``rate`` counts these, too."""

    kind: str  # "concurrency", "request_rate" or "request_intervals"
    value: float
    seconds: float
    requests: int
    rate: float
    mean_s: float | None
    percentiles_s: dict[str, float]  # "50", "99.9" ...
    stable: bool
    reason: str
    client: ClientCost
    failures: dict[str, int] = field(default_factory=dict)  # by status
    failure_texts: dict[str, str] = field(default_factory=dict)  # one of each
    unanswered: int = 0  # given up at the end
    replicas: dict[str, int] = field(default_factory=dict)  # answers of each
    replicas_by: str = ""  # how that is known; "" if it is not
    server: ServerShare | None = None
    windows: tuple[Window, ...] = ()
    histogram: tuple[tuple[float, int], ...] = ()  # upper edges (s) and answers up to there
    interrupted: bool = False

    @property
    def failed(self) -> int:
        return sum(self.failures.values())


def percentile(ranked: Sequence[float], percent: float) -> float:
    """Nearest rank of sorted values."""
    return ranked[max(0, ceil(len(ranked) * percent / 100) - 1)]


def percentiles(ranked: Sequence[float], more: float | None = None) -> dict[str, float]:
    wanted = sorted({*PERCENTS, *(() if more is None else (more,))})
    return {f"{percent:g}": percentile(ranked, percent) for percent in wanted} if ranked else {}


def histogram(ranked: Sequence[float], bins: int = 16) -> tuple[tuple[float, int], ...]:
    """Equal steps of the logarithm, from the least to the largest."""
    if not ranked:
        return ()
    low, high = max(ranked[0], 1e-6), max(ranked[-1], 2e-6)
    ratio = max(high / low, 1.05) ** (1 / bins)
    edges = [low * ratio ** (step + 1) for step in range(bins)]
    counts = [0] * bins
    at = 0
    for value in ranked:
        while at < bins - 1 and value > edges[at]:
            at += 1
        counts[at] += 1
    return tuple(zip(edges, counts, strict=True))


def shares(counts: Mapping[str, int]) -> list[tuple[str, int, float]]:
    """Name, count and share, by name."""
    total = sum(counts.values()) or 1
    return [(name, count, count / total) for name, count in sorted(counts.items())]

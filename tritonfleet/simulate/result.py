"""What came of a simulation."""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Point:
    """A moment of the time line: means or sums since the one before."""

    at_s: float
    rate: float  # arrivals a second
    size: int  # ordered
    ready: int
    waiting: int  # in the router
    p99_s: float | None  # of those that were answered; None if none were


@dataclass(frozen=True, slots=True)
class Result:
    """``refused`` were turned away or gave up waiting; they miss the objective like those answered too late.
    ``replica_hours``: from launch to end, so that loading and draining cost, too: GPU-hours at one GPU each.
    ``reversals``: changes of size in the other direction than the one before."""

    scaler: str
    seed: int
    duration_s: float
    requests: int
    refused: int
    resent: int
    slo_s: float
    missed: int
    p50_s: float
    p99_s: float
    replica_hours: float
    peak_replicas: int
    scale_actions: int
    reversals: int
    failures: int
    timeline: tuple[Point, ...] = ()

    @property
    def missed_share(self) -> float:
        return self.missed / self.requests if self.requests else 0.0


def reversals(sizes: list[int]) -> int:
    """In the course of sizes, each unlike the one before it."""
    ways = [after > before for before, after in pairwise(sizes)]
    return sum(one != other for one, other in pairwise(ways))

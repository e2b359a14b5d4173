"""What is simulated, beside the requests: replicas, router, objective."""

from collections.abc import Sequence
from dataclasses import dataclass

from tritonfleet.core.balance import useful_slots


@dataclass(frozen=True, slots=True)
class Scenario:
    """Times in seconds. A batch takes as long as the longest of its requests, plus ``batch_share`` of the
    others' time beyond ``batch_base_s``, which an execution has once. A share of 1 is one after the other, of
    0 a batch for the price of one.

    Raises ValueError for what cannot be simulated."""

    slo_s: float
    minimum: int = 1
    maximum: int = 32
    initial: int = 1
    cold_start_s: float = 45.0
    cold_start_spread: float = 0.1  # of it, uniformly, either way
    instances: int = 1  # executions at once on each replica
    batch: int = 1  # requests of one execution at most
    batch_share: float = 1.0
    batch_base_s: float = 0.0
    overhead_s: float = 0.0  # on the way there and back, while no replica is busy with it
    policy: str = "least_work"
    max_inflight: int | None = None  # a replica is given so many at most; None: what it usefully holds
    queue_capacity: int = 1024  # of the router
    max_wait_s: float = 30.0
    tries: int = 3  # that many replicas, when they are lost
    mtbf_s: float | None = None  # mean time between the failures of one replica
    kills_s: tuple[float, ...] = ()  # at each of these moments the first replica that serves dies
    seed: int = 1
    every_s: float = 10.0  # between two points of the time line

    def __post_init__(self) -> None:
        for name in ("slo_s", "cold_start_s", "instances", "batch", "max_wait_s", "maximum", "every_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0, not {getattr(self, name):g}")
        if not 0 <= self.minimum <= self.initial <= self.maximum:
            raise ValueError(
                f"replicas: min {self.minimum} ≤ initial {self.initial} ≤ max {self.maximum} does not hold"
            )
        if self.max_inflight is not None and self.max_inflight < 1:
            raise ValueError(f"max_inflight must be at least 1, not {self.max_inflight}")
        if self.mtbf_s is not None and self.mtbf_s <= 0:
            raise ValueError(f"mtbf_s must be more than 0, not {self.mtbf_s:g}")

    def batch_s(self, times: Sequence[float]) -> float:
        """What an execution of requests takes that alone would take ``times``."""
        longest = max(times)
        others = sum(times) - longest - (len(times) - 1) * self.batch_base_s
        return longest + self.batch_share * max(others, 0.0)

    @property
    def slots(self) -> int:
        """Requests that a replica usefully holds: a batch in work, and the next; or what it may be given."""
        return self.max_inflight or useful_slots(self.instances * self.batch)

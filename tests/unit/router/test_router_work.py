"""What the router learns from answers, about requests and about the replicas that served them."""

from types import SimpleNamespace

import pytest

from tritonfleet.core.cost import KNOWN_FROM, Attribution, Pace
from tritonfleet.router.work import Work


class Served:
    """Feeds `Work` the answers of one replica, one after the other."""

    def __init__(self) -> None:
        self.work = Work(lambda *_: None)
        self.replica = SimpleNamespace(paces=Pace(), pace=1.0, row=SimpleNamespace(pace=1.0))
        self.stats = SimpleNamespace(attribution=Attribution(), served=0, expected_s=0.0)
        self._now = 0.0

    def took(self, size: int, seconds: float) -> None:
        leg = SimpleNamespace(
            stats=self.stats, replica=self.replica, size=size, cost_s=0.0, started=self._now
        )
        self._now += seconds
        self.work.answered(leg, "model", self._now, ok=True)  # type: ignore[arg-type] # all it looks at


def test_a_size_that_is_only_extrapolated_says_nothing_of_the_replica() -> None:
    """Two smaller sizes, noisy: the line through them expects a second for 8 MB, which take a tenth of that.
    A replica must not pass for ten times as fast for that, and be sent everything."""
    served = Served()
    for _ in range(KNOWN_FROM):
        served.took(1_000, 0.002)
        served.took(100_000, 0.014)
    assert served.work.of("model").cost.estimate(8 << 20) > 0.9
    served.took(8 << 20, 0.1)
    served.took(1_000, 0.002)
    assert served.replica.pace == 1.0


def test_a_replica_slower_than_expected_at_known_sizes_is_found_slow() -> None:
    served = Served()
    cost = served.work.of("model").cost
    for _ in range(100):  # on its peers
        cost.learn(1_000, 0.02)
    for _ in range(60):
        served.took(1_000, 0.08)
        cost.learn(1_000, 0.02)
        cost.learn(1_000, 0.02)
        cost.learn(1_000, 0.02)
    assert served.replica.pace == pytest.approx(2.2, abs=0.6)

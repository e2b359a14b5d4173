"""Several router workers in front of the same replicas, each of which knows only what it has sent itself.

Every router that is added makes "least requests" worse (envoy #35935): what is idle for one is busy with
another's. Requests, their sizes and times are drawn from fixed seeds.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop

import pytest
from fifo_replicas import SimulatedReplica, Simulation, lognormal_times, percentile, poisson

from tritonfleet.core.balance import LeastRequests, LeastWork, Policy, RoundRobin
from tritonfleet.core.cost import CostModel

REPLICAS = 8
REQUESTS = 20_000


@dataclass
class View:
    """A replica as one of the routers knows it."""

    replica: SimulatedReplica
    in_flight: int = 0
    work_s: float = 0.0
    progress_at: float = 0.0
    pace: float = 1.0


class Several(Simulation):
    """Requests go to the routers in turn, as connections do; each has a policy of its own."""

    def __init__(self, make: Callable[[], Policy], routers: int) -> None:
        draw = random.Random("several routers")
        jobs = poisson(lognormal_times(REQUESTS, draw), REPLICAS, 0.8, draw, 0.2)
        super().__init__(jobs, [1.0] * REPLICAS, make(), CostModel())
        self.policies = [make() for _ in range(routers)]
        self.views = [[View(replica) for replica in self.replicas] for _ in range(routers)]
        self.sent: dict[int, tuple[View, float]] = {}

    def run(self) -> list[float]:
        for index, job in enumerate(self.jobs):
            while self.events and self.events[0][0] <= job.arrives_at:
                self.ended(self.events[0][2].jobs[0][0])
            router, cost = index % len(self.policies), self.cost(index)
            view = self.policies[router].pick(self.views[router], cost)
            view.in_flight += 1
            view.work_s += cost
            self.sent[index] = view, cost
            self.send(index, cost, view.replica, job.arrives_at)
        while self.events:
            self.ended(self.events[0][2].jobs[0][0])
        return self.latencies

    def ended(self, index: int) -> None:
        self.finish(*heappop(self.events))
        view, cost = self.sent.pop(index)
        view.in_flight -= 1
        view.work_s -= cost


def p99(make: Callable[[], Policy], routers: int) -> float:
    return percentile(Several(make, routers).run(), 99, 1000)


@pytest.mark.parametrize(("make", "two", "four"), [(LeastWork, 1.45, 2.0), (LeastRequests, 1.2, 1.45)])
def test_several_routers_breaking_least_request(make: Callable[[], Policy], two: float, four: float) -> None:
    """They cost something, but leave most of what one router gains over round robin."""
    alone = p99(make, 1)
    assert p99(make, 2) <= two * alone
    with_four = p99(make, 4)
    assert with_four <= four * alone
    assert with_four <= 0.6 * p99(RoundRobin, 4)

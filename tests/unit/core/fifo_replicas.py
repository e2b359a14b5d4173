"""A discrete-event simulation of a router in front of replicas that serve one request at a time, in order.

It runs the real policies, cost model, attribution, pace and waiting queue on a drawn list of requests;
nothing takes time between router and replica. `simulate` returns the latency of every request.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace
from math import exp, log
from typing import NamedTuple

from tritonfleet.core.balance import Policy, late_bind
from tritonfleet.core.cost import Attribution, CostModel, Pace
from tritonfleet.core.queue import Order, WaitingQueue

MEAN_S = 0.02
BASE_BYTES = 120  # of a request without its payload
BYTES_PER_S = 200_000


class Job(NamedTuple):
    arrives_at: float
    size_bytes: int
    service_s: float  # on a replica of normal pace


@dataclass
class SimulatedReplica:
    slowness: float = 1.0
    in_flight: int = 0
    work_s: float = 0.0
    progress_at: float = 0.0
    measured: Pace = field(default_factory=Pace)
    jobs: deque[tuple[int, float, float]] = field(default_factory=deque)  # job, dispatched, estimate
    attribution: Attribution = field(default_factory=Attribution)

    @property
    def pace(self) -> float:
        return self.measured.value


def lognormal_times(count: int, draw: random.Random, sigma: float = 1.2) -> list[float]:
    """Service times with mean `MEAN_S`, in seconds."""
    mu = log(MEAN_S) - sigma * sigma / 2
    return [draw.lognormvariate(mu, sigma) for _ in range(count)]


def bimodal_times(count: int, draw: random.Random) -> list[float]:
    """Nine of ten are short, one takes ten times as long; mean `MEAN_S`."""
    short = MEAN_S / 1.9
    return [short * (10 if draw.random() < 0.1 else 1) for _ in range(count)]


def poisson(
    times: Sequence[float], capacity: float, load: float, draw: random.Random, noise: float = 0.0
) -> list[Job]:
    """Requests with these service times, at ``load`` of ``capacity`` replicas of normal pace. Their sizes
    tell the times, up to lognormal ``noise`` (σ)."""
    rate = load * capacity / (sum(times) / len(times))
    jobs, now = [], 0.0
    for seconds in times:
        now += draw.expovariate(rate)
        size = BASE_BYTES + round(seconds * BYTES_PER_S)
        jobs.append(Job(now, size, seconds * exp(draw.gauss(-noise * noise / 2, noise))))
    return jobs


class Simulation:
    """``cap``: requests a replica may have at a time, the rest waits in the router; None: all are sent on.

    ``costs=None`` gives every policy the true service times.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        slownesses: Sequence[float],
        policy: Policy,
        costs: CostModel | None,
        cap: int | None = None,
        order: Order = "fifo",
        max_age_s: float = 1.0,
    ) -> None:
        self.jobs, self.policy, self.costs, self.cap = jobs, policy, costs, cap
        self.replicas = [SimulatedReplica(slowness) for slowness in slownesses]
        self.queue: WaitingQueue[int] = WaitingQueue(len(jobs), order, max_age_s)
        self.latencies = [0.0] * len(jobs)
        self.events: list[tuple[float, int, SimulatedReplica]] = []  # finishes
        self.events_made = 0

    def run(self) -> list[float]:
        for index, job in enumerate(self.jobs):
            while self.events and self.events[0][0] <= job.arrives_at:
                self.finish(*heappop(self.events))
            cost = self.cost(index)
            if self.cap is None:
                self.send(index, cost, self.policy.pick(self.replicas, cost, job.arrives_at), job.arrives_at)
            else:
                self.queue.push(index, job.arrives_at, cost_s=cost)
                self.send_waiting(job.arrives_at)
        while self.events:
            self.finish(*heappop(self.events))
        return self.latencies

    def cost(self, index: int) -> float:
        job = self.jobs[index]
        return job.service_s if self.costs is None else self.costs.estimate(job.size_bytes)

    def send_waiting(self, now: float) -> None:
        while len(self.queue):
            replica = late_bind(self.policy, self.replicas, self.has_room, now=now)
            if replica is None:
                return
            index = self.queue.pop(now)
            assert index is not None
            self.send(index, self.cost(index), replica, now)

    def has_room(self, replica: SimulatedReplica) -> bool:
        return self.cap is None or replica.in_flight < self.cap

    def send(self, index: int, cost: float, replica: SimulatedReplica, now: float) -> None:
        replica.in_flight += 1
        replica.work_s += cost
        replica.jobs.append((index, now, cost))
        if replica.in_flight == 1:
            replica.progress_at = now
            self.begin(replica, now)

    def begin(self, replica: SimulatedReplica, now: float) -> None:
        seconds = self.jobs[replica.jobs[0][0]].service_s * replica.slowness
        self.events_made += 1
        heappush(self.events, (now + seconds, self.events_made, replica))

    def finish(self, now: float, _turn: int, replica: SimulatedReplica) -> None:
        index, dispatched, cost = replica.jobs.popleft()
        job = self.jobs[index]
        self.latencies[index] = now - job.arrives_at
        replica.in_flight -= 1
        replica.work_s -= cost
        replica.progress_at = now
        if self.costs is not None:
            for size, seconds in replica.attribution.finished(job.size_bytes, dispatched, now):
                replica.measured.learn(self.costs.estimate(size), seconds)
                self.costs.learn(size, seconds)
        if replica.jobs:
            self.begin(replica, now)
        if self.cap is not None:
            self.send_waiting(now)


def simulate(
    jobs: Sequence[Job],
    slownesses: Sequence[float],
    policy: Policy,
    costs: CostModel | None = None,
    cap: int | None = None,
    order: Order = "fifo",
) -> list[float]:
    return Simulation(jobs, slownesses, policy, costs, cap, order).run()


def central_queue(jobs: Sequence[Job], replicas: int) -> list[float]:
    """Latencies when every free replica takes the first of one queue: the best that first-come-first-served
    can do (M/G/c), against which policies are judged."""
    free_at = [0.0] * replicas
    latencies = []
    for job in jobs:
        done = max(free_at[0], job.arrives_at) + job.service_s
        heapreplace(free_at, done)
        latencies.append(done - job.arrives_at)
    return latencies


def percentile(latencies: Sequence[float], percent: float, skip: int = 0) -> float:
    """Nearest rank, of all but the first ``skip``."""
    ranked = sorted(latencies[skip:])
    return ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))]

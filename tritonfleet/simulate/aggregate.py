"""A pool by its rates: bins of half a second instead of requests, for loads that are too many to count.

In a bin, what arrives (a Poisson number) is served first come, first served, as fast as the replicas that
serve can. What is left over is a queue in front of them, with its age, from which the router refuses what has
waited too long or is too much. What a bin's requests take is drawn for some of them, each standing for its
share: the age of the queue, the wait that chance causes where there is no queue (`core.queueing`, with the
variance of service times), and the service. Replicas, restarts and the scaler are those of
`simulate.engine`. There is no routing: all replicas count as one queue, which late binding comes near to.
"""

import random
from collections import deque
from dataclasses import dataclass
from math import inf, sqrt
from typing import NamedTuple

from tritonfleet.core.histogram import Histogram, bucket_of
from tritonfleet.core.queueing import wait_s
from tritonfleet.simulate.fleet import SimulatedFleet
from tritonfleet.simulate.flow import Flow
from tritonfleet.simulate.meter import BIN_S
from tritonfleet.simulate.replica import Job
from tritonfleet.simulate.result import Result
from tritonfleet.simulate.scalers import Scaler
from tritonfleet.simulate.scenario import Scenario

DRAWN = 32  # requests of a bin whose latency is drawn
BUSIEST = 0.98  # beyond, a wait is that of the queue that bins leave over
RATE_S = 5.0  # the rate that the wait by chance is of: so that a bin's own chance is not counted twice
TRIED = 2000  # batches, to find what one takes


@dataclass(slots=True)
class Cohort:
    """Requests of one bin that wait: the first arrived at ``at``, the others ``apart_s`` after each other."""

    at: float
    apart_s: float
    count: int

    def take(self, count: int) -> None:
        """The first ``count`` are gone."""
        self.at += count * self.apart_s
        self.count -= count


class Chance(NamedTuple):
    """The wait that requests have though replicas keep up: a share of them, exponential, at most so long."""

    share: float
    mean_s: float
    most_s: float

    def draw(self, dice: random.Random) -> float:
        if not self.share or dice.random() >= self.share:
            return 0.0
        return min(dice.expovariate(1 / self.mean_s), self.most_s)


def aggregate(scenario: Scenario, flow: Flow, scaler: Scaler) -> Result:
    """Until the flow is over and the queue is empty. The same seed gives the same result."""
    run = _Run(scenario, flow, scaler)
    run.go()
    return run.result()


class _Run(SimulatedFleet):
    def __init__(self, scenario: Scenario, flow: Flow, scaler: Scaler) -> None:
        super().__init__(scenario, scaler)
        self._flow = flow
        # Of their own, so that every scaler sees the same arrivals.
        self._arrivals = random.Random(f"{scenario.seed} arrivals")  # noqa: S311 # for a simulation
        self._dice = random.Random(f"{scenario.seed} latencies")  # noqa: S311 # for a simulation
        self._executions = _executions(scenario, flow)
        self._queue: deque[Cohort] = deque()  # oldest first
        self._queued = self._bins = 0
        self._rate = 0.0  # arrivals a second, smoothed
        self._unused = 0.0  # of a request, that a bin had time for
        self._busy = 0.0  # requests in service, by the bin before

    def go(self) -> None:
        self._begin()
        while self._bins < self._flow.bins or self._queued:
            self._step()

    # ------------------------------------------------------------ one bin

    def _sample(self) -> None:
        index = self._bins
        self._bins += 1
        arrived = self._flow.count(index, self._arrivals) if index < self._flow.bins else 0
        self.meter.now.arrived = arrived
        self._arrived += arrived
        if arrived:
            self._queue.append(Cohort(self.now - BIN_S, BIN_S / arrived, arrived))
            self._queued += arrived
        servers = len(self._serving) * self.scenario.instances
        self._rate += (arrived / BIN_S - self._rate) * (BIN_S / RATE_S if index else 1.0)
        batch, execution_s = self._pace(servers, self._rate)
        chance = self._chance(servers, self._rate, batch, execution_s)
        served = self._serve(servers, execution_s, chance)
        self._refuse_late()
        busy_s = served / batch * execution_s
        if served:
            noise = sqrt(served) * self._flow.sd_s * execution_s / self._flow.mean_s / batch
            busy_s = max(busy_s + self._dice.gauss(0.0, noise), 0.0)
        told = self.meter.now
        told.busy_s, told.finished = busy_s, served
        self._busy = served * execution_s / BIN_S
        inside = self._busy + served / BIN_S * chance.share * chance.mean_s + self._queued
        held = min(inside, len(self._serving) * self.scenario.slots)
        told.queue_s = max(held - self._busy, 0.0) * BIN_S  # by Little's law
        self.meter.close(round(held), round(inside - held), len(self._serving))

    def _pace(self, servers: int, rate: float) -> tuple[float, float]:
        """(requests of an execution, its seconds): as many as arrive while another one runs, or, with a
        queue, as many as there may be."""
        most = len(self._executions) - 1
        if most == 1 or not servers:
            return 1.0, self._executions[1]
        if self._queued > 2 * rate * BIN_S:
            return float(most), self._executions[most]
        for size in range(1, most + 1):
            if rate / servers * self._executions[size] <= size:
                return float(size), self._executions[size]
        return float(most), self._executions[most]

    def _chance(self, servers: int, rate: float, batch: float, execution_s: float) -> Chance:
        if not servers or not rate:
            return Chance(0.0, 0.0, 0.0)
        busy = min(rate / batch * execution_s / servers, BUSIEST)
        share = busy ** (sqrt(2 * (servers + 1)) - 1)
        variation = (1 + (self._flow.sd_s / self._flow.mean_s) ** 2) / 2
        mean = wait_s(servers, busy * servers, execution_s) / share * variation
        # A batch takes along what waits when the execution before it ends.
        return Chance(share, mean, BIN_S if self.scenario.batch == 1 else execution_s)

    def _serve(self, servers: int, execution_s: float, chance: Chance) -> int:
        """How many end. The first of the queue, as many as there is time for."""
        most = len(self._executions) - 1
        each_s = self._executions[most] / most / servers if servers else inf
        time = BIN_S / each_s + self._unused
        left = served = min(int(time), self._queued)
        self._unused = time - served if served < self._queued else 0.0
        at = self.now - BIN_S
        while left:
            cohort = self._queue[0]
            taken = min(cohort.count, left)
            self._answered(taken, cohort, at, each_s, execution_s, chance)
            left -= taken
            at += taken * each_s
            cohort.take(taken)
            if not cohort.count:
                self._queue.popleft()
        self._queued -= served
        return served

    def _answered(
        self, count: int, cohort: Cohort, at: float, each_s: float, execution_s: float, chance: Chance
    ) -> None:
        """``count`` of a cohort, the first of which is served at ``at``, the others ``each_s`` apart."""
        drawn = min(count, DRAWN)
        factor = execution_s / self._flow.mean_s
        for index in range(drawn):
            weight = count // drawn + (index < count % drawn)
            which = (index + self._dice.random()) / drawn * count
            waited = at + which * each_s - cohort.at - which * cohort.apart_s
            if waited <= 0:
                waited = chance.draw(self._dice)
            latency = waited + self._flow.seconds(self._dice) * factor + self.scenario.overhead_s
            bucket = bucket_of(latency)
            for histogram in (self._latencies, self._recent, self.meter.now.latencies):
                _add(histogram, bucket, latency, weight)
            self._missed += weight * (latency > self.scenario.slo_s)

    def _refuse_late(self) -> None:
        since = self._woken_at if not self.scenario.minimum else 0.0  # a cold start is no part of the wait
        while self._queue and self.now - max(self._queue[0].at, since) > self._patience_s:
            self._refuse(self._queue.popleft().count)
        room = self.scenario.queue_capacity + len(self._serving) * self.scenario.slots
        while self._queued > room:
            last = self._queue[-1]
            turned_away = min(last.count, self._queued - room)
            last.count -= turned_away
            if not last.count:
                self._queue.pop()
            self._refuse(turned_away)

    def _refuse(self, count: int) -> None:
        self._queued -= count
        self._refused += count
        self._missed += count

    # ------------------------------------------------------------ the rest

    def _waiting(self) -> int:
        return max(self._queued - len(self._serving) * self.scenario.slots, 0)

    def _lost(self, jobs: list[Job]) -> None:  # noqa: ARG002 # requests are not known one by one
        """What was in service on one of them comes again."""
        again = round(self._busy / (len(self._serving) + 1))
        self._resent += again
        if again:
            self._queue.appendleft(Cohort(self.now, 0.0, again))
            self._queued += again


def _executions(scenario: Scenario, flow: Flow) -> list[float]:
    """Mean seconds of an execution of so many requests; of none, 0."""
    dice = random.Random(f"{scenario.seed} batches")  # noqa: S311 # for a simulation
    found = [0.0, flow.mean_s]
    for size in range(2, scenario.batch + 1):
        tried = max(TRIED // scenario.batch, 100)
        total = sum(scenario.batch_s([flow.seconds(dice) for _ in range(size)]) for _ in range(tried))
        found.append(total / tried)
    return found


def _add(histogram: Histogram, bucket: int, seconds: float, count: int) -> None:
    histogram.counts[bucket] = histogram.counts.get(bucket, 0) + count
    histogram.count += count
    histogram.sum_s += seconds * count

"""Discrete events in virtual time: one pool behind one router, request by request.

The router's decisions (`core.balance`, `core.cost`, `core.queue`), restarts (`core.restart`) and the scaler's
are the real ones; networks take no time. The same scenario, requests and seed give the same result.
"""

import random
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from tritonfleet.core.balance import POLICIES, Policy, late_bind
from tritonfleet.core.cost import CostModel
from tritonfleet.core.histogram import Histogram
from tritonfleet.core.queue import WaitingQueue
from tritonfleet.core.restart import RestartPolicy, after_failure
from tritonfleet.simulate.meter import BIN_S, Meter
from tritonfleet.simulate.replica import Job, Replica
from tritonfleet.simulate.result import Point, Result, reversals
from tritonfleet.simulate.scalers import Pool, Scaler
from tritonfleet.simulate.scenario import Scenario
from tritonfleet.simulate.workload import Request

WARM_S = 5.0  # as `controller.signals.WARM_S`


def simulate(scenario: Scenario, requests: Sequence[Request], scaler: Scaler) -> Result:
    """Until every request has its end. ``requests`` in order of arrival.

    Raises ValueError when there are none, or for a policy that does not exist."""
    if not requests:
        raise ValueError("there are no requests to simulate")
    if scenario.policy not in POLICIES:
        raise ValueError(f"no policy {scenario.policy!r}; there are: {', '.join(POLICIES)}")
    run = _Run(scenario, requests, scaler)
    run.go()
    return run.result()


class _Run:
    def __init__(self, scenario: Scenario, requests: Sequence[Request], scaler: Scaler) -> None:
        self.scenario, self.scaler = scenario, scaler
        self.now = 0.0
        self._requests, self._next = requests, 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._turn = 0
        self._draw = random.Random(f"{scenario.seed} failures")  # noqa: S311 # for a simulation
        self._policy: Policy = POLICIES[scenario.policy]()
        self._cost = CostModel()
        self._queue: WaitingQueue[Job] = WaitingQueue(scenario.queue_capacity)
        self._replicas: list[Replica] = []
        self._serving: list[Replica] = []
        self._numbers = 0
        self._size = scenario.initial
        self._sizes = [self._size]
        self.meter = Meter()
        self._latencies = Histogram()
        self._recent = Histogram()
        self._left = len(requests)
        self._missed = self._refused = self._resent = self._failures = self._peak = 0
        self._arrived_before = 0
        self._replica_s = 0.0
        self._timeline: list[Point] = []

    # ------------------------------------------------------------ time

    def go(self) -> None:
        for _ in range(self.scenario.initial):
            self._ready(self._launch())
        self._at(BIN_S, self._sample)
        self._at(self.scaler.interval_s, self._scale)
        self._at(self.scenario.every_s, self._point)
        while self._left:
            if self._next < len(self._requests) and self._requests[self._next].at <= self._events[0][0]:
                request = self._requests[self._next]
                self._next += 1
                self.now = request.at
                self._arrive(Job(request))
            else:
                self.now, _, happens = heappop(self._events)
                happens()

    def _at(self, when: float, what: Callable[[], None]) -> None:
        self._turn += 1
        heappush(self._events, (when, self._turn, what))

    # ------------------------------------------------------------ requests

    def _arrive(self, job: Job) -> None:
        self.meter.now.arrived += 1
        job.cost_s = self._cost.estimate(job.request.size)
        self._dispatch(job)

    def _dispatch(self, job: Job) -> None:
        replica = None
        if self._serving and not len(self._queue):
            replica = late_bind(self._policy, self._serving, self._has_room, job.cost_s)
        if replica is not None:
            self._send(job, replica)
        elif self._queue.push(job, self.now, deadline=job.request.at + self.scenario.max_wait_s) is None:
            self._refuse()

    def _has_room(self, replica: Replica) -> bool:
        return replica.in_flight < self.scenario.slots

    def _send(self, job: Job, replica: Replica) -> None:
        replica.take(job, self.now)
        self._execute(replica)

    def _execute(self, replica: Replica) -> None:
        while batch := replica.begin(self.now, self.scenario.instances, self.scenario.batch):
            times = [job.request.seconds for job in batch]
            longest = max(times)
            seconds = longest + self.scenario.batch_share * (sum(times) - longest)
            self._at(self.now + seconds, lambda batch=batch, s=seconds: self._end(replica, batch, s))  # type: ignore[misc] # mypy cannot infer a lambda's defaults

    def _end(self, replica: Replica, batch: list[Job], seconds: float) -> None:
        if not replica.runs(batch):  # it was lost
            return
        replica.end(batch)
        told = self.meter.now
        told.busy_s += seconds
        for job in batch:
            latency = self.now - job.request.at
            told.finished += 1
            told.queue_s += job.queued_s
            told.latencies.append(latency)
            self._latencies.record(latency)
            self._recent.record(latency)
            self._missed += latency > self.scenario.slo_s
            self._left -= 1
            self._learn(replica, job)
        self._execute(replica)
        if replica.leaving and not replica.in_flight:
            self._gone(replica)
        self._serve_queue()

    def _learn(self, replica: Replica, job: Job) -> None:
        for share in replica.attribution.finished(job.request.size, job.sent_at, self.now):
            if self._cost.knows(share.size_bytes):
                replica.learn(self._cost.estimate(share.size_bytes), share.seconds)
            self._cost.learn(share.size_bytes, share.seconds)

    def _serve_queue(self) -> None:
        for _ in self._queue.expire(self.now):
            self._refuse()
        while self._serving and (entry := self._queue.peek(self.now)) is not None:
            replica = late_bind(self._policy, self._serving, self._has_room, entry.item.cost_s)
            if replica is None:
                return
            self._queue.remove(entry)
            self._send(entry.item, replica)

    def _refuse(self) -> None:
        self._refused += 1
        self._missed += 1
        self._left -= 1

    # ------------------------------------------------------------ replicas

    def _launch(self) -> Replica:
        replica = Replica(self._numbers, self.now)
        self._numbers += 1
        self._replicas.append(replica)
        self._peak = max(self._peak, len(self._replicas))
        return replica

    def _load(self, replica: Replica, delay_s: float = 0.0) -> None:
        spread = self.scenario.cold_start_spread
        takes = self.scenario.cold_start_s * self._draw.uniform(1 - spread, 1 + spread)
        replica.cold_start_s = takes
        self._at(self.now + delay_s + takes, lambda: self._ready(replica))

    def _ready(self, replica: Replica) -> None:
        if replica.gone:
            return
        replica.cold_start_s = replica.cold_start_s or self.scenario.cold_start_s
        replica.ready_at = self.now
        self._renew()
        if self.scenario.mtbf_s is not None:
            since = self.now
            lives = self._draw.expovariate(1 / self.scenario.mtbf_s)
            self._at(self.now + lives, lambda: self._fail(replica, since))
        self._serve_queue()

    def _fail(self, replica: Replica, since: float) -> None:
        if replica.gone or replica.ready_at != since:
            return
        self._failures += 1
        lost = replica.lose_all()
        verdict = after_failure(
            RestartPolicy(), replica.failures, ready_for_s=self.now - since, what="it died"
        )
        replica.failures = verdict.failures
        if replica.leaving:
            self._gone(replica)
        else:
            self._load(replica, verdict.delay_s)
        self._renew()
        for job in lost:
            if job.tries >= self.scenario.tries:
                self._refuse()
            else:
                self._resent += 1
                self._dispatch(job)

    def _gone(self, replica: Replica) -> None:
        replica.gone = True
        self._replicas.remove(replica)
        self._replica_s += self.now - replica.launched_at
        self._renew()

    def _renew(self) -> None:
        self._serving = [replica for replica in self._replicas if replica.serves]

    # ------------------------------------------------------------ size

    def _pool(self) -> Pool:
        kept = [replica for replica in self._replicas if not replica.leaving]
        warming = sum(self.now - (replica.ready_at or 0.0) < WARM_S for replica in self._serving)
        return Pool(
            self._size, self.scenario.minimum, self.scenario.maximum, len(self._serving),
            warming if self.now > WARM_S else 0, sum(replica.ready_at is None for replica in kept),
            len(self._replicas) - len(kept), self.scenario.instances, self.scenario.slots,
            max((replica.cold_start_s or 0.0 for replica in self._serving), default=None),
        )  # fmt: skip

    def _scale(self) -> None:
        wanted = self.scaler.desired(self.now, self._pool(), self.meter)
        wanted = min(max(wanted, self.scenario.minimum), self.scenario.maximum)
        if wanted != self._size:
            self._size = wanted
            self._sizes.append(wanted)
        kept = [replica for replica in self._replicas if not replica.leaving]
        for _ in range(wanted - len(kept)):
            self._load(self._launch())
        # Not-ready ones first, then the highest numbers, as `core.reconcile` has it.
        kept.sort(key=lambda replica: (replica.ready_at is None, replica.number), reverse=True)
        for replica in kept[: max(len(kept) - wanted, 0)]:
            replica.leaving = True
            if not replica.in_flight:
                self._gone(replica)
        self._renew()
        self._at(self.now + self.scaler.interval_s, self._scale)

    # ------------------------------------------------------------ measuring

    def _sample(self) -> None:
        for _ in self._queue.expire(self.now):
            self._refuse()
        in_flight = sum(replica.in_flight for replica in self._replicas)
        self.meter.close(in_flight, len(self._queue), len(self._serving))
        self._at(self.now + BIN_S, self._sample)

    def _point(self) -> None:
        rate = (self._next - self._arrived_before) / self.scenario.every_s
        p99, self._arrived_before = self._recent.quantile(0.99), self._next
        self._recent = Histogram()
        self._timeline.append(Point(self.now, rate, self._size, len(self._serving), len(self._queue), p99))
        self._at(self.now + self.scenario.every_s, self._point)

    def result(self) -> Result:
        spent = self._replica_s + sum(self.now - replica.launched_at for replica in self._replicas)
        return Result(
            scaler=self.scaler.name,
            seed=self.scenario.seed,
            duration_s=self.now,
            requests=len(self._requests),
            refused=self._refused,
            resent=self._resent,
            slo_s=self.scenario.slo_s,
            missed=self._missed,
            p50_s=self._latencies.quantile(0.5) or 0.0,
            p99_s=self._latencies.quantile(0.99) or 0.0,
            replica_hours=spent / 3600,
            peak_replicas=self._peak,
            scale_actions=len(self._sizes) - 1,
            reversals=reversals(self._sizes),
            failures=self._failures,
            timeline=tuple(self._timeline),
        )

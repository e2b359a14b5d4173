"""Discrete events in virtual time: one pool behind one router, request by request.

The router's decisions (`core.balance`, `core.cost`, `core.queue`), restarts (`core.restart`) and the scaler's
are the real ones; networks take a fixed time. The same scenario, requests and seed give the same result.
"""

from collections.abc import Callable, Sequence

from tritonfleet.core.balance import KEEPS_BUSY_S, POLICIES, Policy, late_bind
from tritonfleet.core.cost import CostModel
from tritonfleet.core.queue import WaitingQueue
from tritonfleet.simulate.fleet import SimulatedFleet
from tritonfleet.simulate.replica import Job, Replica
from tritonfleet.simulate.result import Result
from tritonfleet.simulate.scalers import Scaler
from tritonfleet.simulate.scenario import Scenario
from tritonfleet.simulate.workload import Request

Answered = Callable[[Request, float, int], None]  # which, after how many seconds, by which replica


def simulate(
    scenario: Scenario,
    requests: Sequence[Request],
    scaler: Scaler,
    answered: Answered = lambda _request, _latency_s, _replica: None,
) -> Result:
    """Until every request has its end. ``requests`` in order of arrival. ``answered`` hears of every answer.

    Raises ValueError when there are none, or for a policy that does not exist."""
    if not requests:
        raise ValueError("there are no requests to simulate")
    if scenario.policy not in POLICIES:
        raise ValueError(f"no policy {scenario.policy!r}; there are: {', '.join(POLICIES)}")
    run = _Run(scenario, requests, scaler, answered)
    run.go()
    return run.result()


class _Run(SimulatedFleet):
    def __init__(
        self, scenario: Scenario, requests: Sequence[Request], scaler: Scaler, answered: Answered
    ) -> None:
        super().__init__(scenario, scaler)
        self._requests, self._answered = requests, answered
        self._policy: Policy = POLICIES[scenario.policy]()
        self._cost = CostModel()
        self._queue: WaitingQueue[Job] = WaitingQueue(scenario.queue_capacity)
        self._left = len(requests)

    def go(self) -> None:
        self._begin()
        while self._left:
            if self._arrived < len(self._requests) and self._requests[self._arrived].at <= self._events[0][0]:
                request = self._requests[self._arrived]
                self._arrived += 1
                self.now = request.at
                self._arrive(Job(request))
            else:
                self._step()

    # ------------------------------------------------------------ requests

    def _arrive(self, job: Job) -> None:
        self.meter.now.arrived += 1
        job.cost_s = self._cost.estimate(job.request.size)
        self._dispatch(job)

    def _dispatch(self, job: Job) -> None:
        replica = None
        if self._serving and not len(self._queue):
            replica = late_bind(self._policy, self._serving, self._has_room, job.cost_s, self.now)
        if replica is not None:
            self._send(job, replica)
        elif self._queue.push(job, self.now, deadline=job.request.at + self._patience_s) is None:
            self._refuse()

    def _has_room(self, replica: Replica) -> bool:
        if replica.in_flight < self.scenario.slots:
            return True
        return self.scenario.max_inflight is None and replica.work_s < KEEPS_BUSY_S

    def _send(self, job: Job, replica: Replica) -> None:
        replica.take(job, self.now)
        self._execute(replica)

    def _execute(self, replica: Replica) -> None:
        while batch := replica.begin(self.now, self.scenario.instances, self.scenario.batch):
            seconds = self.scenario.batch_s([job.request.seconds for job in batch])
            self._at(self.now + seconds, lambda batch=batch, s=seconds: self._end(replica, batch, s))  # type: ignore[misc] # mypy cannot infer a lambda's defaults

    def _end(self, replica: Replica, batch: list[Job], seconds: float) -> None:
        if not replica.runs(batch):  # it was lost
            return
        replica.end(batch, self.now)
        told = self.meter.now
        told.busy_s += seconds
        for job in batch:
            latency = self.now - job.request.at + self.scenario.overhead_s
            told.finished += 1
            told.queue_s += job.queued_s
            told.latencies.record(latency)
            self._latencies.record(latency)
            self._recent.record(latency)
            self._missed += latency > self.scenario.slo_s
            self._left -= 1
            self._answered(job.request, latency, replica.number)
            self._learn(replica, job)
        self._execute(replica)
        if replica.leaving and not replica.in_flight:
            self._gone(replica)
        self._more_room()

    def _learn(self, replica: Replica, job: Job) -> None:
        for share in replica.attribution.finished(job.request.size, job.sent_at, self.now):
            if self._cost.knows(share.size_bytes):
                replica.learn(self._cost.estimate(share.size_bytes), share.seconds)
            self._cost.learn(share.size_bytes, share.seconds)

    def _more_room(self) -> None:
        self._expire()
        while self._serving and (entry := self._queue.peek(self.now)) is not None:
            cost_s = entry.item.cost_s
            replica = late_bind(self._policy, self._serving, self._has_room, cost_s, self.now)
            if replica is None:
                return
            self._queue.remove(entry)
            self._send(entry.item, replica)

    def _expire(self) -> None:
        for _ in self._queue.expire(self.now):
            self._refuse()

    def _refuse(self) -> None:
        self._refused += 1
        self._missed += 1
        self._left -= 1

    def _lost(self, jobs: list[Job]) -> None:
        for job in jobs:
            if job.tries >= self.scenario.tries:
                self._refuse()
            else:
                self._resent += 1
                self._dispatch(job)

    # ------------------------------------------------------------ measuring

    def _waiting(self) -> int:
        return len(self._queue)

    def _sample(self) -> None:
        self._expire()
        in_flight = sum(replica.in_flight for replica in self._replicas)
        self.meter.close(in_flight, len(self._queue), len(self._serving))

"""One simulated Triton: a queue, instances that execute batches of it, and what a router keeps of it."""

from collections import deque
from dataclasses import dataclass

from tritonfleet.core.cost import Attribution, Pace
from tritonfleet.simulate.workload import Request


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way."""

    request: Request
    cost_s: float = 0.0  # what the router expected
    sent_at: float = 0.0
    tries: int = 0
    batch: int = 1  # requests that were executed with it
    queued_s: float = 0.0


class Replica:
    """``ready_at`` None: it still loads."""

    def __init__(self, number: int, launched_at: float) -> None:
        self.number, self.launched_at = number, launched_at
        self.ready_at: float | None = None
        self.cold_start_s: float | None = None
        self.leaving = self.gone = False
        self.failures = 0
        self.waiting: deque[Job] = deque()
        self.running: list[list[Job]] = []
        self.work_s = 0.0
        self.progress_at = 0.0
        self.in_flight = 0
        self._pace = Pace()
        self.attribution = Attribution()

    @property
    def pace(self) -> float:
        return self._pace.value

    @property
    def serves(self) -> bool:
        return self.ready_at is not None and not self.leaving

    def take(self, job: Job, now: float) -> None:
        job.sent_at = now
        job.tries += 1
        self.waiting.append(job)
        if not self.in_flight:
            self.progress_at = now
        self.in_flight += 1
        self.work_s += job.cost_s

    def begin(self, now: float, instances: int, most: int) -> list[Job]:
        """The next batch, if an instance is free and something waits."""
        if not self.waiting or len(self.running) >= instances:
            return []
        batch = [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]
        for job in batch:
            job.batch, job.queued_s = len(batch), now - job.sent_at
        self.running.append(batch)
        return batch

    def runs(self, batch: list[Job]) -> bool:
        """Whether it is this very execution: the same requests may have come back after the replica died."""
        return any(one is batch for one in self.running)

    def end(self, batch: list[Job], now: float) -> None:
        self.progress_at = now
        self.running = [one for one in self.running if one is not batch]
        self.in_flight -= len(batch)
        self.work_s -= sum(job.cost_s for job in batch)

    def lose_all(self) -> list[Job]:
        """It has died: what it held. It loads again."""
        lost = [job for batch in self.running for job in batch] + list(self.waiting)
        self.running, self.in_flight, self.work_s = [], 0, 0.0
        self.waiting.clear()
        self.ready_at = None
        self.attribution = Attribution()
        return lost

    def learn(self, expected_s: float, measured_s: float) -> None:
        self._pace.learn(expected_s, measured_s)

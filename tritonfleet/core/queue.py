"""Requests that wait in the router for a replica with room (late binding).

A replica is given no more than it can batch; the rest waits here, where the next free replica takes the
most urgent one, whichever replica that is. Put in: the request with its priority, deadline, expected cost
and time of arrival. Comes out: who is next, who has waited past the deadline, who should be refused at once
and why. Pure: `now` is passed in, the same clock for deadlines and arrivals, in seconds.

One queue holds the requests that the same replicas can serve, so that its head never has to wait for the
sake of one behind it: one per model.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, Literal, NamedTuple, TypeVar

T = TypeVar("T")

Order = Literal["fifo", "shortest"]

LOWEST = 1 << 64  # rank of priority 0; Triton's priorities are uint64
NO_DEADLINE_S = 60.0  # a request without a deadline is as urgent as one that has a minute
SWEEP_FROM = 64  # removed entries, from which on they are swept out once they are the majority


class Waiting(Generic[T]):
    """One request in the queue; the handle to take it out again."""

    __slots__ = ("arrived_at", "cost_s", "deadline", "gone", "item", "rank", "turn")

    def __init__(
        self, item: T, rank: int, deadline: float, arrived_at: float, cost_s: float, turn: int
    ) -> None:
        self.item = item
        self.rank = rank
        self.deadline = deadline
        """When its client stops waiting; inf if never."""
        self.arrived_at = arrived_at
        self.cost_s = cost_s
        self.turn = turn
        self.gone = False

    def __repr__(self) -> str:
        priority = 0 if self.rank == LOWEST else self.rank
        return (
            f"<Waiting {self.item!r} priority={priority} deadline={self.deadline:g} cost={self.cost_s:g} s>"
        )


class Key(NamedTuple):
    """Order within one priority; ``turn`` differs for any two, so that entries are never compared."""

    urgency: float
    turn: int


class _Level(Generic[T]):
    """The requests of one priority: by urgency, and by arrival."""

    __slots__ = ("arrivals", "count", "heap", "work_s")

    def __init__(self) -> None:
        self.heap: list[tuple[Key, Waiting[T]]] = []
        self.arrivals: deque[Waiting[T]] = deque()
        self.count = 0
        self.work_s = 0.0

    def sweep(self) -> None:
        """Forget removed entries, once they are most of what is kept."""
        if len(self.heap) - self.count > max(SWEEP_FROM, self.count):
            self.heap = [pair for pair in self.heap if not pair[1].gone]
            heapify(self.heap)
        if len(self.arrivals) - self.count > max(SWEEP_FROM, self.count):
            self.arrivals = deque(entry for entry in self.arrivals if not entry.gone)


class WaitingQueue(Generic[T]):
    """Bounded; ordered by priority, then deadline, then arrival.

    Priorities are Triton's (`ModelDynamicBatching.priority_levels`): 1 is the highest, and 0, "not given",
    the lowest, which holds whatever levels the model has. A higher one always goes first, as in Triton.

    ``order="shortest"`` puts the expected cost before the deadline (shortest job first, the least mean
    wait); a request that has waited ``max_age_s`` goes before all of its priority, in order of arrival.
    """

    def __init__(self, capacity: int, order: Order = "fifo", max_age_s: float = 1.0) -> None:
        self.capacity = capacity
        self.order = order
        self.max_age_s = max_age_s
        self._levels: dict[int, _Level[T]] = {}  # none of them is empty
        self._ranks: list[int] = []  # those of _levels, ascending
        self._deadlines: list[tuple[float, int, Waiting[T]]] = []  # heap of the finite ones
        self._turn = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def work_s(self) -> float:
        """Expected seconds of all that waits."""
        return sum(level.work_s for level in self._levels.values())

    def push(
        self, item: T, now: float, *, priority: int = 0, deadline: float = inf, cost_s: float = 0.0
    ) -> Waiting[T] | None:
        """Let ``item`` wait; None, and nothing is changed, if the queue is full."""
        if self._count >= self.capacity:
            return None
        rank = priority or LOWEST
        level = self._levels.get(rank)
        if level is None:
            level = self._levels[rank] = _Level()
            self._ranks = sorted(self._levels)
        turn = self._turn = self._turn + 1
        entry = Waiting(item, rank, deadline, now, cost_s, turn)
        urgency = cost_s if self.order == "shortest" else min(deadline, now + NO_DEADLINE_S)
        heappush(level.heap, (Key(urgency, turn), entry))
        if self.order == "shortest":
            level.arrivals.append(entry)
        if deadline != inf:
            heappush(self._deadlines, (deadline, turn, entry))
        level.count += 1
        level.work_s += cost_s
        self._count += 1
        return entry

    def pop(self, now: float) -> T | None:
        """Take out who is next; None if nobody waits. Those past their deadline are `expire`'s."""
        entry = self._next(now)
        if entry is None:
            return None
        self._leave(entry)
        return entry.item

    def peek(self, now: float) -> Waiting[T] | None:
        """Who is next, without taking it out: to ask whether it may go, so that it keeps its place if not."""
        return self._next(now)

    def remove(self, entry: Waiting[T]) -> bool:
        """Take out one that gave up; False if it had left already."""
        if entry.gone:
            return False
        self._leave(entry)
        return True

    def expire(self, now: float) -> list[T]:
        """Take out those whose deadline has come, the longest past first."""
        expired: list[T] = []
        heap = self._deadlines
        while heap and (heap[0][0] <= now or heap[0][2].gone):
            entry = heappop(heap)[2]
            if not entry.gone:
                self._leave(entry)
                expired.append(entry.item)
        return expired

    def next_deadline(self) -> float:
        """When `expire` has something to do again; inf if never."""
        heap = self._deadlines
        while heap and heap[0][2].gone:
            heappop(heap)
        return heap[0][0] if heap else inf

    def work_ahead_s(self, priority: int = 0) -> float:
        """Expected seconds of what would go before a request of this priority, if it came last of it."""
        rank = priority or LOWEST
        return sum(level.work_s for other, level in self._levels.items() if other <= rank)

    def _next(self, now: float) -> Waiting[T] | None:
        if not self._ranks:
            return None
        level = self._levels[self._ranks[0]]
        overdue = self._overdue(level, now)
        if overdue is not None:
            return overdue
        heap = level.heap
        while heap[0][1].gone:  # ends, since a level is never empty
            heappop(heap)
        return heap[0][1]

    def _overdue(self, level: _Level[T], now: float) -> Waiting[T] | None:
        arrivals = level.arrivals
        while arrivals and arrivals[0].gone:
            arrivals.popleft()
        return arrivals[0] if arrivals and now - arrivals[0].arrived_at >= self.max_age_s else None

    def _leave(self, entry: Waiting[T]) -> None:
        entry.gone = True
        level = self._levels[entry.rank]
        level.count -= 1
        level.work_s -= entry.cost_s
        self._count -= 1
        if not level.count:  # a fresh start: priorities come from clients, and sums collect rounding
            del self._levels[entry.rank]
            self._ranks = sorted(self._levels)
        else:
            level.sweep()
        if len(self._deadlines) > 2 * self._count + SWEEP_FROM:
            self._deadlines = [triple for triple in self._deadlines if not triple[2].gone]
            heapify(self._deadlines)

    def __repr__(self) -> str:
        return f"<WaitingQueue {self._count} of {self.capacity}, {self.order}, {self.work_s:.3g} s of work>"


def expected_wait_s(work_ahead_s: float, replicas: float) -> float:
    """Seconds until a replica is free for the next request, with ``work_ahead_s`` before it, sent out and
    waiting together; inf without replicas. ``replicas`` counts each by its speed (1 / pace). A fluid
    estimate: work is finished at the rate of all replicas together."""
    return work_ahead_s / replicas if replicas > 0 else inf


def hopeless(now: float, deadline: float, wait_s: float, cost_s: float) -> bool:
    """Whether a request would not be answered in time, if it waits and costs what is expected."""
    return now + wait_s + cost_s > deadline


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is turned away at once, and after how many seconds to come again."""

    reason: str
    pushback_s: float


def refusal(
    queue: WaitingQueue[T],
    model: str,
    now: float,
    *,
    sent_out_s: float,
    replicas: float,
    priority: int = 0,
    deadline: float = inf,
    cost_s: float = 0.0,
    beside: int = 0,
) -> Refusal | None:
    """Whether a request should not wait: the queue is full, or its deadline would pass first.

    ``sent_out_s`` is the expected work on the replicas now; ``beside``: how many wait for the model in other
    queues, which its capacity leaves out; the rest as in `expected_wait_s` and `WaitingQueue.push`. A queue
    that is full offers room again when one request of it has gone; a deadline that is too short has to be
    longer, or to meet an emptier queue, by as much as it was missed.
    """
    if len(queue) >= queue.capacity:
        drained_s = expected_wait_s(queue.work_s, replicas)
        known = 0.0 < drained_s < inf  # 0: of requests of which nothing is known yet
        work = f", about {_seconds(drained_s)} of work" if drained_s else ""
        return Refusal(
            f"model '{model}': the router's queue is full, {len(queue) + beside} requests wait for "
            f"{_count(replicas)}{work} (router.queue.max_requests)",
            max(drained_s / max(len(queue), 1), 0.001) if known else 0.1,
        )
    wait_s = expected_wait_s(sent_out_s + queue.work_ahead_s(priority), replicas)
    if wait_s == inf or not hopeless(now, deadline, wait_s, cost_s):
        return None
    left_s = deadline - now
    return Refusal(
        f"model '{model}': the deadline is {_seconds(left_s)} away, but the expected wait is "
        f"{_seconds(wait_s)} ({len(queue)} in the queue, {_count(replicas)}) "
        f"and the service {_seconds(cost_s)}",
        wait_s + cost_s - left_s,
    )


def _seconds(seconds: float) -> str:
    if seconds == inf:
        return "an unknown time"
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _count(replicas: float) -> str:
    return "1 replica" if replicas == 1 else f"{replicas:.3g} replicas"

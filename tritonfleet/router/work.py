"""What requests cost and where they wait: the dispatcher's half of `core.cost` and `core.queue`.

Per model there is a cost model, which learns from every answer, and, while more is asked than the replicas
can usefully batch, a queue. A replica's `slots` for a model say how much that is; beyond them a request is
kept here and given to the first replica with room ("late binding"), in the order that `core.queue` says.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from tritonfleet.core.cost import CostModel
from tritonfleet.core.queue import WaitingQueue, refusal
from tritonfleet.core.wire import RouterSettings
from tritonfleet.router import peek
from tritonfleet.router.call import Call, Leg
from tritonfleet.router.grpc import Status

if TYPE_CHECKING:
    from tritonfleet.router.replica import Replica

PACE_FROM_S = 0.002  # what shorter requests take says more of the host's scheduler than of the replica
MOST_MODELS = 4096  # names come from clients: do not let them fill memory


class ModelWork:
    """One model's cost and queue."""

    __slots__ = ("cost", "queue")

    def __init__(self) -> None:
        self.cost = CostModel()
        self.queue: WaitingQueue[Call] | None = None


class Work:
    """All models' costs and queues. ``refuse(call, status, message, pushback_s)`` ends a call."""

    def __init__(self, refuse: Callable[[Call, Status, str, float | None], None]) -> None:
        self.models: dict[str, ModelWork] = {}
        self.queued = 0
        self.max_requests = 1024  # that wait, per model
        self.max_wait_s = 30.0
        self.order: str = "fifo"
        self.asleep: dict[str, float] = {}  # models no replica serves until a request wakes one, and how long
        self._woken_at: dict[str, float] = {}  # what was waited for a cold start is no part of max_wait_s
        self._refuse = refuse

    def configure(self, settings: RouterSettings) -> None:
        """Queues that exist keep what waits in them, and their order; a new limit holds at once."""
        self.max_requests, self.max_wait_s = settings.max_requests, settings.max_wait_s
        self.order = settings.order
        for work in self.models.values():
            if work.queue is not None:
                work.queue.capacity = self.max_requests

    def sleep(self, asleep: dict[str, float], now: float) -> None:
        """A newer table's models without a replica; those that have one again are awake from ``now``."""
        self._woken_at |= dict.fromkeys(self.asleep.keys() - asleep.keys(), now)
        self.asleep = asleep

    def of(self, model: str) -> ModelWork:
        found = self.models.get(model)
        if found is None:
            found = ModelWork()
            if len(self.models) < MOST_MODELS:
                self.models[model] = found
        return found

    # ------------------------------------------------------------ learning

    def answered(self, leg: Leg, model: str, now: float, *, ok: bool) -> None:
        """A unary inference has ended on a replica: what it and those beside it took is learned."""
        stats = leg.stats
        if not ok:
            stats.attribution.interrupt(now)
            return
        shares = stats.attribution.finished(leg.size, leg.started, now)
        if shares:
            cost, pace = self.of(model).cost, leg.replica.paces
            for size, seconds in shares:
                expected_s = cost.estimate(size)
                if expected_s >= PACE_FROM_S and cost.knows(size):
                    pace.learn(expected_s, seconds)
                cost.learn(size, seconds)
            leg.replica.pace = pace.value

    # ------------------------------------------------------------ waiting

    def wait(self, call: Call, cost_s: float, candidates: list[Replica], now: float) -> None:
        """Put a call into its model's queue, or refuse it at once with the numbers that say why."""
        model = call.model or ""
        work = self.of(model)
        queue = work.queue
        if queue is None or (queue.order != self.order and not queue):
            order = "shortest" if self.order == "shortest" else "fifo"
            queue = work.queue = WaitingQueue(self.max_requests, order)  # type: ignore[arg-type] # one of the two
        priority = peek.peek_priority(peek.plain(call.held[0])) if call.held else 0
        deadline = call.deadline if call.deadline is not None else inf
        if call.queued_at is None:
            call.queued_at = now
            refused = refusal(
                queue,
                model,
                now,
                sent_out_s=sum(replica.work_s for replica in candidates),
                replicas=sum(1 / replica.pace for replica in candidates),
                priority=priority,
                deadline=deadline,
                cost_s=cost_s,
            )
            if refused is not None:
                self._refuse(call, Status.RESOURCE_EXHAUSTED, refused.reason, refused.pushback_s)
                return
        patience_s = max(self.max_wait_s, self.asleep.get(model, 0.0))
        deadline = min(deadline, max(call.queued_at, self._woken_at.get(model, 0.0)) + patience_s)
        call.entry = queue.push(call, call.queued_at, priority=priority, deadline=deadline, cost_s=cost_s)
        if call.entry is None:  # the queue was made smaller while this call was being placed
            self._refuse(
                call, Status.RESOURCE_EXHAUSTED, f"model {model!r}: the router's queue is full", None
            )
            return
        call.waiting = call.delayed = True
        self.queued += 1

    def leave(self, call: Call) -> None:
        """A waiting call gave up."""
        queue = self.of(call.model or "").queue
        if call.entry is not None and queue is not None and queue.remove(call.entry):
            self.queued -= 1
        call.entry = None
        call.waiting = False

    def next(self, model: str, now: float) -> Call | None:
        """Who goes next; nobody whose time is over."""
        queue = self.of(model).queue
        call = queue.pop(now) if queue else None
        if call is not None:
            self.queued -= 1
            call.entry = None
            call.waiting = False
        return call

    def waiting_for(self, model: str) -> int:
        found = self.models.get(model)
        return len(found.queue) if found is not None and found.queue is not None else 0

    def expire(self, now: float) -> None:
        """Refuse those who have waited too long, by their own deadline or by ours."""
        for model, work in self.models.items():
            for call in work.queue.expire(now) if work.queue is not None else ():
                self.queued -= 1
                call.entry = None
                call.waiting = False
                if call.deadline is not None and now >= call.deadline:
                    text = f"model {model!r}: the deadline passed while {len(work.queue or ())} others waited"
                    self._refuse(call, Status.DEADLINE_EXCEEDED, text, None)
                else:
                    waited = now - (now if call.queued_at is None else call.queued_at)
                    most = self.max_wait_s if waited < self.max_wait_s + 1.5 else round(waited)
                    text = f"model {model!r}: no replica had room within {most:g} s"
                    self._refuse(call, Status.UNAVAILABLE, text, None)

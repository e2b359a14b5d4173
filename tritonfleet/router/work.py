"""What requests cost and where they wait: the dispatcher's half of `core.cost` and `core.queue`.

Per model there is a cost model, which learns from every answer, and, while more is asked than the replicas
can usefully batch, a queue. A replica's `slots` for a model say how much that is; beyond them a request is
kept here and given to the first replica with room ("late binding"), in the order that `core.queue` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import TYPE_CHECKING

from tritonfleet.core.cost import GUESS_S, CostModel
from tritonfleet.core.histogram import Histogram
from tritonfleet.core.queue import WaitingQueue, refusal
from tritonfleet.core.wire import RouterSettings
from tritonfleet.router import peek
from tritonfleet.router.call import Call, Leg
from tritonfleet.router.grpc import Status

if TYPE_CHECKING:
    from tritonfleet.router.needs import Needs
    from tritonfleet.router.replica import Replica

PACE_FROM_S = 0.002  # what shorter requests take says more of the host's scheduler than of the replica
PRIOR_S = GUESS_S  # what a request costs of which nobody knows anything
MOST_STRANGERS = 64  # names of no model: they come from clients, and must not fill memory


class ModelWork:
    """One model's cost and queues: one for requests that any of its replicas can serve, and one for each kind
    of those that only some can (`needs.Needs`), so that nobody waits behind one that waits for less."""

    __slots__ = ("cost", "queues", "waits")

    def __init__(self, prior_s: float = PRIOR_S) -> None:
        self.cost = CostModel(prior_s)
        self.queues: dict[Needs | None, WaitingQueue[Call]] = {}
        self.waits = Histogram()  # of those that waited and were sent on

    @property
    def waiting(self) -> int:
        return sum(map(len, self.queues.values()))

    def turns(self, now: float) -> list[Needs | None]:
        """Whose head should be asked first, with the queues that have one."""
        heads = [(queue.peek(now), needs) for needs, queue in self.queues.items()]
        order = sorted(
            (head.rank, head.arrived_at, index) for index, (head, _) in enumerate(heads) if head is not None
        )
        return [heads[index][1] for _, _, index in order]


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
        self._priors: dict[str, float] = {}
        self._known: set[str] = set()  # models of the table
        self._refuse = refuse

    def configure(self, settings: RouterSettings) -> None:
        """Queues that exist keep what waits in them, and their order; a new limit holds at once."""
        self.max_requests, self.max_wait_s = settings.max_requests, settings.max_wait_s
        self.order = settings.order
        for work in self.models.values():
            for queue in work.queues.values():
                queue.capacity = self.max_requests

    def sleep(self, asleep: dict[str, float], now: float) -> None:
        """A newer table's models without a replica; those that have one again are awake from ``now``."""
        self._woken_at |= dict.fromkeys(self.asleep.keys() - asleep.keys(), now)
        self.asleep = asleep

    def know(self, models: Iterable[str]) -> None:
        """The models that replicas have; those that sleep or had a prior are known besides."""
        self._known = {*models, *self.asleep, *self._priors}

    def take_priors(self, priors: dict[str, float]) -> None:
        """What Triton has measured a model's requests to cost: until the first answer is learned from."""
        self._priors = priors
        for model, prior_s in priors.items():
            if model in self.models:
                self.models[model].cost.prior_s = prior_s

    def of(self, model: str) -> ModelWork:
        found = self.models.get(model)
        if found is None:
            found = ModelWork(self._priors.get(model, PRIOR_S))
            if model in self._known or len(self.models) < len(self._known) + MOST_STRANGERS:
                self.models[model] = found
        return found

    # ------------------------------------------------------------ learning

    def answered(self, leg: Leg, model: str, now: float, *, ok: bool) -> None:
        """A unary inference has ended on a replica: what it and those beside it took is learned."""
        stats = leg.stats
        if not ok:
            stats.attribution.interrupt(now)
            return
        stats.served += 1
        stats.expected_s += leg.cost_s
        shares = stats.attribution.finished(leg.size, leg.started, now)
        if shares:
            cost, pace = self.of(model).cost, leg.replica.paces
            for size, seconds in shares:
                expected_s = cost.estimate(size)
                if expected_s >= PACE_FROM_S and cost.knows(size):
                    pace.learn(expected_s, seconds)
                cost.learn(size, seconds)
            leg.replica.pace = max(pace.value, leg.replica.row.pace)

    # ------------------------------------------------------------ waiting

    def wait(self, call: Call, cost_s: float, candidates: list[Replica], now: float) -> None:
        """Put a call into its model's queue, or refuse it at once with the numbers that say why."""
        model = call.model or ""
        work = self.models[model] = self.of(model)  # who waits is for a model of the table: it has a place
        queue = work.queues.get(call.needs)
        if queue is None or (queue.order != self.order and not queue):
            order = "shortest" if self.order == "shortest" else "fifo"
            queue = work.queues[call.needs] = WaitingQueue(self.max_requests, order)  # type: ignore[arg-type] # one of the two
        queue.capacity = self.max_requests - (work.waiting - len(queue))
        priority = peek.peek_priority(peek.plain(call.held[0])) if call.held else 0
        deadline = call.deadline if call.deadline is not None else inf
        guess = work.cost.is_guess
        if guess:
            cost_s = 0.0  # who comes later is not to be refused for it
        if call.queued_at is None:
            call.queued_at = now
            refused = refusal(
                queue,
                model,
                now,
                sent_out_s=sum(replica.work_s for replica in candidates),
                replicas=sum(1 / replica.pace for replica in candidates),
                priority=priority,
                deadline=inf if guess else deadline,  # what was sent out is taken by a guess, too
                cost_s=cost_s,
                beside=work.waiting - len(queue),
            )
            if refused is not None:
                self._forget_empty(work, call.needs)
                self._refuse(call, Status.RESOURCE_EXHAUSTED, refused.reason, refused.pushback_s)
                return
        patience_s = max(self.max_wait_s, self.asleep.get(model, 0.0))
        deadline = min(deadline, max(call.queued_at, self._woken_at.get(model, 0.0)) + patience_s)
        call.entry = queue.push(call, call.queued_at, priority=priority, deadline=deadline, cost_s=cost_s)
        if call.entry is None:  # the queue was made smaller while this call was being placed
            self._forget_empty(work, call.needs)
            self._refuse(
                call, Status.RESOURCE_EXHAUSTED, f"model {model!r}: the router's queue is full", None
            )
            return
        call.waiting = call.delayed = True
        self.queued += 1

    def leave(self, call: Call) -> None:
        """A waiting call gave up."""
        work = self.of(call.model or "")
        queue = work.queues.get(call.needs)
        if call.entry is not None and queue is not None and queue.remove(call.entry):
            self._left(work, call)
        call.entry = None
        call.waiting = False

    def next(self, model: str, needs: Needs | None, now: float) -> Call | None:
        """Who goes next; nobody whose time is over."""
        work = self.of(model)
        queue = work.queues.get(needs)
        call = queue.pop(now) if queue else None
        if call is not None:
            self._left(work, call)
        return call

    def _left(self, work: ModelWork, call: Call) -> None:
        self.queued -= 1
        call.entry = None
        call.waiting = False
        self._forget_empty(work, call.needs)

    @staticmethod
    def _forget_empty(work: ModelWork, needs: Needs | None) -> None:
        """Versions come from clients: do not let them fill memory."""
        if needs is not None and not work.queues.get(needs):
            work.queues.pop(needs, None)

    def has_waited(self, call: Call, now: float) -> None:
        """It is sent to its first replica now."""
        if call.queued_at is not None and call.tries == 0:
            self.of(call.model or "").waits.record(now - call.queued_at)

    def waiting_for(self, model: str) -> int:
        found = self.models.get(model)
        return found.waiting if found is not None else 0

    def expire(self, now: float) -> None:
        """Refuse those who have waited too long, by their own deadline or by ours."""
        for model, work in self.models.items():
            for queue in list(work.queues.values()):
                for call in queue.expire(now):
                    self._left(work, call)
                    self._tell_expired(call, model, work.waiting, now)

    def _tell_expired(self, call: Call, model: str, others: int, now: float) -> None:
        if call.deadline is not None and now >= call.deadline:
            text = f"model {model!r}: the deadline passed while {others} others waited"
            self._refuse(call, Status.DEADLINE_EXCEEDED, text, None)
            return
        waited = now - (now if call.queued_at is None else call.queued_at)
        ours = waited < self.max_wait_s + 1.5  # else it waited for a pool to wake
        most = f"{self.max_wait_s:g} s (router.queue.max_wait)" if ours else f"{waited:.0f} s"
        text = f"model {model!r}: no replica had room within {most}"
        self._refuse(call, Status.UNAVAILABLE, text, None)

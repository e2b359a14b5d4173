"""The waiting queue: who is next, who gave up, who is refused."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tritonfleet.core.queue import (
    NO_DEADLINE_S,
    Order,
    Waiting,
    WaitingQueue,
    expected_wait_s,
    hopeless,
    refusal,
)


def drained(queue: WaitingQueue[str], now: float = 0.0) -> list[str]:
    items = []
    while (item := queue.pop(now)) is not None:
        items.append(item)
    return items


def test_first_come_first_served() -> None:
    queue: WaitingQueue[str] = WaitingQueue(10)
    for index, name in enumerate("abc"):
        queue.push(name, float(index), cost_s=3.0 - index)
    assert drained(queue) == ["a", "b", "c"]
    assert queue.pop(0.0) is None


def test_to_peek_keeps_its_place() -> None:
    queue: WaitingQueue[str] = WaitingQueue(10)
    assert queue.peek(0.0) is None
    queue.push("a", 0.0)
    queue.push("b", 0.0)
    entry = queue.peek(0.0)
    assert entry is not None
    assert (entry.item, len(queue)) == ("a", 2)
    assert queue.remove(entry)
    assert drained(queue) == ["b"]


def test_priority_then_deadline_then_arrival() -> None:
    queue: WaitingQueue[str] = WaitingQueue(10)
    queue.push("given none, first", 0.0)
    queue.push("lowest", 1.0, priority=0, deadline=5.0)
    queue.push("second level, later", 2.0, priority=2)
    queue.push("second level, urgent", 3.0, priority=2, deadline=9.0)
    queue.push("highest", 4.0, priority=1)
    queue.push("given none, second", 4.0)
    assert drained(queue) == [
        "highest", "second level, urgent", "second level, later", "lowest", "given none, first",
        "given none, second",
    ]  # fmt: skip


def test_a_request_without_a_deadline_is_not_passed_by_for_ever() -> None:
    queue: WaitingQueue[str] = WaitingQueue(10)
    queue.push("patient", 0.0)
    queue.push("later, with a deadline", NO_DEADLINE_S, deadline=NO_DEADLINE_S + 1)
    assert queue.pop(NO_DEADLINE_S) == "patient"


def test_shortest_first() -> None:
    queue: WaitingQueue[str] = WaitingQueue(10, order="shortest")
    for name, cost_s in (("long", 2.0), ("short", 0.1), ("middle", 1.0), ("short too", 0.1)):
        queue.push(name, 0.0, cost_s=cost_s)
    assert drained(queue) == ["short", "short too", "middle", "long"]


def test_shortest_first_does_not_starve_the_long() -> None:
    queue: WaitingQueue[str] = WaitingQueue(10, order="shortest", max_age_s=1.0)
    queue.push("long", 0.0, cost_s=10.0)
    served = []
    for step in range(20):
        now = step / 10
        queue.push(f"short {step}", now, cost_s=0.1)
        served.append(queue.pop(now))
    assert served.index("long") == 10, "at the age of one second it goes first"


def test_a_full_queue_takes_nothing() -> None:
    queue: WaitingQueue[str] = WaitingQueue(2)
    assert queue.push("a", 0.0) is not None
    assert queue.push("b", 0.0) is not None
    assert queue.push("c", 0.0, priority=1) is None
    assert (len(queue), repr(queue)) == (2, "<WaitingQueue 2 of 2, fifo, 0 s of work>")
    queue.pop(0.0)
    assert queue.push("c", 0.0, priority=1) is not None


def test_one_that_gave_up_is_not_served() -> None:
    queue: WaitingQueue[str] = WaitingQueue(10)
    entry = queue.push("a", 0.0, cost_s=1.0)
    queue.push("b", 0.0, cost_s=2.0)
    assert entry is not None
    assert repr(entry) == "<Waiting 'a' priority=0 deadline=inf cost=1 s>"
    assert queue.remove(entry)
    assert not queue.remove(entry)
    assert queue.work_s == pytest.approx(2.0)
    assert drained(queue) == ["b"]


def test_those_past_their_deadline_are_taken_out() -> None:
    queue: WaitingQueue[str] = WaitingQueue(10)
    queue.push("later", 0.0, deadline=3.0)
    queue.push("soon", 0.0, deadline=1.0, priority=1)
    queue.push("whenever", 0.0)
    assert queue.next_deadline() == 1.0
    assert queue.expire(0.9) == []
    assert queue.expire(1.0) == ["soon"]
    assert queue.next_deadline() == 3.0
    assert queue.expire(10.0) == ["later"]
    assert queue.next_deadline() == inf
    assert drained(queue) == ["whenever"]


def test_work_ahead_is_that_of_its_priority_and_above() -> None:
    queue: WaitingQueue[str] = WaitingQueue(10)
    queue.push("a", 0.0, priority=1, cost_s=1.0)
    queue.push("b", 0.0, priority=2, cost_s=2.0)
    queue.push("c", 0.0, cost_s=4.0)
    assert [queue.work_ahead_s(priority) for priority in (1, 2, 3, 0)] == [1.0, 3.0, 3.0, 7.0]


def test_expected_wait_and_hopeless() -> None:
    assert expected_wait_s(6.0, 4) == 1.5
    assert expected_wait_s(6.0, 0) == inf
    assert not hopeless(now=10.0, deadline=12.0, wait_s=1.5, cost_s=0.5)
    assert hopeless(now=10.0, deadline=12.0, wait_s=1.5, cost_s=0.6)
    assert not hopeless(now=10.0, deadline=inf, wait_s=1e9, cost_s=0.6)


def test_a_full_queue_refuses_with_numbers() -> None:
    queue: WaitingQueue[str] = WaitingQueue(2)
    queue.push("a", 0.0, cost_s=3.0)
    assert refusal(queue, "m", 0.0, sent_out_s=1.0, replicas=4) is None
    queue.push("b", 0.0, cost_s=5.0)
    refused = refusal(queue, "m", 0.0, sent_out_s=1.0, replicas=4)
    assert refused is not None
    assert refused.reason == (
        "model 'm': the router's queue is full, 2 requests wait for 4 replicas, about 2.0 s of work "
        "(router.queue.max_requests)"
    )
    assert refused.pushback_s == 1.0


def test_a_hopeless_deadline_is_refused_with_numbers() -> None:
    queue: WaitingQueue[str] = WaitingQueue(10)
    queue.push("a", 0.0, cost_s=3.0)
    request = {"sent_out_s": 1.0, "replicas": 2, "cost_s": 0.1}
    assert refusal(queue, "m", 0.0, deadline=2.2, **request) is None
    refused = refusal(queue, "m", 0.0, deadline=1.5, **request)
    assert refused is not None
    assert refused.reason == (
        "model 'm': the deadline is 1.5 s away, but the expected wait is 2.0 s "
        "(1 in the queue, 2 replicas) and the service 100 ms"
    )
    assert refused.pushback_s == pytest.approx(0.6)
    assert refusal(queue, "m", 0.0, deadline=1.5, priority=1, **request) is None, "it would go first"


@pytest.mark.parametrize("order", ["fifo", "shortest"])
def test_requests_that_give_up_leave_no_memory(order: Order) -> None:
    queue: WaitingQueue[int] = WaitingQueue(100, order=order)
    queue.push(-1, 0.0, cost_s=9.0)
    for item in range(5000):
        entry = queue.push(item, 0.0, cost_s=1.0, deadline=item + 10.0)
        assert entry is not None
        queue.remove(entry)
    [level] = queue._levels.values()
    assert max(len(level.heap), len(level.arrivals), len(queue._deadlines)) < 300


class Conversation(RuleBasedStateMachine):
    """The queue beside a plain list that is searched in full for every question."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue: WaitingQueue[int] = WaitingQueue(12, self.order, max_age_s=2.0)
        self.kept: list[Waiting[int]] = []
        self.pushed = 0

    order: Order = "fifo"

    @rule(seconds=st.floats(0, 1))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        priority=st.integers(0, 3),
        deadline=st.one_of(st.just(inf), st.floats(0.1, 3)),
        cost_s=st.sampled_from([0.0, 0.25, 0.5, 2.0]),
    )
    def push(self, priority: int, deadline: float, cost_s: float) -> None:
        self.pushed += 1
        entry = self.queue.push(
            self.pushed, self.now, priority=priority, deadline=self.now + deadline, cost_s=cost_s
        )
        assert (entry is None) == (len(self.kept) == 12)
        if entry is not None:
            self.kept.append(entry)

    @rule()
    def pop(self) -> None:
        expected = self.next()
        assert self.queue.peek(self.now) is expected
        item = self.queue.pop(self.now)
        assert item == (None if expected is None else expected.item)
        if expected is not None:
            self.kept.remove(expected)

    def next(self) -> Waiting[int] | None:
        if not self.kept:
            return None
        highest = min(entry.rank for entry in self.kept)
        level = [entry for entry in self.kept if entry.rank == highest]
        if self.order == "fifo":
            return min(level, key=lambda e: (min(e.deadline, e.arrived_at + NO_DEADLINE_S), e.turn))
        overdue = [entry for entry in level if self.now - entry.arrived_at >= 2.0]
        return overdue[0] if overdue else min(level, key=lambda entry: (entry.cost_s, entry.turn))

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.kept))
        assert self.queue.remove(entry)
        self.kept.remove(entry)

    @rule()
    def expire(self) -> None:
        past = [entry for entry in self.kept if entry.deadline <= self.now]
        assert self.queue.expire(self.now) == [
            entry.item for entry in sorted(past, key=lambda entry: (entry.deadline, entry.turn))
        ]
        self.kept = [entry for entry in self.kept if entry.deadline > self.now]

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.queue) == len(self.kept)
        assert self.queue.work_s == pytest.approx(sum(entry.cost_s for entry in self.kept))
        assert self.queue.next_deadline() == min((entry.deadline for entry in self.kept), default=inf)


class ShortestConversation(Conversation):
    order: Order = "shortest"


TestConversation = Conversation.TestCase
TestShortestConversation = ShortestConversation.TestCase


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=40))
def test_with_aging_nobody_waits_longer_than_the_age_and_those_before_it(costs: list[float]) -> None:
    """One server, everything arrives at once in order: an overdue request is passed by none that came
    after it."""
    queue: WaitingQueue[int] = WaitingQueue(100, "shortest", max_age_s=1.0)
    for index, cost_s in enumerate(costs):
        queue.push(index, 0.0, cost_s=cost_s)
    now, left = 0.0, set(range(len(costs)))
    while (item := queue.pop(now)) is not None:
        if now >= 1.0:
            assert item == min(left)
        left.remove(item)
        now += costs[item]
    assert not left

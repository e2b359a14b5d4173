"""Sizes by the clock: when a window counts, what it may do, and what bounds it."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.core.autoscale import COLD_START_S, LEAD_MARGIN_S, Decision, Memory, Policy, decide
from tritonfleet.core.schedule import Opening, opened
from tritonfleet.core.signals import Signal, Signals, Window

NOW = 10_000.0
OPENING = Opening('"0 8 * * *" (UTC)', 4, NOW + 100, NOW + 3700)
POLICY = Policy(1, 8, forecast=False, schedule=(OPENING,))
IDLE = Window(
    15.0, Signal(0.0, 1.0), Signal(0.0, 1.0), None, Signal(0.0, 1.0), Signal(0.0, 1.0), Signal(0.0, 1.0),
    Signal(0.0, 1.0), Signal(0.0, 1.0), Signal(0.0, 1.0),
)  # fmt: skip


def at(now: float, size: int, policy: Policy = POLICY, *, cold_s: float | None = 40.0) -> Decision:
    seen = Signals(size, cold_start_s=cold_s, stable=IDLE, fast=IDLE)
    return decide(policy, seen, Memory(size, since=0.0, at=now - 2, asked=((now - 2, 1),)), now)


def test_a_window_counts_from_a_cold_start_before_it_begins_to_its_end() -> None:
    assert opened([OPENING], 40, NOW + 59) is None
    assert opened([OPENING], 40, NOW + 60) == OPENING
    assert opened([OPENING], 40, NOW + 3699) == OPENING
    assert opened([OPENING], 40, NOW + 3700) is None


def test_of_several_the_largest_minimum_decides() -> None:
    night = replace(OPENING, name="night", minimum=2)
    assert opened([night, OPENING], 0, NOW + 200) == OPENING


def test_replicas_start_so_early_that_they_are_ready_when_it_begins() -> None:
    assert at(OPENING.starts_at - 40 - LEAD_MARGIN_S - 1, 1).count == 1
    decision = at(OPENING.starts_at - 40, 1)
    assert decision.count == decision.memory.size == 4
    assert decision.reason == (
        '1 → 4: schedule "0 8 * * *" (UTC) has at least 4 in 40 s, and a replica takes 40 s to start'
    )


def test_a_cold_start_that_nobody_measured_is_assumed_and_one_that_was_is_remembered() -> None:
    assert at(OPENING.starts_at - COLD_START_S - 1, 1, cold_s=None).count == 4
    memory = replace(at(NOW, 1, cold_s=90.0).memory, at=NOW)
    assert memory.cold_start_s == 90.0
    assert decide(POLICY, Signals(0), memory, NOW + 10).count == 4  # 90 s ahead, with no replica to ask


def test_it_needs_no_signals() -> None:
    decision = decide(POLICY, Signals(0), Memory(1, at=NOW), OPENING.starts_at + 1)
    assert decision.count == 4
    assert "59 min" in decision.reason


def test_nothing_shrinks_below_it_and_all_is_as_ever_afterwards() -> None:
    policy = replace(POLICY, stabilization_s=1.0)
    during = at(OPENING.starts_at + 600, 4, policy)
    assert (during.count, during.memory.size) == (4, 4)
    assert "4 held: schedule" in during.reason
    assert at(OPENING.starts_at + 600, 5, policy).count == 4
    assert at(OPENING.ends_at, 4, policy).count == 3


def test_the_load_may_ask_for_more() -> None:
    busy = replace(IDLE, work=Signal(4.5, 1.0))
    decision = decide(POLICY, Signals(4, stable=busy, fast=busy), Memory(4, at=NOW), OPENING.starts_at + 1)
    assert decision.count == 7
    assert "schedule" not in decision.reason


def test_the_bound_in_the_way_is_named() -> None:
    policy = replace(POLICY, maximum=3)
    decision = at(OPENING.starts_at, 1, policy)
    assert (decision.count, decision.clipped) == (3, "replicas.max is 3")
    assert "not 4, because replicas.max is 3" in decision.reason
    assert "not 4, because replicas.max is 3" in at(OPENING.starts_at, 3, policy).reason
    crowded = replace(Signals(1, stable=IDLE, fast=IDLE), room=2)
    decision = decide(POLICY, crowded, Memory(1, at=NOW), OPENING.starts_at)
    assert (decision.count, decision.clipped) == (2, "the devices hold 2")


@given(
    minimum=st.integers(0, 5),
    above=st.integers(0, 5),
    asked=st.integers(1, 12),
    size=st.integers(0, 12),
    room=st.none() | st.integers(0, 12),
)
def test_a_schedule_never_leaves_the_pools_bounds(
    minimum: int, above: int, asked: int, size: int, room: int | None
) -> None:
    maximum = max(minimum + above, 1)
    policy = Policy(minimum, maximum, forecast=False, schedule=(replace(OPENING, minimum=asked),))
    seen = Signals(size, room=room, stable=IDLE, fast=IDLE)
    assert minimum <= decide(policy, seen, Memory(size, at=NOW), OPENING.starts_at).count <= maximum


def test_a_request_wakes_a_pool_that_sleeps_and_only_that() -> None:
    asleep = Memory(0, since=0.0, at=NOW - 2)
    policy = Policy(0, 8, forecast=False)
    assert decide(policy, Signals(0), asleep, NOW).count == 0
    decision = decide(policy, Signals(0, wanted_by="digits"), asleep, NOW)
    assert (decision.count, decision.reason) == (1, "0 → 1: woken by a request for model digits")
    again = decide(policy, Signals(0, loading=1, wanted_by="digits"), decision.memory, NOW + 2)
    assert again.count == 1  # it is on its way
    idle = decide(policy, Signals(1, stable=IDLE, fast=IDLE), replace(again.memory, at=NOW + 100), NOW + 101)
    assert idle.count == 1  # and stays for the stabilization window
    crowded = decide(policy, Signals(0, room=0, wanted_by="digits"), asleep, NOW)
    assert (crowded.count, crowded.clipped) == (0, "the devices hold 0")


def test_no_pool_goes_to_sleep_because_signals_are_missing() -> None:
    memory = Memory(1, since=0.0, at=NOW - 2, asked=((NOW - 2, 0),))
    assert decide(Policy(0, 8, forecast=False), Signals(1), memory, NOW).count == 1

"""The routing policies."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.core.balance import POLICIES, LeastRequests, LeastWork, Policy, RoundRobin, late_bind


@dataclass
class Fake:
    name: str
    in_flight: int = 0
    work_s: float = 0.0
    pace: float = 1.0
    progress_at: float = 0.0


def fleet(*in_flight: int) -> list[Fake]:
    return [Fake(f"r{index}", count) for index, count in enumerate(in_flight)]


def test_round_robin_takes_each_in_turn_whatever_they_do() -> None:
    policy, candidates = RoundRobin(), fleet(9, 0, 0)
    picked = [policy.pick(candidates).name for _ in range(6)]
    assert Counter(picked) == {"r0": 2, "r1": 2, "r2": 2}
    assert picked[:3] == picked[3:]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=10), st.integers(0, 30))
def test_least_requests_picks_a_least_loaded_one(loads: list[int], earlier: int) -> None:
    policy, candidates = LeastRequests(), fleet(*loads)
    for _ in range(earlier):
        policy.pick(candidates)
    assert policy.pick(candidates).in_flight == min(loads)


def test_least_requests_spreads_over_an_idle_fleet() -> None:
    policy, candidates = LeastRequests(), fleet(0, 0, 0, 0)
    assert Counter(policy.pick(candidates).name for _ in range(40)) == dict.fromkeys(
        ("r0", "r1", "r2", "r3"), 10
    )


replicas = st.builds(Fake, st.just("r"), st.integers(0, 5), st.floats(0, 100), st.floats(0.1, 16))


@given(st.lists(replicas, min_size=1, max_size=16), st.floats(0, 100), st.integers(0, 30))
def test_least_work_picks_one_that_would_be_done_first(
    candidates: list[Fake], cost_s: float, earlier: int
) -> None:
    def done_s(replica: Fake) -> float:
        return ((replica.work_s if replica.in_flight else 0.0) + cost_s) * replica.pace

    policy = LeastWork()
    for _ in range(earlier):
        policy.pick(candidates, cost_s)
    picked = policy.pick(candidates, cost_s)
    first = min(done_s(replica) for replica in candidates)
    assert done_s(picked) == first
    tied = [replica.in_flight for replica in candidates if done_s(replica) == first]
    assert picked.in_flight == min(tied)


def test_least_work_prefers_three_short_requests_to_one_long() -> None:
    short, long = Fake("short", in_flight=3, work_s=0.03), Fake("long", in_flight=1, work_s=2.0)
    assert LeastWork().pick([long, short], 0.01) is short
    assert LeastRequests().pick([long, short], 0.01) is long


def test_least_work_counts_the_cost_at_the_replicas_own_pace() -> None:
    slow, busy = Fake("slow", pace=3.0), Fake("busy", in_flight=1, work_s=0.1)
    assert LeastWork().pick([slow, busy], 0.01).name == "slow"  # 0.03 s against 0.11 s
    assert LeastWork().pick([slow, busy], 0.20).name == "busy"  # 0.6 s against 0.3 s


def test_least_work_counts_what_has_been_done_of_the_oldest_request() -> None:
    nearly_done, begun = Fake("nearly done", 1, 0.10), Fake("begun", 1, 0.06, progress_at=0.08)
    policy = LeastWork()
    assert {policy.pick([nearly_done, begun], 0.01, 0.09).name for _ in range(4)} == {"nearly done"}
    assert {policy.pick([nearly_done, begun], 0.01).name for _ in range(4)} == {"begun"}  # without a clock


def test_a_replica_that_hangs_does_not_look_idle() -> None:
    """However long ago it last did anything: at most one average request of those it holds counts as done."""
    policy, hangs, works = LeastWork(), Fake("hangs", 3, 0.3), Fake("works", 1, 0.1, progress_at=1000.0)
    assert {policy.pick([hangs, works], 0.01, 1000.0).name for _ in range(4)} == {"works"}
    one, idle = Fake("hangs with one", 1, 0.1), Fake("idle")
    assert {policy.pick([one, idle], 0.01, 1000.0).name for _ in range(4)} == {"idle"}


def test_least_work_spreads_over_an_idle_fleet_whatever_rounding_left() -> None:
    policy = LeastWork()
    candidates = [Fake(f"r{index}", 0, index * 1e-18) for index in range(4)]
    assert Counter(policy.pick(candidates).name for _ in range(40)) == dict.fromkeys(
        ("r0", "r1", "r2", "r3"), 10
    )


def test_least_work_without_costs_is_least_requests_among_equals() -> None:
    policy, candidates = LeastWork(), [Fake("two", 2), Fake("one", 1), Fake("three", 3)]
    assert {policy.pick(candidates).name for _ in range(9)} == {"one"}


def has_room(replica: Fake) -> bool:
    return replica.in_flight < 2


def test_late_binding_waits_for_a_full_replica_that_is_done_sooner() -> None:
    full, long = Fake("full", in_flight=2, work_s=0.02), Fake("long", in_flight=1, work_s=2.0)
    assert late_bind(LeastWork(), [full, long], has_room, 0.01) is None
    full.in_flight = 1
    assert late_bind(LeastWork(), [full, long], has_room, 0.01) is full


def test_late_binding_takes_the_next_with_room_where_work_does_not_count() -> None:
    full, long = Fake("full", in_flight=2, work_s=0.02), Fake("long", in_flight=1, work_s=2.0)
    assert late_bind(RoundRobin(), [full, long], has_room) is long
    assert late_bind(LeastRequests(), [full, long], has_room) is long
    long.in_flight = 2
    assert late_bind(RoundRobin(), [full, long], has_room) is None
    assert late_bind(LeastRequests(), [full, long], has_room) is None


@given(st.lists(replicas, min_size=1, max_size=8), st.sampled_from(list(POLICIES.values())))
def test_while_one_of_equals_idles_late_binding_never_waits(
    candidates: list[Fake], policy: Callable[[], Policy]
) -> None:
    for candidate in candidates:
        candidate.pace = 1.0
    candidates[0].in_flight = 0
    picked = late_bind(policy(), candidates, has_room, 0.01)
    assert picked is not None
    assert has_room(picked)


@pytest.mark.parametrize("policy", POLICIES.values())
def test_a_policy_survives_a_fleet_that_shrinks(policy: Callable[[], Policy]) -> None:
    chooser, candidates = policy(), fleet(*range(8))
    for _ in range(7):
        chooser.pick(candidates)
    assert chooser.pick(candidates[:2]) in candidates[:2]


def test_policies_are_found_by_their_names() -> None:
    assert {name: policy.name for name, policy in POLICIES.items()} == {name: name for name in POLICIES}

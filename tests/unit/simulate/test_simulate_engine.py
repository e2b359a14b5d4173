"""The simulator against what queueing theory and common sense say."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from tritonfleet.core.autoscale import Policy
from tritonfleet.simulate.aggregate import aggregate
from tritonfleet.simulate.engine import simulate
from tritonfleet.simulate.flow import flow_of
from tritonfleet.simulate.replica import Job, Replica
from tritonfleet.simulate.result import Result, reversals
from tritonfleet.simulate.scalers import Fleet, Scaler, Static
from tritonfleet.simulate.scenario import Scenario
from tritonfleet.simulate.workload import Request, generated

ONE = Scenario(slo_s=1.0, initial=1)


def test_one_request_alone_takes_its_service_time() -> None:
    result = simulate(ONE, [Request(1.0, 10, 0.5)], Static(1))
    assert result.p99_s == pytest.approx(0.5, rel=0.07)  # a histogram's bucket
    assert (result.requests, result.missed, result.refused) == (1, 0, 0)
    assert result.replica_hours == pytest.approx(1.5 / 3600)


def test_a_batch_takes_its_longest_and_the_share_of_the_others() -> None:
    scenario = replace(ONE, batch=4, batch_share=0.25)
    requests = [Request(0.0, 10, 0.4)] + [Request(0.1, 10, 0.4)] * 4
    assert simulate(scenario, requests, Static(1)).duration_s == pytest.approx(0.4 + 0.4 + 0.25 * 3 * 0.4)


def test_the_mean_wait_of_a_queue_is_that_of_theory() -> None:
    """M/D/1, ρ = 0.7: L = ρ + ρ² / (2·(1 − ρ)) are in the system on average (Pollaczek and Khinchine)."""
    requests = generated("poisson", 7.0, 8000, 0.1, 0.0, seed=3)
    scenario = replace(ONE, queue_capacity=10**6, every_s=0.5)
    result = simulate(scenario, requests, Static(1))
    waiting = sum(point.waiting for point in result.timeline) / len(result.timeline)
    # The router holds what exceeds s at the replica: Σ (n−s)⁺·Pn = L − s + Σ_{n<s} (s−n)·Pn.
    rho, slots = 0.7, scenario.slots
    length = rho + rho**2 / (2 * (1 - rho))
    held = length - slots + sum((slots - n) * in_system(n, rho) for n in range(slots))
    assert waiting == pytest.approx(held, rel=0.15)


def play(scenario: Scenario, requests: list[Request], scaler: Scaler) -> Result:
    return simulate(scenario, requests, scaler)


def play_rates(scenario: Scenario, requests: list[Request], scaler: Scaler) -> Result:
    return aggregate(scenario, flow_of(requests), scaler)


def in_system(count: int, rho: float) -> float:
    """The probability of so many in an M/D/1 queue (Erlang 1909; Gross et al., *Fundamentals of Queueing
    Theory*, section 5.1)."""

    def term(k: int) -> float:
        left = count - k
        poisson = (k * rho) ** left / math.factorial(left)
        if left:
            poisson += (k * rho) ** (left - 1) / math.factorial(left - 1)
        return (-1) ** left * math.exp(k * rho) * poisson

    return (1 - rho) * sum(term(k) for k in range(count + 1))


def test_the_same_seed_gives_the_same_result() -> None:
    scenario = replace(ONE, maximum=8, mtbf_s=200.0, cold_start_s=10.0)

    def once(seed: int) -> object:
        requests = generated("step", 2.0, 300, 0.3, 0.5, seed)
        return simulate(replace(scenario, seed=seed), requests, Fleet(Policy(1, 8)))

    assert once(1) == once(1)
    assert once(1) != once(2)


def test_every_request_ends_once_though_replicas_die() -> None:
    scenario = replace(ONE, initial=3, cold_start_s=5.0, mtbf_s=20.0)
    requests = generated("poisson", 4.0, 400, 0.3, 0.5, seed=1)
    result = simulate(scenario, requests, Static(3))
    answered = result.requests - result.refused
    assert result.failures > 10
    assert result.resent > 0
    assert 0.9 * result.requests < answered <= result.requests


def test_one_that_is_killed_is_loaded_again_and_is_no_reason_to_grow() -> None:
    """1.1 replicas' worth of work on two, and one for the length of a cold start."""
    scenario = Scenario(slo_s=1.0, maximum=8, initial=2, kills_s=(600.0,), every_s=1.0)
    found = simulate(scenario, generated("poisson", 55.0, 800, 0.02, 0.5, seed=1), Fleet(Policy(1, 8)))
    assert (found.failures, found.refused, found.peak_replicas) == (1, 0, 2)
    assert sum(point.ready == 1 for point in found.timeline) == pytest.approx(45, abs=6)
    assert max(point.p99_s or 0.0 for point in found.timeline if point.at_s > 600) > 1.0


def test_a_spare_one_takes_the_place_of_one_that_dies() -> None:
    scenario = Scenario(slo_s=1.0, maximum=8, initial=3, kills_s=(600.0,))
    requests = generated("poisson", 55.0, 800, 0.02, 0.5, seed=1)
    assert simulate(scenario, requests, Fleet(Policy(1, 8, spare=1))).missed == 0


def test_max_inflight_is_what_a_replica_is_given() -> None:
    """Of six at once one is served; it is given that one only, all, or that one and three to wait there."""
    requests = [Request(0.1, 10, 5.0)] * 6

    def waiting(most: int | None) -> int:
        return simulate(replace(ONE, max_inflight=most, every_s=1.0), requests, Static(1)).timeline[0].waiting

    assert [waiting(most) for most in (1, 6, None)] == [5, 0, 2]


def test_a_lost_execution_does_not_end_the_one_that_repeats_it() -> None:
    replica, job = Replica(0, 0.0), Job(Request(0.0, 1, 9.0))
    replica.take(job, 0.0)
    first = replica.begin(0.0, 1, 1)
    assert replica.lose_all() == [job]
    assert not replica.runs(first)
    replica.take(job, 1.0)
    second = replica.begin(1.0, 1, 1)
    assert first == second
    assert (replica.runs(first), replica.runs(second)) == (False, True)


def test_without_replicas_requests_give_up() -> None:
    scenario = replace(ONE, minimum=0, initial=0)
    result = simulate(scenario, [Request(0.0, 1, 0.1), Request(1.0, 1, 0.1)], Static(0))
    assert (result.refused, result.missed, result.replica_hours) == (2, 2, 0.0)


@pytest.mark.parametrize("played", [play, play_rates], ids=["one by one", "by rates"])
def test_a_pool_that_sleeps_is_woken_and_goes_to_sleep_again(played: Callable[..., Result]) -> None:
    """Requests in the first minute and in the last: each time they wait for a cold start of 45 s."""
    scenario = Scenario(slo_s=90.0, minimum=0, initial=0, maximum=2)
    requests = [Request(at + second / 2, 10, 0.1) for at in (0.0, 1200.0) for second in range(120)]
    result = played(scenario, requests, Fleet(Policy(0, 2)))
    assert (result.requests, result.refused, result.missed) == (240, 0, 0)
    assert result.p99_s > 40.0
    ready = {round(point.at_s / 60): point.ready for point in result.timeline}
    assert (ready[1], ready[19], ready[21]) == (1, 0, 1)


def test_the_autoscaler_grows_with_a_step_and_shrinks_after_it() -> None:
    scenario = Scenario(slo_s=3.0, maximum=16, initial=2)
    requests = generated("step", 2.0, 3600, 0.5, 0.5, seed=1)
    result = simulate(scenario, requests, Fleet(Policy(1, 16)))
    sizes = {round(point.at_s / 60): point.size for point in result.timeline}
    assert sizes[40] >= 9  # 12 a second × 0.5 s ÷ 0.65
    assert sizes[59] <= 4
    assert result.missed_share < simulate(scenario, requests, Static(8)).missed_share + 0.05


def test_cold_start_is_paid_for_and_waited_for() -> None:
    scenario = Scenario(slo_s=1.0, maximum=4, initial=1, cold_start_s=30.0, cold_start_spread=0.0)
    requests = generated("poisson", 1.0, 200, 0.1, 0.0, seed=1)
    result = simulate(scenario, requests, Static(2))
    first_ready = next(point.at_s for point in result.timeline if point.ready == 2)
    assert first_ready == pytest.approx(60.0 + 30.0, abs=10.0)  # asked once a minute, then a cold start
    assert result.replica_hours * 3600 == pytest.approx(2 * result.duration_s - 60.0, abs=1.0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"initial": 9, "maximum": 4}, "initial 9"),
        ({"slo_s": 0.0}, "slo_s"),
        ({"max_inflight": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_simulated_is_refused(change: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(ONE, **change)


def test_no_requests_and_no_such_policy_are_refused() -> None:
    with pytest.raises(ValueError, match="no requests"):
        simulate(ONE, [], Static(1))
    with pytest.raises(ValueError, match="least_work"):
        simulate(replace(ONE, policy="best"), [Request(0, 1, 1)], Static(1))


def test_reversals_are_changes_of_direction() -> None:
    assert reversals([1, 2, 4, 3, 2, 5]) == 2
    assert reversals([1]) == 0

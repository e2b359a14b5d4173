"""The aggregated mode against the discrete one, and what it says by itself."""

import random
import statistics
from dataclasses import replace

import pytest

from tritonfleet.core.autoscale import Policy
from tritonfleet.simulate.aggregate import aggregate
from tritonfleet.simulate.engine import simulate
from tritonfleet.simulate.flow import flow_of, generated_flow, poisson
from tritonfleet.simulate.result import Result
from tritonfleet.simulate.scalers import Fleet, Static
from tritonfleet.simulate.scenario import Scenario
from tritonfleet.simulate.workload import Request, generated

BATCHED = {"batch": 8, "batch_share": 0.3}


def both(
    scenario: Scenario, shape: str, rate: float, seconds: float, mean_s: float, count: int | None
) -> tuple[Result, Result]:
    """The same load one by one and by its rates; ``count`` None: autoscaled, without the forecast: whether it
    has been the better of the two by the time of a step is chance, and not the same in both."""

    def scaler() -> Static | Fleet:
        return Static(count) if count else Fleet(Policy(1, 64, forecast=False))

    one_by_one = simulate(scenario, generated(shape, rate, seconds, mean_s, 0.5, 1), scaler())
    return one_by_one, aggregate(scenario, generated_flow(shape, rate, seconds, mean_s, 0.5), scaler())


@pytest.mark.parametrize(
    ("rate", "mean_s", "count", "more"),
    [
        (5.6, 0.5, 4, {}),
        (6.8, 0.5, 4, {}),
        (14.0, 0.5, 8, {}),
        (120.0, 0.05, 8, {}),
        (60.0, 0.05, 4, BATCHED),
    ],
)
def test_a_steady_load_waits_as_long_as_one_by_one(
    rate: float, mean_s: float, count: int, more: dict[str, float]
) -> None:
    scenario = Scenario(slo_s=6 * mean_s, initial=count, maximum=64, **more)  # type: ignore[arg-type] # mixed
    discrete, aggregated = both(scenario, "poisson", rate, 12_000 / rate, mean_s, count)
    assert aggregated.requests == pytest.approx(discrete.requests, rel=0.05)
    assert aggregated.p50_s == pytest.approx(discrete.p50_s, rel=0.15)
    assert aggregated.p99_s == pytest.approx(discrete.p99_s, rel=0.25)
    assert aggregated.missed_share == pytest.approx(discrete.missed_share, abs=0.005)
    assert aggregated.replica_hours == pytest.approx(discrete.replica_hours, rel=0.01)


@pytest.mark.parametrize(
    ("shape", "rate", "seconds", "mean_s"), [("step", 20.0, 1800.0, 0.05), ("step", 2.0, 3600.0, 0.5)]
)
def test_the_autoscaler_does_the_same_with_rates(
    shape: str, rate: float, seconds: float, mean_s: float
) -> None:
    discrete, aggregated = both(
        Scenario(slo_s=6 * mean_s, initial=2, maximum=64), shape, rate, seconds, mean_s, None
    )
    assert aggregated.missed_share == pytest.approx(discrete.missed_share, rel=0.25)
    assert aggregated.replica_hours == pytest.approx(discrete.replica_hours, rel=0.15)
    assert abs(aggregated.peak_replicas - discrete.peak_replicas) <= 0.15 * discrete.peak_replicas + 1


def test_the_same_seed_gives_the_same_result() -> None:
    scenario = Scenario(slo_s=1.0, maximum=8, mtbf_s=200.0, cold_start_s=10.0)

    def once(seed: int) -> Result:
        flow = generated_flow("step", 20.0, 300, 0.05, 0.5)
        return aggregate(replace(scenario, seed=seed), flow, Fleet(Policy(1, 8)))

    assert once(1) == once(1)
    assert once(1) != once(2)


def test_every_request_has_its_end_though_replicas_die() -> None:
    scenario = Scenario(slo_s=1.0, initial=3, cold_start_s=5.0, mtbf_s=30.0)
    result = aggregate(scenario, generated_flow("poisson", 20.0, 400, 0.05, 0.5), Static(3))
    assert result.failures > 10
    assert result.resent > 0
    assert result.refused < 0.1 * result.requests


def test_what_waits_too_long_or_is_too_much_is_refused() -> None:
    flow = generated_flow("poisson", 100.0, 60, 0.1, 0.0)  # ten times of what one replica does
    late = aggregate(Scenario(slo_s=1.0, queue_capacity=10**6, max_wait_s=5.0), flow, Static(1))
    assert late.refused == pytest.approx(0.9 * late.requests, rel=0.1)
    assert late.p99_s < 6.5
    full = aggregate(Scenario(slo_s=1.0, queue_capacity=100), flow, Static(1))
    assert full.refused == pytest.approx(0.9 * full.requests, rel=0.1)
    assert max(point.waiting for point in full.timeline) <= 100


def test_without_replicas_requests_give_up() -> None:
    scenario = Scenario(slo_s=1.0, minimum=0, initial=0, max_wait_s=10.0)
    result = aggregate(scenario, generated_flow("poisson", 10.0, 20, 0.1, 0.0), Static(0))
    assert result.refused == result.missed == result.requests > 100


def test_what_comes_in_the_last_half_second_counts() -> None:
    """… of a load that ends when something else happens, too: a decision, a point of the time line."""
    flow = flow_of([Request(at / 2, 1, 0.01) for at in range(40)])
    assert aggregate(Scenario(slo_s=1.0), flow, Fleet(Policy(1, 32))).requests == 40


def test_a_trace_comes_as_it_is() -> None:
    requests = [Request(0.1, 1, 0.2), Request(0.3, 1, 0.2), Request(7.0, 1, 0.4)]
    flow = flow_of(requests)
    assert (flow.bins, flow.mean_s) == (15, pytest.approx(0.8 / 3))
    result = aggregate(Scenario(slo_s=1.0), flow, Static(1))
    assert (result.requests, result.missed) == (3, 0)


@pytest.mark.parametrize("mean", [0.3, 12.0, 900.0])
def test_poisson_numbers_have_their_mean_and_variance(mean: float) -> None:
    draw = random.Random(1)
    found = [poisson(mean, draw) for _ in range(4000)]
    assert statistics.fmean(found) == pytest.approx(mean, rel=0.08)
    assert statistics.variance(found) == pytest.approx(mean, rel=0.12)

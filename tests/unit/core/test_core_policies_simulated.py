"""All policies against the central queue, the best that first-come-first-served can do.

Requests, their sizes and times are drawn from fixed seeds, so every number here is the same in every run.
"""

import random
from collections.abc import Callable
from functools import cache
from statistics import mean

import pytest
from fifo_replicas import (
    MEAN_S,
    Job,
    bimodal_times,
    central_queue,
    lognormal_times,
    percentile,
    poisson,
    simulate,
)

from tritonfleet.core.balance import LeastRequests, LeastWork, Policy, RoundRobin
from tritonfleet.core.cost import CostModel

REPLICAS = 4
LOAD = 0.85
REQUESTS = 20_000
WARM_UP = 1_000  # requests in which costs are learned and queues fill
SIZES: dict[str, Callable[[int, random.Random], list[float]]] = {
    "lognormal": lognormal_times,
    "bimodal": bimodal_times,
}


@cache
def jobs(sizes: str, noise: float = 0.2, series: str = "") -> tuple[Job, ...]:
    """Service times follow the sizes up to 20 %, as they do on real devices."""
    draw = random.Random(f"requests of {sizes} sizes{series}")
    return tuple(poisson(SIZES[sizes](REQUESTS, draw), REPLICAS, LOAD, draw, noise))


@cache
def optimum(sizes: str, series: str = "") -> float:
    return percentile(central_queue(jobs(sizes, series=series), REPLICAS), 99, WARM_UP)


def p99(
    sizes: str, policy: Policy, costs: CostModel | None = None, cap: int | None = None, series: str = ""
) -> float:
    """p99 latency as a multiple of the central queue's."""
    latencies = simulate(jobs(sizes, series=series), [1.0] * REPLICAS, policy, costs, cap)
    return percentile(latencies, 99, WARM_UP) / optimum(sizes, series)


SERIES = tuple(map(str, range(3)))


@pytest.mark.parametrize("sizes", SIZES)
def test_least_work_with_learned_costs_is_near_the_optimum(sizes: str) -> None:
    """Sent at once. On average: of a single series the p99 varies by a tenth, also with true costs."""
    assert mean(p99(sizes, LeastWork(), CostModel(), series=one) for one in SERIES) <= 1.10


@pytest.mark.parametrize("series", SERIES)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("cap", [2, 4])
def test_with_late_binding_it_is_the_optimum(sizes: str, series: str, cap: int) -> None:
    """As a fleet does it by default."""
    assert p99(sizes, LeastWork(), CostModel(), cap=cap, series=series) <= 1.05


@pytest.mark.parametrize("sizes", SIZES)
def test_the_others_are_worse(sizes: str) -> None:
    assert p99(sizes, LeastRequests()) > 1.18
    assert p99(sizes, RoundRobin()) > 2.0


def test_late_binding_helps_where_costs_are_unknown() -> None:
    assert p99("lognormal", LeastRequests(), cap=2) <= 1.15
    assert p99("lognormal", LeastRequests(), cap=2) < 0.9 * p99("lognormal", LeastRequests())


def test_the_mean_is_no_worse_than_any_others() -> None:
    def mean_s(policy: Policy, cap: int | None = None) -> float:
        return sum(simulate(jobs("lognormal"), [1.0] * REPLICAS, policy, CostModel(), cap)) / REQUESTS

    least_work = mean_s(LeastWork(), cap=2)
    assert least_work < mean_s(LeastRequests())
    assert least_work <= 1.03 * sum(central_queue(jobs("lognormal"), REPLICAS)) / REQUESTS


def test_shortest_first_lowers_the_mean_and_serves_the_longest() -> None:
    requests, equal = jobs("lognormal"), [1.0] * REPLICAS
    fifo = simulate(requests, equal, LeastWork(), CostModel(), cap=2)
    shortest = simulate(requests, equal, LeastWork(), CostModel(), cap=2, order="shortest")
    assert sum(shortest) < 0.85 * sum(fifo)
    assert max(shortest) <= max(fifo) + 2.0  # those older than a second come in order of arrival


def test_a_replica_that_is_twice_as_slow_gets_less() -> None:
    draw = random.Random("one is slow")
    requests = poisson(lognormal_times(REQUESTS, draw), REPLICAS - 0.5, LOAD, draw, noise=0.2)
    uneven = [1.0] * (REPLICAS - 1) + [2.0]
    by_count = percentile(simulate(requests, uneven, LeastRequests()), 99, WARM_UP)
    by_work = percentile(simulate(requests, uneven, LeastWork(), CostModel()), 99, WARM_UP)
    late = percentile(simulate(requests, uneven, LeastWork(), CostModel(), cap=2), 99, WARM_UP)
    assert by_work <= 0.85 * by_count
    assert late <= 0.85 * by_count


def test_the_simulator_reproduces_a_known_queue() -> None:
    """M/M/1 at load 0.8: mean latency = service / (1 − load) (Pollaczek–Khinchine for exponential times)."""
    draw = random.Random("M/M/1")
    times = [draw.expovariate(1 / MEAN_S) for _ in range(60_000)]
    requests = poisson(times, 1, 0.8, draw)
    latencies = simulate(requests, [1.0], LeastRequests())
    assert latencies == pytest.approx(central_queue(requests, 1))
    assert sum(latencies) / len(latencies) == pytest.approx(MEAN_S / 0.2, rel=0.1)

"""The cost model: what it learns, how it forgets, and what it does not let disturb it."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.core.cost import (
    MEMORY,
    OUTLIER,
    PACE_LIMIT,
    PACE_RELAXES_S,
    Attribution,
    CostModel,
    Pace,
    Share,
    service_time,
)

sizes = st.integers(0, 1 << 31)
seconds = st.floats(0, 1e4)


def taught(*samples: tuple[int, float], times: int = 1, prior_s: float = 0.01) -> CostModel:
    model = CostModel(prior_s)
    for _ in range(times):
        for size, took in samples:
            model.learn(size, took)
    return model


def test_before_it_learned_it_says_its_prior_whatever_the_size() -> None:
    model = CostModel(prior_s=0.25)
    assert [model.estimate(size) for size in (0, 1, 10**9)] == [0.25] * 3
    assert repr(model) == "<CostModel prior 250 ms>"


def test_the_first_sample_replaces_the_prior() -> None:
    model = taught((1000, 0.02), prior_s=99)
    assert model.estimate(1000) == pytest.approx(0.02)
    assert model.estimate(100_000) == pytest.approx(0.02), "one size says nothing of others"
    assert model.learned == 1


def test_between_known_sizes_the_line_and_beyond_them_too() -> None:
    model = taught((1000, 0.01), (5000, 0.05), times=10)
    assert model.estimate(3000) == pytest.approx(0.03)
    assert model.estimate(2049) == pytest.approx(0.02049)
    assert model.estimate(500) == pytest.approx(0.005)
    assert model.estimate(50_000) == pytest.approx(0.5)
    assert repr(model) == "<CostModel 1000 B: 10 ms, 5000 B: 50 ms>"


def test_beyond_the_known_sizes_time_grows_at_most_with_the_square() -> None:
    model = taught((1000, 0.001), (1100, 0.01), times=10)
    assert model.estimate(2200) <= 0.01 * 3
    assert model.estimate(0) >= 0


@pytest.mark.parametrize(
    ("shape", "law"),
    [
        ("affine", lambda size: 0.002 + 1e-6 * size),
        ("constant", lambda _size: 0.01),
        ("square", lambda size: 0.002 + 1e-10 * size * size),
    ],
)
def test_it_learns_a_law_through_noise(shape: str, law) -> None:  # type: ignore[no-untyped-def] # parametrized
    draw = random.Random(shape)
    model = CostModel()
    for _ in range(2000):
        size = 100 + int(draw.lognormvariate(8, 1.2))
        model.learn(size, law(size) * draw.lognormvariate(-0.02, 0.2))
    for size in (500, 3000, 10_000, 20_000):
        assert model.estimate(size) == pytest.approx(law(size), rel=0.35), size


def test_two_sizes_are_told_apart_within_a_few_requests() -> None:
    model = taught((2_000, 0.01), (20_000, 0.1), times=3)
    assert model.estimate(2_000) == pytest.approx(0.01)
    assert model.estimate(20_000) == pytest.approx(0.1)


def test_a_lone_outlier_moves_it_little_and_a_step_is_followed() -> None:
    model = taught((1000, 0.01), times=100)
    model.learn(1000, 3600.0)
    for _ in range(MEMORY):  # an estimate may lag by the renewal of the curve, not longer
        model.learn(1000, 0.01)
    assert model.estimate(1000) <= 0.01 * (1 + OUTLIER / MEMORY)
    for _ in range(5 * MEMORY):
        model.learn(1000, 1.0)
    assert model.estimate(1000) == pytest.approx(1.0, rel=0.1)


def test_a_noisy_bucket_leans_on_its_neighbours() -> None:
    model = taught((1000, 0.010), (5000, 0.050), times=20)
    model.learn(2500, 0.500)  # one sample that contradicts forty
    assert model.estimate(2500) < 0.08


@given(st.lists(st.tuples(sizes, seconds), max_size=80), st.lists(sizes, min_size=2, max_size=20))
def test_a_larger_request_never_costs_less(samples: list[tuple[int, float]], asked: list[int]) -> None:
    model = taught(*samples)
    estimates = [model.estimate(size) for size in sorted(asked)]
    assert all(estimate >= -1e-9 for estimate in estimates)  # below zero by rounding only
    slack = 1e-9 * (1 + max(estimates))
    assert all(smaller <= larger + slack for smaller, larger in pairwise(estimates))


@given(st.lists(st.tuples(sizes, seconds), min_size=1, max_size=64))
def test_within_the_known_sizes_it_stays_within_what_was_seen(samples: list[tuple[int, float]]) -> None:
    model = taught(*samples)
    (least, _), (most, _) = model.points()[0], model.points()[-1]
    highest = max(took for _, took in samples)
    for size, _ in samples:
        if least <= size <= most:
            assert -1e-9 <= model.estimate(size) <= highest * (1 + 1e-9)


@pytest.mark.parametrize(
    ("finished", "dispatched", "previous", "expected"),
    [
        (10.0, 8.0, 5.0, 2.0),  # the replica was idle: all of it
        (10.0, 4.0, 7.0, 3.0),  # it waited until 7 behind another
        (10.0, 4.0, float("-inf"), 6.0),  # the first ever
        (10.0, 11.0, 12.0, 0.0),  # clocks may not disagree, but costs are never negative
    ],
)
def test_service_time(finished: float, dispatched: float, previous: float, expected: float) -> None:
    assert service_time(finished, dispatched, previous) == expected


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 5), st.integers(1, 1000)), min_size=1, max_size=30)
)
def test_on_a_fifo_replica_attribution_recovers_every_service_time(
    requests: list[tuple[float, float, int]],
) -> None:
    attribution, shares = Attribution(), []
    arrived = free = 0.0
    for gap, took, size in requests:
        arrived += gap
        free = max(arrived, free) + took
        shares += attribution.finished(size, arrived, free)
    shares += attribution.settle()
    assert [share.size_bytes for share in shares] == [size for _, _, size in requests]
    assert [share.seconds for share in shares] == pytest.approx([took for _, took, _ in requests])


def test_the_requests_of_a_batch_share_its_time() -> None:
    attribution = Attribution()
    assert attribution.finished(1, dispatched_at=0.0, finished_at=1.0) == []
    assert attribution.finished(2, dispatched_at=0.5, finished_at=3.0) == [Share(1, 1.0)]
    assert attribution.finished(3, dispatched_at=0.6, finished_at=3.0001) == []
    assert attribution.finished(4, dispatched_at=5.0, finished_at=6.0) == [
        Share(2, pytest.approx(1.0, abs=1e-3)),
        Share(3, pytest.approx(1.0, abs=1e-3)),
    ]
    assert attribution.settle() == [Share(4, 1.0)]
    assert attribution.settle() == []


def test_time_spent_on_a_request_that_failed_is_not_charged_to_the_next() -> None:
    attribution = Attribution()
    attribution.finished(1, 0.0, 1.0)
    attribution.interrupt(4.0)
    attribution.finished(2, 0.0, 5.0)
    assert attribution.settle() == [Share(2, 1.0)]


def test_a_batch_of_many_is_not_taken_for_an_outlier_among_zeros() -> None:
    attribution, model = Attribution(), CostModel()
    now = 0.0
    for _ in range(50):
        now += 0.064
        for answer in range(32):
            for share in attribution.finished(1000, now - 0.064, now + answer * 1e-6):
                model.learn(*share)
    assert model.estimate(1000) == pytest.approx(0.002, rel=0.02)


def test_pace_of_a_replica_half_as_fast() -> None:
    pace = Pace()
    for _ in range(200):
        pace.learn(expected_s=0.02, measured_s=0.04)
    assert pace.value == pytest.approx(2.0, rel=0.1)


def test_noise_is_no_pace() -> None:
    pace, draw = Pace(), random.Random(5)
    for _ in range(500):
        pace.learn(0.02, 0.02 * draw.lognormvariate(-0.02, 0.2))
        assert pace.value == 1.0


def test_a_pace_that_nothing_renews_returns_to_normal() -> None:
    pace = Pace()
    for _ in range(200):
        pace.learn(0.02, 0.2)
    slow = pace.value
    assert slow > 5
    pace.relax(PACE_RELAXES_S)
    assert pace.value == pytest.approx(1 + (slow - 1) / 2, rel=0.01)
    for _ in range(100):
        pace.relax(1.0)
    assert pace.value == 1.0


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1e6)), max_size=50))
def test_pace_is_bounded(samples: list[tuple[float, float]]) -> None:
    pace = Pace()
    for expected, measured in samples:
        pace.learn(expected, measured)
        assert 1 / PACE_LIMIT <= pace.value <= PACE_LIMIT

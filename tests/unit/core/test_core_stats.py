"""Two cumulative readings of Triton → rates and means."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.core.stats import ModelCounters, rates

ZERO = ModelCounters("digits", "1", *[0] * 11)


def counters(**values: int) -> ModelCounters:
    return replace(ZERO, **values)


def test_the_worked_example() -> None:
    """30 requests in 2 s in batches of 3 with 2 items each: 0.6 s queued, 0.3 s computed in all."""
    before = counters(success_count=100, failure_count=1, inferences=200, executions=50, queue_ns=10**9)
    after = replace(
        before,
        success_count=130,
        failure_count=3,
        inferences=260,
        executions=60,
        queue_ns=10**9 + 600_000_000,
        compute_input_ns=50_000_000,
        compute_infer_ns=200_000_000,
        compute_output_ns=50_000_000,
    )
    found = rates(before, after, 2.0)
    assert (found.request_rate, found.failure_rate) == (15.0, 1.0)
    assert (found.inference_rate, found.execution_rate) == (30.0, 5.0)
    assert found.queue_s == pytest.approx(0.02)
    assert found.compute_s == pytest.approx(0.01)
    assert (found.model, found.version, found.window_s) == ("digits", "1", 2.0)


def test_an_execution_keeps_busy_once_whatever_its_batch() -> None:
    """One batch of 1 in 0.1 s, one of 4 in 0.4 s: a request's mean is 0.34 s, but busy were 0.5 s of 2."""
    requests = counters(success_count=5, executions=2, compute_infer_ns=1_700_000_000)
    batches = {"batch_stats/1/compute_infer/ns": 100_000_000, "batch_stats/4/compute_infer/ns": 400_000_000}
    told = rates(ZERO, replace(requests, counters=batches), 2.0)
    assert told.compute_s == pytest.approx(0.34)
    assert (told.execution_s, told.busy) == (pytest.approx(0.25), pytest.approx(0.25))
    assert rates(ZERO, requests, 2.0).busy == pytest.approx(0.34)  # the nearest thing, where it is not told


def test_one_reading_says_nothing() -> None:
    found = rates(None, counters(success_count=1000, queue_ns=10**12), 2.0)
    assert (found.window_s, found.request_rate, found.queue_s) == (0.0, 0.0, 0.0)


def test_no_time_says_nothing() -> None:
    assert rates(ZERO, counters(success_count=5), 0.0).request_rate == 0.0
    assert rates(ZERO, counters(success_count=5), -1.0).window_s == 0.0


def test_a_model_that_was_loaded_again_counts_from_zero() -> None:
    before = counters(success_count=1000, inferences=1000, executions=1000, queue_ns=5 * 10**9)
    after = counters(success_count=10, inferences=10, executions=10, queue_ns=10**8, compute_infer_ns=10**8)
    found = rates(before, after, 2.0)
    assert found.request_rate == 5.0
    assert found.queue_s == pytest.approx(0.01)


@pytest.mark.parametrize(
    "name", ["success_count", "failure_count", "inferences", "executions", "queue_ns", "compute_infer_ns"]
)
def test_any_counter_that_went_back_tells_of_the_reset(name: str) -> None:
    before = counters(**{"success_count": 10, "compute_infer_ns": 10, name: 20})
    after = replace(before, **{name: 4})
    assert rates(before, after, 1.0).request_rate == after.success_count


def test_idle_is_all_zeros_without_division() -> None:
    same = counters(success_count=7, queue_ns=9)
    found = rates(same, same, 2.0)
    assert (found.request_rate, found.queue_s, found.compute_s) == (0.0, 0.0, 0.0)
    assert found.window_s == 2.0


@given(
    st.lists(st.integers(0, 2**63), min_size=11, max_size=11),
    st.lists(st.integers(0, 2**63), min_size=11, max_size=11),
    st.floats(0.001, 1e6),
)
def test_no_rate_is_ever_negative(before: list[int], after: list[int], elapsed_s: float) -> None:
    found = rates(ModelCounters("m", "1", *before), ModelCounters("m", "1", *after), elapsed_s)
    for name in ("request_rate", "failure_rate", "inference_rate", "execution_rate", "queue_s", "compute_s"):
        assert getattr(found, name) >= 0

"""The latency histogram: what it promises of its buckets and quantiles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.core.histogram import Histogram, bucket_of, edges_of

durations = st.floats(0, 5000, allow_nan=False)


@given(durations)
def test_a_value_lies_in_its_bucket_and_record_agrees(seconds: float) -> None:
    bucket = bucket_of(seconds)
    lower, upper = edges_of(bucket)
    micros = int(seconds * 1e6)
    assert round(lower * 1e6) <= micros < round(upper * 1e6)
    histogram = Histogram()
    histogram.record(seconds)
    assert histogram.counts == {bucket: 1}


@given(st.integers(0, 400))
def test_buckets_are_contiguous_and_narrow(bucket: int) -> None:
    lower, upper = edges_of(bucket)
    assert edges_of(bucket + 1)[0] == pytest.approx(upper)
    if bucket >= 16:
        assert upper - lower <= lower / 8 * (1 + 1e-9)


@given(st.lists(durations, min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_a_buckets_width_of_the_true_one(values: list[float], q: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    found = histogram.quantile(q)
    assert found is not None
    ordered = sorted(values)
    rank = q * len(ordered)
    # The rank falls on one of the two neighbours of q·n, whichever way it is rounded.
    low, high = ordered[max(0, int(rank) - 1)], ordered[min(len(ordered) - 1, int(rank))]
    assert low * 0.88 - 2e-6 <= found <= high * 1.13 + 2e-6


@given(st.lists(durations, max_size=50), st.lists(durations, max_size=50))
def test_merging_is_recording_everything_in_one(first: list[float], second: list[float]) -> None:
    one, other, both = Histogram(), Histogram(), Histogram()
    for value in first:
        one.record(value)
        both.record(value)
    for value in second:
        other.record(value)
        both.record(value)
    merged = one.merge([other])
    assert merged is one
    assert merged.counts == both.counts
    assert merged.count == both.count
    assert merged.sum_s == pytest.approx(both.sum_s)


@given(st.lists(durations, max_size=50))
def test_the_wire_form_comes_back_whole(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    back = Histogram.from_sparse(histogram.sparse(), histogram.sum_s)
    assert (back.counts, back.count, back.sum_s) == (histogram.counts, histogram.count, histogram.sum_s)


def test_nothing_recorded_has_no_quantile_and_no_mean() -> None:
    assert Histogram().quantile(0.5) is None
    assert Histogram().mean_s is None


def test_a_quantile_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Histogram().quantile(1.5)


def test_a_clock_that_jumped_back_counts_as_zero() -> None:
    histogram = Histogram()
    histogram.record(-0.5)
    assert histogram.counts == {0: 1}


def test_repr_tells_the_essentials() -> None:
    histogram = Histogram()
    histogram.record(1e-6)
    assert repr(histogram).startswith("<Histogram n=1 mean=1e-06 p50=")

"""When windows agree."""

import pytest

from tritonfleet.core.stability import Window, judge


def windows(*figures: tuple[float, float | None]) -> list[Window]:
    return [Window(5.0, rate, latency) for rate, latency in figures]


def test_three_that_agree() -> None:
    verdict = judge(windows((100, 0.010), (105, 0.0105), (95, 0.0095)), 10)
    assert verdict.stable
    assert verdict.reason == "the last 3 windows agree: 100/s ± 5 %, 10 ms ± 5 %"


@pytest.mark.parametrize("last", [(130.0, 0.010), (100.0, 0.020), (100.0, None)])
def test_rate_and_latency_count(last: tuple[float, float | None]) -> None:
    assert not judge(windows((100, 0.010), (100, 0.010), last), 10).stable


def test_only_the_last_three_count() -> None:
    assert judge(windows((1, 1.0), (100, 0.010), (100, 0.010), (100, 0.010)), 10).stable


def test_too_few() -> None:
    assert judge(windows((100, 0.010), (100, 0.010)), 10).reason == "2 of 3 windows measured"


def test_nothing_answered_is_no_agreement() -> None:
    verdict = judge(windows((0, None), (0, None), (0, None)), 10)
    assert not verdict.stable
    assert "no request was answered in 3 of the last windows" in verdict.reason

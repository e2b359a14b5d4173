"""Rates, quantiles and points from the routers' cumulative counters."""

import pytest

from tritonfleet.controller.history import POINTS, TrafficHistory
from tritonfleet.core.histogram import Histogram
from tritonfleet.core.wire import CallTelemetry, RouterTelemetry


def report(
    good: int,
    bad: int = 0,
    refused: int = 0,
    pid: int = 1,
    waiting: int = 0,
    worker: int = 0,
    since: float = 0.0,
) -> RouterTelemetry:
    histogram = Histogram()
    for _ in range(good):
        histogram.record(0.01)
    call = CallTelemetry("main-0.1", "echo", 0, {"0": good, "14": bad}, histogram.sparse(), histogram.sum_s)
    by_model = {"echo": waiting} if waiting else {}
    return RouterTelemetry(worker, pid, since, 1, 1, good, refused, 0, (), (call,), waiting, by_model)


def test_without_samples_there_is_nothing_but_what_waits() -> None:
    traffic = TrafficHistory().traffic([report(1, waiting=4)])
    assert (traffic.points, traffic.waiting, traffic.waiting_by_model) == ((), 4, {"echo": 4})


def test_what_ended_before_the_first_sample_counts_for_nothing() -> None:
    history = TrafficHistory()
    history.take([report(1000)], 10.0)
    history.take([report(1040, bad=10, refused=2)], 12.0)
    traffic = history.traffic([])
    assert traffic.total.request_rate == 26
    assert traffic.total.error_rate == 6
    assert traffic.total.p99_s == pytest.approx(0.01, rel=0.07)
    assert traffic.models["echo"].request_rate == 25
    assert traffic.replicas["main-0"].error_share == pytest.approx(0.2)
    assert [(point.at, point.request_rate) for point in traffic.points] == [(12.0, 26.0)]


def test_a_worker_that_was_restarted_counts_from_zero() -> None:
    history = TrafficHistory()
    history.take([report(1000)], 10.0)
    history.take([report(8, pid=2, since=10.5)], 12.0)
    assert history.traffic([]).total.request_rate == 4


def test_what_workers_had_counted_before_the_controller_came_is_no_traffic() -> None:
    """The first sample is taken before any of them has reported to a controller that was started again."""
    history = TrafficHistory()
    history.take([], 10.0)
    history.take([report(90_000, bad=500, refused=70)], 12.0)
    history.take([report(90_020, bad=500, refused=70), report(50_000, worker=1)], 14.0)
    history.take([report(90_040, bad=500, refused=70), report(50_010, worker=1)], 16.0)
    traffic = history.traffic([])
    assert [(point.request_rate, point.error_rate) for point in traffic.points] == [(0, 0), (10, 0), (15, 0)]
    assert traffic.total.request_rate == pytest.approx(50 / 6)
    assert traffic.models["echo"].request_rate == pytest.approx(50 / 6)


def test_a_worker_that_was_restarted_in_its_container_has_the_same_pid() -> None:
    history = TrafficHistory()
    history.take([report(1000, refused=50)], 10.0)
    history.take([report(8, refused=2, since=11.0)], 12.0)
    assert history.traffic([]).total.request_rate == 5
    assert history.traffic([]).total.error_rate == 1


def test_points_are_as_many_as_five_minutes_need() -> None:
    history = TrafficHistory()
    for step in range(POINTS + 20):
        history.take([report(step)], 2.0 * step)
    points = history.traffic([]).points
    assert len(points) == POINTS
    assert {point.request_rate for point in points} == {0.5}

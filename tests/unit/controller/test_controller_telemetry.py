"""What follows from the workers' reports: in flight, drained, rates. Old news is no news."""

from dataclasses import replace

import pytest
from controller_parts import report

from tritonfleet.controller.telemetry import Telemetry
from tritonfleet.core.wire import RouterTelemetry


def telling(*reports: tuple[float, object]) -> Telemetry:
    telemetry = Telemetry()
    for at, said in reports:
        telemetry.take(said, at)  # type: ignore[arg-type] # of `report`
    return telemetry


def test_in_flight_is_the_sum_over_workers() -> None:
    telemetry = telling((10.0, report(1, {"a.1": 2, "b.1": 5})), (10.5, report(1, {"a.1": 3}, worker=1)))
    assert telemetry.in_flight("a.1", [0, 1], 11.0) == 5
    assert telemetry.in_flight("b.1", [0, 1], 11.0) == 5
    assert telemetry.in_flight("new.1", [0, 1], 11.0) == 0


def test_unknown_is_not_idle() -> None:
    telemetry = telling((10.0, report(1, {"a.1": 0})))
    assert telemetry.in_flight("a.1", [0, 1], 10.1) is None, "a worker has not reported"
    assert telemetry.in_flight("a.1", [0], 13.1) is None, "the report is too old"
    assert telemetry.in_flight("a.1", [], 10.1) is None, "nobody runs who could say"


def with_streams(told: RouterTelemetry, count: int) -> RouterTelemetry:
    return replace(told, replicas=tuple(replace(row, streams=count) for row in told.replicas))


def with_sequences(told: RouterTelemetry, count: int) -> RouterTelemetry:
    return replace(told, replicas=tuple(replace(row, sequences=count) for row in told.replicas))


@pytest.mark.parametrize(
    ("said", "at", "drained"),
    [
        (report(7, {"a.1": 0}), 20.5, True),
        (report(8, {}), 20.5, True),  # it has let go of the replica already
        (report(6, {"a.1": 0}), 20.5, False),  # does not know of the drain
        (report(7, {"a.1": 1}), 20.5, False),
        (with_sequences(report(7, {"a.1": 0}), 1), 20.5, False),  # open, if idle just now
        (with_streams(report(7, {"a.1": 0}), 1), 20.5, False),  # rests: its client may go on any moment
        (report(7, {"a.1": 0}), 19.5, False),  # said before the drain began
        (report(7, {"a.1": 0}), 26.5, True),
    ],
)
def test_drained(said: object, at: float, drained: bool) -> None:
    telemetry = telling((at, said))
    assert telemetry.is_drained("a.1", [0], 7, 20.0, at + 0.1) is drained
    assert not telemetry.is_drained("a.1", [0], 7, 20.0, at + 4), "too old to count"
    assert not telemetry.is_drained("a.1", [0, 1], 7, 20.0, at + 0.1), "the other worker is silent"


def test_with_no_worker_nothing_can_be_in_flight() -> None:
    assert Telemetry().is_drained("a.1", [], 7, 20.0, 21.0)


def test_a_worker_that_ended_is_forgotten() -> None:
    telemetry = telling((10.0, report(1, {"a.1": 9})))
    telemetry.forget(0)
    assert telemetry.of(0) is None
    assert telemetry.age_s(0, 11.0) is None
    assert telemetry.request_rate(0, 11.0) == 0.0


def test_the_rate_is_of_one_process() -> None:
    telemetry = telling((10.0, report(1, requests_total=100)), (11.0, report(1, requests_total=150)))
    assert telemetry.request_rate(0, 11.5) == 50.0
    assert telemetry.request_rate(0, 14.5) == 0.0
    telemetry.take(report(1, requests_total=3, pid=4343), 12.0)
    assert telemetry.request_rate(0, 12.1) == 0.0, "a restarted worker counts from zero"
    telemetry.take(report(1, requests_total=1, pid=4343, started_at=12.5), 13.0)
    assert telemetry.request_rate(0, 13.1) == 0.0, "one restarted in its container has the same pid"

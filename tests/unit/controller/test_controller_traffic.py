"""Sums only grow, whoever starts anew beneath them."""

from dataclasses import replace

from controller_parts import report

from tritonfleet.controller.traffic import Traffic, replica_of
from tritonfleet.core.histogram import Histogram
from tritonfleet.core.stats import ModelCounters
from tritonfleet.core.wire import CallTelemetry, ReplicaTelemetry, RouterTelemetry


def said(
    finished: int, *, pid: int = 1, worker: int = 0, ejections: int = 0, started_at: float = 0.0
) -> RouterTelemetry:
    """A worker's report: main-0.1 has answered so many calls of 10 ms."""
    latency = Histogram()
    for _ in range(finished):
        latency.record(0.01)
    sparse = {str(bucket): count for bucket, count in latency.counts.items()}
    call = CallTelemetry("main-0.1", "echo", 0, {"0": finished}, sparse, latency.sum_s)
    row = ReplicaTelemetry("main-0.1", 0, 0, 0.0, 2, True, ejections=ejections)
    base = report(
        1, worker=worker, pid=pid, started_at=started_at, requests_total=finished, retries_total=finished // 2
    )
    return replace(base, calls=(call,), replicas=(row,))


def counted(requests: int, *, queue_s: float) -> ModelCounters:
    nanoseconds = int(queue_s * 1e9)
    return ModelCounters("echo", "1", requests, requests, requests, 0, 0, requests, nanoseconds, 1, 2, 3, 0)


def test_each_report_adds_what_is_new() -> None:
    traffic = Traffic()
    for finished in (2, 2, 5):
        traffic.take(said(finished))
    totals = traffic.calls["main-0", "echo"]
    assert (traffic.requests, traffic.retries, totals.codes) == (5, 2, {"0": 5})
    assert totals.latency.count == 5
    assert abs(totals.latency.sum_s - 0.05) < 1e-3


def test_a_worker_that_was_started_again_counts_from_zero() -> None:
    traffic = Traffic()
    traffic.take(said(5, pid=1, ejections=1))
    traffic.take(said(3, pid=2, ejections=1))
    assert traffic.requests == 8
    assert traffic.calls["main-0", "echo"].codes == {"0": 8}
    assert traffic.calls["main-0", "echo"].latency.count == 8
    assert traffic.ejections == {"main-0": 2}


def test_one_that_was_started_again_in_its_container_has_the_same_pid() -> None:
    traffic = Traffic()
    traffic.take(said(5, pid=7, ejections=1, started_at=1.0))
    traffic.take(said(3, pid=7, ejections=1, started_at=9.0))
    assert (traffic.requests, traffic.retries) == (8, 3)
    assert traffic.calls["main-0", "echo"].codes == {"0": 8}
    assert traffic.calls["main-0", "echo"].latency.count == 8
    assert traffic.ejections == {"main-0": 2}


def test_workers_are_added_up() -> None:
    traffic = Traffic()
    for worker in (0, 1):
        for finished in (1, 4):
            traffic.take(said(finished, worker=worker, pid=worker))
    assert traffic.calls["main-0", "echo"].codes == {"0": 8}


def test_a_model_that_was_loaded_again_counts_from_zero() -> None:
    traffic = Traffic()
    for reading in (counted(4, queue_s=1.0), counted(6, queue_s=2.0), counted(1, queue_s=0.5)):
        traffic.count("main-0.1", [reading])
    totals = traffic.times["main-0", "echo"]
    assert totals.requests == 7
    assert abs(totals.queue_s - 2.5) < 1e-9


def test_the_next_launch_goes_on_with_its_replica_s_sums() -> None:
    traffic = Traffic()
    traffic.count("main-0.1", [counted(4, queue_s=1.0)])
    traffic.settle(["main-0.2"])
    traffic.count("main-0.2", [counted(9, queue_s=1.0)])
    assert traffic.times["main-0", "echo"].requests == 13
    assert traffic._readings.keys() == {("main-0.2", "echo", "1")}


def test_the_replica_of_an_instance() -> None:
    assert replica_of("main-0.13") == "main-0"

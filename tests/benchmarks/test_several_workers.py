"""The workload `workers`: what it counts, when it refuses to, and a short run."""

import importlib
import shutil
from argparse import Namespace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def workers() -> ModuleType:
    return importlib.import_module("several_workers")


@pytest.fixture
def evenness() -> ModuleType:
    return importlib.import_module("evenness")


class TestSpread:
    def spread(self, evenness: ModuleType, *held: tuple[str, float, float, float]) -> float:
        """Over two replicas, a and b, in the seconds from 0 to 10."""
        return float(evenness.spread([evenness.Held(*one) for one in held], ["a", "b"], 0.0, 10.0))

    def test_all_hold_the_same(self, evenness: ModuleType) -> None:
        assert self.spread(evenness, ("a", 0.0, 10.0, 3.0), ("b", 0.0, 10.0, 3.0)) == 0.0
        assert self.spread(evenness) == 0.0

    def test_it_is_averaged_over_time(self, evenness: ModuleType) -> None:
        """4 against 0 is a deviation of 2, for half of the time."""
        assert self.spread(evenness, ("a", 5.0, 10.0, 4.0)) == pytest.approx(1.0)
        assert self.spread(evenness, ("a", 2.0, 7.0, 4.0)) == pytest.approx(1.0)

    def test_what_was_held_before_counts_and_what_comes_after_does_not(self, evenness: ModuleType) -> None:
        held = [("a", -5.0, 2.5, 4.0), ("a", -9.0, -1.0, 8.0), ("b", 7.5, 99.0, 4.0), ("b", 20.0, 30.0, 8.0)]
        assert self.spread(evenness, *held) == pytest.approx(1.0)

    def test_a_replica_that_gets_nothing_counts(self, evenness: ModuleType) -> None:
        held = [evenness.Held("a", 0.0, 1.0, 1.0), evenness.Held("b", 0.0, 1.0, 1.0)]
        assert evenness.spread(held, ["a", "b"], 0.0, 1.0) == 0.0
        assert evenness.spread(held, ["a", "b", "c", "d"], 0.0, 1.0) == pytest.approx(0.5)


def test_a_machine_with_too_few_cores_is_told_so(workers: ModuleType) -> None:
    told = workers.too_few(2)
    assert "this machine has 2 cores and 6 are needed" in told
    assert "2 for the workers" in told
    assert "\n" not in told
    assert workers.too_few(5)
    assert workers.too_few(6) == ""


def test_a_worker_that_is_hardly_asked_is_told(workers: ModuleType) -> None:
    assert workers._told([0.5, 0.71]) == "the busier of two workers had 50-71 % of the calls"
    assert "one had nearly all" in workers._told([0.5, 0.97])


def test_a_request_in_flight_is_read_from_the_access_log(evenness: ModuleType) -> None:
    size = 2000 + evenness.EMPTY_BYTES
    line = (
        '{"time": "2026-03-01T09:00:01.000+00:00", "method": "ModelInfer", "status": "OK", '
        f'"duration_s": 0.75, "queue_s": 0.25, "replica": "bench-3.1", "request_bytes": {size}}}'
    ).encode()
    held = evenness.held(line, by_size=False)
    assert (held.instance, held.until - held.since, held.amount) == ("bench-3.1", 0.5, 1.0)
    assert evenness.held(line, by_size=True).amount == pytest.approx(20.0), "milliseconds of 10 µs a byte"


def test_faster_is_the_same_load(workers: ModuleType) -> None:
    arrivals = importlib.import_module("arrivals")
    drawn = arrivals.workload("lognormal", 0.85, 1, 20.0, 4)
    twice = workers.faster(drawn)
    assert twice.arrivals_s[-1] == pytest.approx(drawn.arrivals_s[-1] / 2)
    assert sum(twice.sizes) == pytest.approx(sum(drawn.sizes) / 2, rel=0.001)


class TestFigure:
    def figure(self, samples: dict[str, list[float]], **named: Any) -> Any:
        figures = importlib.import_module("figures")
        return figures.Figure("title", "/s", samples, {"1 worker": 1.7}, own="2 workers", **named)

    def test_pairs_are_compared_one_by_one(self) -> None:
        samples = {"1 worker": [1.0, 10.0, 100.0], "2 workers": [2.0, 5.0, 300.0]}
        assert self.figure(samples, at_least=True, paired=True).verdicts() == [
            "2.00, bar ≥ 1.7 × 1 worker: met"
        ]
        assert self.figure(samples, at_least=True).verdicts() == ["0.50, bar ≥ 1.7 × 1 worker: NOT MET"]

    def test_one_without_samples_says_why(self) -> None:
        assert self.figure({}, note="not measured: no cores").table() == "title, /s\n  not measured: no cores"

    def test_the_document_says_the_same(self) -> None:
        router = importlib.import_module("router")
        found = router.document([self.figure({}, note="not measured: no cores")], {})
        assert found["figures"][0]["note"] == "not measured: no cores"
        assert found["figures"][0]["verdicts"] == []


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("h2load") is None, reason="no h2load: apt-get install nghttp2-client")
def test_a_short_run(workers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too short to tell balance, on too few cores to tell throughput; but all of it runs."""
    monkeypatch.setattr(workers, "SECONDS", 0.5)
    monkeypatch.setattr(workers, "REPLICAS", 2)
    monkeypatch.setattr(workers, "INSTANCES", ("bench-0.1", "bench-1.1"))
    monkeypatch.setattr(workers, "too_few", lambda _cores: "")
    throughput, *balance = workers.measure(
        SimpleNamespace(folder=tmp_path), Namespace(repeats=1, requests=100)
    )
    assert list(throughput.samples) == ["1 worker", "2 workers"]
    assert [figure.title for figure in balance] == [
        "spread of requests in flight, least_requests",
        "p99, least_requests",
        "spread of expected work in flight, least_work",
        "p99, least_work",
    ]
    for figure in balance:
        assert list(figure.samples) == ["1 worker", "2 workers", "2, no board"]
        assert all(len(taken) == 1 and taken[0] > 0 for taken in figure.samples.values())
    assert "of the calls" in balance[0].note
    boards = {board.parent.name for board in tmp_path.glob("**/inflight.board")}
    assert boards == {
        "least_requests 2 workers logged",
        "least_work 2 workers logged",
        "least_work 2 workers",
    }

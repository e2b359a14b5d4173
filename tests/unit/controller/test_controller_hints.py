"""Readings and reports → the corrections in the routers' table."""

from dataclasses import replace

import pytest
from controller_parts import report

from tritonfleet.controller.hints import WINDOW_S, Hints, TableHints
from tritonfleet.core.stats import ModelCounters, busy_ns
from tritonfleet.core.wire import CallTelemetry, RouterTelemetry

SERVING = {"main-0.1", "main-1.1"}


def reading(requests: int, busy_s: float, version: str = "1") -> ModelCounters:
    """One request per execution, each as long as the others."""
    flat = {
        "batch_stats/1/compute_infer/ns": int(busy_s * 0.9e9),
        "batch_stats/1/compute_output/ns": int(busy_s * 0.1e9),
        "batch_stats/1/compute_infer/count": requests,
        "inference_stats/compute_infer/ns": 10**15,
    }
    return ModelCounters("m", version, requests, requests, requests, *[0] * 8, counters=flat)


def told(**served: tuple[int, float]) -> list[RouterTelemetry]:
    """A router's report: by replica (main_0), inferences that succeeded and what they were to take."""
    calls = tuple(
        CallTelemetry(f"{name.replace('_', '-')}.1", "m", 0, {}, {}, 0.0, served=count, expected_s=seconds)
        for name, (count, seconds) in served.items()
    )
    return [replace(report(1), calls=calls)]


def test_busy_time_counts_each_execution_once() -> None:
    assert busy_ns(reading(4, 2.0).counters) == 2_000_000_000


def grown(hints: Hints, seconds: int, *, foreign: int = 0) -> TableHints:
    """Both replicas answer ten requests of 20 ms a second for our routers; main-1 ``foreign`` others."""
    for second in range(0, seconds + 1, 2):
        ours = told(main_0=(10 * second, 0.2 * second), main_1=(10 * second, 0.2 * second))
        for name, requests in (("main-0.1", 10 * second), ("main-1.1", (10 + foreign) * second)):
            hints.count(name, "main", [reading(requests, requests * 0.02)], ours, {"m": 1}, 1000.0 + second)
    return hints.for_table((), SERVING)


def test_replicas_alike_need_no_correction() -> None:
    hints = grown(Hints(), 20)
    assert (hints.paces, hints.priors) == ({}, {"m": pytest.approx(0.02)})


def test_one_that_others_load_is_told_to_the_routers() -> None:
    assert grown(Hints(), 20, foreign=25).paces == {"main-1.1": 2.0}  # 50 % of its time is gone
    assert grown(Hints(), 2, foreign=25).paces == {}  # too short to tell


def test_what_an_ensemble_asks_of_its_steps_comes_from_no_others() -> None:
    """main-1 gets more of the ensemble's requests for a while, all of them through our routers."""
    hints = Hints()
    for second in range(0, 21, 2):
        counts = {"main-0.1": 10 * second, "main-1.1": 30 * second}
        calls = tuple(
            CallTelemetry(name, "both", 0, {}, {}, 0.0, served=count, expected_s=count * 0.02)
            for name, count in counts.items()
        )
        for name, count in counts.items():
            step = replace(reading(count, count * 0.02), model="step")
            hints.count(
                name, "main", [replace(step, model="both"), step], [replace(report(1), calls=calls)],
                {"both": 1, "step": 1}, 1000.0 + second, steps={"both": ("step",)},
            )  # fmt: skip
    assert hints.for_table((), SERVING).paces == {}


def test_the_past_is_forgotten() -> None:
    hints = Hints()
    grown(hints, 20, foreign=25)
    for second in range(22, 22 + int(WINDOW_S) + 4, 2):
        ours = told(main_0=(10 * second, 0.2 * second), main_1=(10 * second, 0.2 * second))
        for name, requests in (("main-0.1", 10 * second), ("main-1.1", 10 * second + 25 * 20)):
            hints.count(name, "main", [reading(requests, requests * 0.02)], ours, {"m": 1}, 1000.0 + second)
    assert hints.for_table((), SERVING).paces == {}


def test_a_model_that_was_loaded_again_starts_anew_and_versions_add_up() -> None:
    hints = Hints()
    hints.count("main-0.1", "main", [reading(5000, 900.0)], [], {"m": 1}, 0.0)
    hints.count("main-0.1", "main", [reading(10, 0.3), reading(10, 0.1, "2")], [], {"m": 1}, 5.0)
    assert hints.for_table((), SERVING).priors == {"m": pytest.approx(0.02)}
    assert hints.for_table((), SERVING).paces == {}


def test_a_backend_with_batching_of_its_own_is_given_more() -> None:
    hints = Hints()
    for second in range(0, 11, 2):  # three executions at once, on one instance
        busy = [reading(30 * second, 3.0 * second)]
        hints.count("main-0.1", "main", busy, [], {"m": 1}, float(second), {"m": 2})
    assert hints.for_table((), SERVING).slots == {"main-0.1": {"m": 6}}
    assert hints.for_table((), set()).slots == {}


def test_those_that_ended_are_forgotten() -> None:
    hints = Hints()
    grown(hints, 20, foreign=25)
    hints.settle(["main-0.1"])
    assert hints.for_table((), SERVING).paces == {}

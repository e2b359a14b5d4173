"""The tail benchmark: what it draws, how it judges, and a short run."""

import importlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def arrivals() -> ModuleType:
    return importlib.import_module("arrivals")


@pytest.fixture
def report() -> ModuleType:
    return importlib.import_module("tail_report")


class TestArrivals:
    @pytest.mark.parametrize("sizes", ["lognormal", "bimodal", "constant"])
    def test_mean_service_time_and_load_are_as_asked(self, arrivals: ModuleType, sizes: str) -> None:
        work = arrivals.workload(sizes, load=0.85, seed=1, seconds=400.0, replicas=4)
        service_s = sum(work.sizes) * arrivals.PER_BYTE_S
        assert service_s / len(work.sizes) == pytest.approx(arrivals.MEAN_S, rel=0.05)
        assert service_s / work.arrivals_s[-1] / 4 == pytest.approx(0.85, rel=0.06)

    def test_the_model_takes_the_time_that_the_drawing_assumes(
        self, arrivals: ModuleType, benchmarks: Path
    ) -> None:
        config = (benchmarks / "models" / "sized_work" / "config.pbtxt").read_text()
        assert f'"per_byte_us" value: {{ string_value: "{arrivals.PER_BYTE_S * 1e6:g}" }}' in config

    def test_a_seed_draws_the_same_again_and_another_does_not(self, arrivals: ModuleType) -> None:
        def draw(seed: int) -> Any:
            return arrivals.workload("lognormal", 0.6, seed, 1.0, 4)

        assert draw(1) == draw(1)
        assert draw(1).sizes != draw(2).sizes

    def test_sizes_of_a_trace(self, arrivals: ModuleType, tmp_path: Path) -> None:
        path = tmp_path / "trace.csv"
        path.write_text("when,Tokens\n1,10\n2,30\n")
        trace = arrivals.read_trace(path, "Tokens")
        assert trace == pytest.approx([arrivals.MEAN_S * 0.5, arrivals.MEAN_S * 1.5])
        times = arrivals.service_times("trace", 3, random.Random(1), trace)
        assert times in ([trace[0], trace[1], trace[0]], [trace[1], trace[0], trace[1]])
        with pytest.raises(ValueError, match=r"no column 'Bytes'; it has when, Tokens"):
            arrivals.read_trace(path, "Bytes")

    def test_central_queue(self, arrivals: ModuleType) -> None:
        second = round(1 / arrivals.PER_BYTE_S)
        work = arrivals.Workload("", 1.0, 0, [0.0, 0.0, 0.5, 5.0], [second, 2 * second, second, second])
        assert arrivals.central_queue(work, [1.0, 1.0]) == pytest.approx([1.0, 2.0, 1.5, 1.0])
        assert arrivals.central_queue(work, [2.0, 1.0]) == pytest.approx([1.0, 4.0, 1.5, 1.0])


class TestReport:
    def runs(self, report: ModuleType) -> list[Any]:
        return [
            report.Run(
                target, "lognormal", 0.85, seed, [(1 + seed) * factor * n / 1000 for n in range(1, 101)]
            )
            for target, factor in (("ours", 1.0), ("other", 2.0))
            for seed in (0, 1)
        ]

    def test_ratios_are_taken_within_a_seed(self, report: ModuleType) -> None:
        ours, other = report.rows(self.runs(report), ["other"])
        assert (ours.target, other.target) == ("ours", "other")
        assert ours.p99_over == {"other": pytest.approx(0.5)}
        assert other.p99_over == {"other": pytest.approx(1.0)}
        assert ours.percentiles_s[0] == pytest.approx(1.5 * 0.056)  # the first tenth is not counted

    def test_table_and_plot_name_all(self, report: ModuleType) -> None:
        shown = report.table(self.runs(report), ["other", "absent"])
        assert shown.splitlines()[0].split() == [
            "lognormal", "0.85", "mean", "p50", "p95", "p99", "p99.9", "p99/other"
        ]  # fmt: skip
        assert shown.splitlines()[1].split()[-1] == "0.50"
        plot = report.text_plot(self.runs(report)).splitlines()
        assert plot[-2].index("|") < plot[-2].index("+") < plot[-2].index(">")
        assert plot[-1].index("|") > plot[-2].index("|")


def run_tail(benchmarks: Path, *arguments: str) -> Any:
    result = subprocess.run(
        [sys.executable, str(benchmarks / "tail.py"), *arguments, "--json"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"},
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.triton
@pytest.mark.slow
def test_a_short_run(benchmarks: Path) -> None:
    ours = ["least_work", "least_work-late"]
    document = run_tail(
        benchmarks,
        "--replicas=2",
        "--seconds=1",
        "--seeds=1",
        "--sizes=bimodal",
        "--slow",
        "--targets",
        *ours,
    )
    assert {run["target"] for run in document["runs"]} == {"central queue", *ours}
    assert len({len(run["latencies_s"]) for run in document["runs"]}) == 1
    for run in document["runs"]:
        assert min(run["latencies_s"]) >= 0.0105  # no answer comes before its service time


@pytest.mark.triton
@pytest.mark.slow
def test_a_short_saturation(benchmarks: Path) -> None:
    found = run_tail(benchmarks, "--saturate", "--replicas=1", "--seconds=1", "--seeds=1")
    assert set(found) == {"hold-any", "hold-16", "hold-2"}
    assert found["hold-2"][0] < found["hold-16"][0], "too few at a time, and batches stay small"

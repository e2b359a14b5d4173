"""The router's benchmark and soak: how they judge, and a short run of each."""

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ENVIRONMENT = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"}


@pytest.fixture
def router() -> ModuleType:
    return importlib.import_module("router")


@pytest.fixture
def soak() -> ModuleType:
    return importlib.import_module("soak")


class TestFigure:
    def test_less_is_better(self, router: ModuleType) -> None:
        samples = {"tritonfleet": [6.0, 7.0, 9.0], "envoy": [10.0], "haproxy": [5.0]}
        figure = router.Figure("CPU", "µs", samples, {"envoy": 0.7, "haproxy": 1.2, "nginx": 0.7})
        assert figure.verdicts() == [
            "0.70, bar ≤ 0.7 × envoy: met",
            "1.40, bar ≤ 1.2 × haproxy: NOT MET",
        ], "and nothing of nginx, which did not run"
        assert "tritonfleet         7.0  (6.0-9.0)" in figure.table()

    def test_more_is_better(self, router: ModuleType) -> None:
        samples = {"tritonfleet": [95.0], "envoy": [100.0]}
        figure = router.Figure("MB/s", "MB/s", samples, {"envoy": 1.0}, at_least=True)
        assert figure.verdicts() == ["0.95, bar ≥ 1 × envoy: NOT MET"]

    def test_a_bar_in_itself(self, router: ModuleType) -> None:
        figure = router.Figure("memory", "kB", {"tritonfleet": [20.0], "envoy": [1.0]}, {"all": 60})
        assert figure.verdicts() == ["20.00, bar ≤ 60 kB: met"]


def test_cpu_and_requests_a_second_come_from_the_same_runs(
    router: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = importlib.import_module("contest").Sample

    class Contest:
        upstreams = ("127.0.0.1:1",)

        def run(self, work: object, repeats: int) -> dict[str, list[object]]:
            ours = [sample(20.0 + n, 1000.0 + n, 30.0) for n in range(repeats)]
            return {"direct": [sample(0.0, 3000.0, 0.0)] * repeats, "tritonfleet": ours}

    monkeypatch.setattr(router, "metadata_answer_bytes", lambda *_: 1)
    monkeypatch.setattr(router, "echo_answer_bytes", lambda *_: 1)
    chosen = argparse.Namespace(requests=100, repeats=3)
    cpu, rate, infer_cpu, infer_rate = router.cpu(Contest(), chosen)
    assert (cpu.medians, rate.medians) == ({"tritonfleet": 21.0}, {"direct": 3000.0, "tritonfleet": 1001.0})
    titles = [one.title for one in (rate, infer_cpu, infer_rate)]
    assert titles == ["requests, ModelMetadata", "CPU per request, ModelInfer", "requests, ModelInfer"]


def test_memory_of_each_connection() -> None:
    connections = importlib.import_module("connections")
    memory = connections.Memory(connections=1000, before=30_000_000, idle=33_000_000, in_use=36_000_000)
    assert (memory.idle_kb, memory.in_use_kb, memory.total_mb) == (3.0, 6.0, 36.0)


def test_growth_is_told_from_the_warm_up(soak: ModuleType) -> None:
    warm_up = [(float(at), 20_000.0 + 1000 * min(at, 20), 9) for at in range(100)]
    assert soak.Record(warm_up).growth_kb() == 0.0
    leak = [(float(at), 20_000.0 + 10 * at, 9) for at in range(100)]
    assert soak.Record(leak).growth_kb() == pytest.approx(600.0)


@pytest.mark.parametrize(
    ("rpc", "cold"),
    [
        ("ModelMetadata", 0),
        ("ModelInfer", 0),
        ("ModelInfer", 0.1),
        ("ModelStreamInfer", 0),
        ("ModelStreamInfer", 0.1),
    ],
)
def test_python_alone(benchmarks: Path, rpc: str, cold: float) -> None:
    """It checks by itself that every call was answered."""
    chosen = ["--rpc", rpc, "--runs=2", "--rounds=3", f"--cold={cold}"]
    result = subprocess.run(
        [sys.executable, str(benchmarks / "router_python.py"), *chosen],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=ENVIRONMENT,
    )
    assert result.returncode == 0, result.stderr
    assert f"{rpc}, 4 calls at once, µs of Python per request" in result.stdout


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.skipif(shutil.which("h2load") is None, reason="no h2load: apt-get install nghttp2-client")
def test_a_short_run(benchmarks: Path, tmp_path: Path) -> None:
    arguments = [
        "--repeats=1",
        "--replicas=1",
        "--peers",
        "tritonfleet",
        "haproxy",
        "--connections=20",
        "--requests=1000",
    ]
    only = ["--only", "connections", "latency", "streams"]
    written = [f"--write-json={tmp_path / 'all.json'}", f"--png={tmp_path / 'all.png'}"]
    result = subprocess.run(
        [sys.executable, str(benchmarks / "router.py"), *arguments, *only, *written],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=ENVIRONMENT,
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / "all.json").read_text())["figures"]
    assert len(figures) == 6, figures
    assert all("tritonfleet" in figure["medians"] for figure in figures)
    assert all(figure["title"] in result.stdout for figure in figures)
    drawn = (tmp_path / "all.png").exists()
    assert drawn != ("matplotlib is not installed" in result.stderr)


@pytest.mark.triton
@pytest.mark.slow
def test_a_short_soak(benchmarks: Path) -> None:
    """Too short to tell growth; but the load runs, every answer is right, and no file stays open."""
    result = subprocess.run(
        [sys.executable, str(benchmarks / "soak.py"), "--replicas=1", "--seconds=2", "--allow-kb=100000"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=ENVIRONMENT,
    )
    assert result.returncode == 0, result.stderr
    assert "growth from the second fifth to the last" in result.stdout

"""The benchmarks measure what they say, and refuse to measure a proxy that fails."""

import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

REPORT = """\
starting benchmark...
finished in 1.50s, 1333.33 req/s, 40.00KB/s
requests: 2000 total, 2000 started, 2000 done, {succeeded} succeeded, {failed} failed, 0 errored, 0 timeout
status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 60.0KB (61440) total, 1.23KB (1260) headers (space savings 99.00%), 39.06KB ({data}) data
"""


@pytest.fixture
def load() -> ModuleType:
    return importlib.import_module("load")


@pytest.fixture
def processes() -> ModuleType:
    return importlib.import_module("processes")


def wait_listening(port: int) -> None:
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"nothing listens on port {port}")


class TestH2loadReport:
    def test_all_right(self, load: ModuleType) -> None:
        outcome = load.parse(REPORT.format(succeeded=2000, failed=0, data=40_000), 2000, 20)
        assert outcome == load.Outcome(seconds=1.5, requests_per_s=1333.33)

    def test_a_failed_request(self, load: ModuleType) -> None:
        with pytest.raises(ValueError, match="1999 of 2000 succeeded"):
            load.parse(REPORT.format(succeeded=1999, failed=1, data=40_000), 2000, 20)

    def test_an_answer_that_is_a_grpc_error(self, load: ModuleType) -> None:
        """HTTP 200 without a body: h2load counts it as a success."""
        with pytest.raises(ValueError, match="39980 bytes in all bodies instead of 2000 x 20"):
            load.parse(REPORT.format(succeeded=2000, failed=0, data=39_980), 2000, 20)

    def test_not_a_report(self, load: ModuleType) -> None:
        with pytest.raises(ValueError, match="not as expected"):
            load.parse("could not connect to host", 1, 1)


class TestMessages:
    def test_framed(self, load: ModuleType) -> None:
        assert load.framed(b"abc") == b"\0\0\0\0\3abc"
        assert load.model_metadata("echo") == b"\0\0\0\0\6\n\4echo"


class TestProcesses:
    def test_cpu_and_memory_of_a_family(self, processes: ModuleType, tmp_path: Path) -> None:
        """A shell whose child computes: the child's time counts."""
        spin = "import time\nwhile time.process_time() < 0.3: pass\nprint('spun', flush=True)\ntime.sleep(60)"
        log = tmp_path / "log"
        command = ["sh", "-c", '"$0" -c "$1"; :', sys.executable, spin]
        with processes.running(command, log) as process:
            while "spun" not in log.read_text():
                time.sleep(0.02)
            pids = processes.family(process.pid)
            assert len(pids) == 2
            assert processes.cpu_s(pids) >= 0.29
            assert processes.rss_bytes(pids) > 2**20
        while any(Path(f"/proc/{pid}/exe").exists() for pid in pids):  # to be killed takes a moment
            time.sleep(0.02)

    def test_free_ports_differ(self, processes: ModuleType) -> None:
        assert len(set(processes.free_ports(5))) == 5


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load (nghttp2-client) is not installed")
@pytest.mark.parametrize(
    ("script", "arguments"),
    [("router_cpu.py", ["--requests=2000"]), ("payloads.py", ["--sizes=1", "--requests=8"])],
)
def test_a_short_run_of_all_that_is_installed(benchmarks: Path, script: str, arguments: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, str(benchmarks / script), *arguments, "--repeats=1", "--json"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"},
    )
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    [document] = [document] if "results" in document else document.values()
    assert {"direct", "tritonfleet"} <= set(document["results"])
    for name, measured in document["results"].items():
        assert measured["median"]["requests_per_s"] > 0
        assert (measured["median"]["cpu_us_per_request"] > 0) == (name != "direct")


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load (nghttp2-client) is not installed")
def test_a_proxy_that_fails_is_not_measured(load: ModuleType, tmp_path: Path) -> None:
    """The router with no replica answers every call UNAVAILABLE, quickly and with HTTP 200."""
    processes = importlib.import_module("processes")
    peer = importlib.import_module("peers.tritonfleet").Tritonfleet()
    port, nobody = processes.free_ports(2)
    request = load.Request("ModelMetadata", load.model_metadata("digits"), 100)
    address = f"127.0.0.1:{port}"
    command = peer.command(tmp_path, port, [f"127.0.0.1:{nobody}"])
    with processes.running(command, tmp_path / "log"):
        wait_listening(port)
        with pytest.raises(RuntimeError, match="was not answered rightly: 0 bytes in all bodies"):
            load.run(address, request, tmp_path, requests=20, connections=2, streams=2)

"""A real router worker, for raw frames."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tritonfleet.core.wire import RouterTable


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a worker process without replicas: these requests are not gRPC and reach none."""
    table: Path = tmp_path_factory.mktemp("conformance") / "table.json"
    table.write_bytes(msgspec.json.encode(RouterTable("conformance", 1, "least_work", ())))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [sys.executable, "-m", "tritonfleet.router", "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen([*command, "--table", str(table), "--drain-timeout", "1"])
    try:
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)

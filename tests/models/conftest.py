"""One real embedded Triton per session, serving the shipped model repository."""

import importlib.util
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import tritonclient.grpc as triton

from tritonfleet.triton.embedded import find_tritonserver
from tritonfleet.triton.launch import Ports, arguments, environment

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"
INSTANCE = "models-test-0.1"
START_TIMEOUT_S = 60.0


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def wait_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with triton.InferenceServerClient(address) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if client.is_server_ready():
                    return
            except triton.InferenceServerException:
                pass
            time.sleep(0.1)
    pytest.fail(f"the embedded Triton did not become ready; its log:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def recipe() -> ModuleType:
    """scripts/train_digits.py as a module."""
    path = REPOSITORY.parent / "scripts" / "train_digits.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def instance() -> str:
    """What the server was told it is called."""
    return INSTANCE


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of the running server."""
    folder = tmp_path_factory.mktemp("triton")
    installation = find_tritonserver(os.environ)
    ports = Ports(*free_ports(3))
    prefix = f"tfmodels{uuid.uuid4().hex[:8]}"
    command = arguments(
        installation,
        model_repository=str(REPOSITORY),
        models=["*"],
        ports=ports,
        shm_prefix=prefix,
        exit_timeout_s=10,
        devices=(),
    )
    named = environment(
        installation, os.environ, devices=(), markers={"TRITONFLEET_INSTANCE": INSTANCE}, extra={}
    )
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=named,
            start_new_session=True,
        )
    try:
        wait_ready(process, f"127.0.0.1:{ports.grpc}", log)
        yield f"127.0.0.1:{ports.grpc}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for region in Path("/dev/shm").glob(f"{prefix}*"):
            region.unlink(missing_ok=True)


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as client:
        yield client

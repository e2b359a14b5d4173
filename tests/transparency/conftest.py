"""One bare Triton, fleets of one and of three replicas, and conversations to have with each.

A test has the same conversation with the bare server and with a fleet and compares the records: every status,
every message, every answer, apart from what names a server or measures a time.
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as triton

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))  # running_fleet is shared with the tests there

from conversation import Conversation  # after the path
from running_fleet import REPOSITORY, free_ports, running_fleet  # after the path

from tritonfleet.triton.embedded import find_tritonserver  # after the path
from tritonfleet.triton.launch import Ports, arguments, environment  # after the path

START_TIMEOUT_S = 60.0


@pytest.fixture(scope="session")
def bare_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a Triton without a fleet, launched with the arguments a fleet gives to its replicas."""
    installation = find_tritonserver(os.environ)
    ports = Ports(*free_ports(3))
    prefix = f"tfbare{uuid.uuid4().hex[:8]}"
    command = arguments(
        installation, model_repository=str(REPOSITORY), models=["*"], ports=ports, shm_prefix=prefix,
        exit_timeout_s=5, devices=(),
    )  # fmt: skip
    log = tmp_path_factory.mktemp("bare") / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            env=environment(installation, os.environ, devices=(), markers={}, extra={}),
        )  # fmt: skip
    address = f"127.0.0.1:{ports.grpc}"
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _ready(address):
            if time.monotonic() > deadline or process.poll() is not None:
                pytest.fail(f"the bare Triton did not become ready:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for region in Path("/dev/shm").glob(f"{prefix}*"):
            region.unlink(missing_ok=True)


def _ready(address: str) -> bool:
    with triton.InferenceServerClient(address) as client:
        try:
            return bool(client.is_server_ready())
        except triton.InferenceServerException:
            return False


@pytest.fixture(scope="session", params=[1, 3], ids=["one replica", "three replicas"])
def fleet_address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    replicas = {"min": 1, "initial": request.param, "max": 4}
    router = {"workers": 1 if request.param == 1 else 2}
    with running_fleet(tmp_path_factory.mktemp("fleet"), replicas=replicas, router=router) as fleet:
        yield fleet.address


@pytest.fixture
def bare(bare_address: str) -> Iterator[Conversation]:
    with Conversation(bare_address) as conversation:
        yield conversation


@pytest.fixture
def fleet(fleet_address: str) -> Iterator[Conversation]:
    with Conversation(fleet_address) as conversation:
        yield conversation

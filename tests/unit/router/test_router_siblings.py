"""Router workers of one fleet share an address; those of two never do. Real processes and sockets."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Routers:
    """`tritonfleet router` of fleets that have one address, each with a state folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started, self.port = folder, list[subprocess.Popen[bytes]](), free_port()

    def start(self, fleet: str, *arguments: str) -> "subprocess.Popen[bytes]":
        here = self.folder / fleet
        (here / "models" / "echo" / "1").mkdir(parents=True, exist_ok=True)
        file = here / "tritonfleet.yaml"
        router = {"external": True, "listen": f"127.0.0.1:{self.port}", "workers": 2}
        pools = {"main": {"model_repository": str(here / "models"), "replicas": {"min": 1, "max": 1}}}
        spec = {"version": 1, "name": fleet, "devices": {"cpu": 1}, "router": router, "pools": pools}
        file.write_text(json.dumps(spec))
        program = [sys.executable, "-m", "tritonfleet.cli.main", "-f", str(file), "router", *arguments]
        with (self.folder / f"{len(self.started)}.log").open("wb") as log:
            environ = os.environ | {"TRITONFLEET_STATE_DIR": str(here / "state")}
            self.started.append(subprocess.Popen(program, env=environ, stdout=log, stderr=log))
        return self.started[-1]

    def said(self, router: "subprocess.Popen[bytes]") -> str:
        return (self.folder / f"{self.started.index(router)}.log").read_text()

    def listens(self, router: "subprocess.Popen[bytes]") -> None:
        until(lambda: "listening on" in self.said(router) or router.poll() is not None)
        assert router.poll() is None, self.said(router)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def routers(tmp_path: Path) -> Iterator[Routers]:
    found = Routers(tmp_path)
    try:
        yield found
    finally:
        for router in found.started:
            router.kill()
            router.wait(10)


def test_a_router_of_another_fleet_does_not_take_half_of_the_clients(routers: Routers) -> None:
    first = routers.start("one")
    routers.listens(first)
    stranger = routers.start("other")
    assert stranger.wait(60) == 98
    assert f"cannot listen on 127.0.0.1:{routers.port}: another program has it" in routers.said(stranger)
    second, successor = routers.start("one", "--worker", "1"), routers.start("one")
    routers.listens(second)
    routers.listens(successor)
    for router in (first, second):
        router.send_signal(signal.SIGKILL)
        router.wait(10)
    again = routers.start("one", "--worker", "1")
    routers.listens(again)
    for router in (successor, again):
        router.terminate()
        assert router.wait(60) == 0
    routers.listens(routers.start("other"))


def test_workers_that_start_at_once_do_not_take_each_other_for_strangers(routers: Routers) -> None:
    for router in [routers.start("one", "--worker", str(index % 2)) for index in range(4)]:
        routers.listens(router)

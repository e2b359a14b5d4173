"""The controller as a process, of a fleet of size 0: locks, ports, signals, what it leaves behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tritonfleet.controller.paths import FleetPaths

pytestmark = pytest.mark.processes


class Life:
    """One fleet's file, folder and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fleet = folder, "m" + os.urandom(4).hex()
        self.environ = {**os.environ, "TRITONFLEET_STATE_DIR": str(folder / "state")}
        self.paths = FleetPaths.of(self.fleet, self.environ)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = int(sock.getsockname()[1])
        self.file = folder / "tritonfleet.yaml"
        self.started: list[subprocess.Popen[str]] = []
        self.write()

    def write(self, **pool: Any) -> None:
        (self.folder / "models" / "digits").mkdir(parents=True, exist_ok=True)
        (self.folder / "models" / "digits" / "config.pbtxt").write_text('name: "digits"')
        main = {"model_repository": "models", "replicas": {"min": 0, "initial": 0, "max": 2}, **pool}
        spec = {
            "version": 1, "name": self.fleet, "driver": "process", "devices": {"cpu": 2},
            "router": {"listen": f"127.0.0.1:{self.port}", "drain_timeout": 1}, "pools": {"main": main},
        }  # fmt: skip
        self.file.write_text(json.dumps(spec))

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "tritonfleet.controller", "--file", str(self.file), *arguments],
            env=self.environ, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def up(self, *arguments: str) -> "subprocess.Popen[str]":
        process = self.start(*arguments)

        def answers() -> bool:
            assert process.poll() is None, process.communicate()[1]
            try:
                workers = self.ask("GET", "/snapshot")["router"]["workers"]
            except OSError:
                return False
            return all(worker["running"] and worker["telemetry_age_s"] is not None for worker in workers)

        until(answers, "the controller and its router worker")
        return process

    def ask(self, method: str, path: str, body: object = None) -> Any:
        with socket.socket(socket.AF_UNIX) as knock:  # httpx leaves a refused one to the collector
            knock.connect(str(self.paths.control_socket))
        transport = httpx.HTTPTransport(uds=str(self.paths.control_socket))
        with httpx.Client(transport=transport, base_url="http://controller/v1", timeout=20) as http:
            return http.request(method, path, json=body).json()

    def worker(self) -> int:
        return int(self.ask("GET", "/snapshot")["router"]["workers"][0]["pid"])

    def ended(self, process: "subprocess.Popen[str]") -> tuple[int, str]:
        _, said = process.communicate(timeout=30)
        return process.returncode, said

    def processes(self) -> list[int]:
        marker = f"TRITONFLEET_STATE_DIR={self.folder / 'state'}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if marker in (folder / "environ").read_bytes().split(b"\0") and state != "Z":
                    found.append(int(folder.name))
            except OSError:
                continue
        return found


def until(condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    life = Life(tmp_path)
    yield life
    for process in life.started:  # first of all, or one starts a new worker in place of a killed one
        process.kill()
        process.communicate(timeout=10)

    def gone() -> bool:
        for pid in (left := life.processes()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    until(gone, "its processes are gone")


def test_down_leaves_the_journal_and_the_logs_and_nothing_else(life: Life) -> None:
    process = life.up()
    life.ask("POST", "/down", {})
    assert life.ended(process)[0] == 0
    left = {str(path.relative_to(life.paths.root)) for path in life.paths.root.rglob("*")}
    assert left <= {"events.jsonl", "logs", "logs/router-0.log"}
    assert not life.paths.control_socket.exists()
    assert life.processes() == []


def test_sigterm_ends_only_the_controller_and_the_next_one_adopts(life: Life) -> None:
    process = life.up()
    worker, revision = life.worker(), life.ask("GET", "/snapshot")["table_revision"]
    process.send_signal(signal.SIGTERM)
    assert life.ended(process)[0] == 0
    assert life.processes() == [worker]
    life.up()
    assert life.worker() == worker
    assert life.ask("GET", "/snapshot")["table_revision"] > revision


def test_a_killed_controller_is_followed_by_one_that_adopts(life: Life) -> None:
    process = life.up("--size", "main=0")
    worker = life.worker()
    process.kill()
    life.ended(process)
    life.up()
    assert life.worker() == worker
    pool = life.ask("GET", "/snapshot")["pools"][0]
    assert (pool["desired"], pool["pinned"]) == (0, True)
    kinds = [
        event.split('"type":"')[1].split('"')[0] for event in life.paths.journal.read_text().splitlines()
    ]
    assert kinds.count("controller.started") == 2
    assert kinds.count("router.started") == kinds.count("router.adopted") == 1


def test_a_router_that_somebody_else_runs_joins_and_is_never_started_or_ended(life: Life) -> None:
    spec = json.loads(life.file.read_text())
    spec["router"]["external"] = True
    life.file.write_text(json.dumps(spec))
    controller = life.start()

    def joined(router: "subprocess.Popen[str]") -> bool:
        try:
            return life.worker() == router.pid
        except OSError:  # the controller does not listen yet
            return False

    def run(nth: int) -> "subprocess.Popen[str]":
        program = [sys.executable, "-m", "tritonfleet.cli.main", "-f", str(life.file), "router"]
        router = subprocess.Popen(program, env=life.environ, stderr=subprocess.PIPE, text=True)
        life.started.append(router)
        until(lambda: joined(router), "it is known")
        until(lambda: life.paths.journal.read_text().count('"router.joined"') == nth, "it is told")
        return router

    first = run(1)
    first.kill()
    life.ended(first)
    second = run(2)
    (worker,) = life.ask("GET", "/snapshot")["router"]["workers"]
    assert (worker["running"], worker["restarts"], worker["outdated"]) == (True, 1, False)
    controller.send_signal(signal.SIGTERM)
    life.ended(controller)
    controller = life.start()
    until(lambda: joined(second), "it is back")
    life.ask("POST", "/down", {})
    assert life.ended(controller)[0] == 0
    assert life.processes() == [second.pid]
    second.send_signal(signal.SIGTERM)
    assert life.ended(second)[0] == 0


def test_two_controllers_never_run_one_fleet(life: Life) -> None:
    first = life.up()
    code, said = life.ended(life.start())
    assert code == 5
    assert f"a controller of this fleet runs already (pid {first.pid}, from {life.file})" in said
    assert life.ask("GET", "/snapshot")["controller"]["pid"] == first.pid


def test_a_port_in_use_is_told_before_anything_starts(life: Life) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", life.port))
        stranger.listen()
        code, said = life.ended(life.start())
    assert code == 98
    assert f"cannot listen on 127.0.0.1:{life.port}" in said
    assert life.processes() == []
    assert "router.started" not in (life.paths.journal.read_text() if life.paths.journal.exists() else "")


def test_a_broken_file_is_told_with_its_place(life: Life) -> None:
    life.write(replicas={"mni": 1})
    code, said = life.ended(life.start())
    assert code == 2
    assert "unknown key" in said
    assert "did you mean 'min'?" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("size", "code", "message"),
    [
        ("main=9", 1, "main cannot be scaled to 9: its bounds are 0..2"),
        ("other=1", 1, "there is no pool 'other'"),
        ("main", 2, "'main' is not POOL=N"),
    ],
)
def test_a_size_that_cannot_be_is_refused(life: Life, size: str, code: int, message: str) -> None:
    ended, said = life.ended(life.start("--size", size))
    assert ended == code
    assert message in said
    assert "Traceback" not in said
    assert life.processes() == []


def test_a_damaged_state_file_is_named_with_what_to_do(life: Life) -> None:
    life.paths.make()
    life.paths.state_file.write_text("{")
    code, said = life.ended(life.start())
    assert code == 1
    assert f"{life.paths.state_file} cannot be understood" in said
    assert "move it away" in said
    assert "Traceback" not in said

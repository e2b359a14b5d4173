"""A real fleet for a test: its own file, port and state folder, started and stopped by the command line."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tritonfleet.cli.client import ControlClient, UnreachableError
from tritonfleet.controller.paths import FleetPaths

REPOSITORY = Path(__file__).parents[2] / "model_repository"


def free_port() -> int:
    """A port that was free a moment ago and is not in the range the system hands out by itself, where
    another test's connection might take it meanwhile."""
    for _ in range(200):
        port = 12_000 + int.from_bytes(os.urandom(2), "big") % 16_000
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 12000 and 28000")


def free_ports(count: int) -> list[int]:
    """So many different ones."""
    found: dict[int, None] = {}
    while len(found) < count:
        found[free_port()] = None
    return list(found)


class RunningFleet:
    """One fleet of a test. ``cli`` runs the command line as a user would."""

    def __init__(self, folder: Path, **pool: Any) -> None:
        self.folder = folder
        self.name = "t" + os.urandom(4).hex()
        self.port = free_port()
        self.file = folder / "tritonfleet.yaml"
        self.state = folder / "state"
        self.prefix: list[str] = []  # what the command line is run by
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("TRITONFLEET_")},
            "TRITONFLEET_STATE_DIR": str(self.state),
            "NO_COLOR": "1",
            "COLUMNS": "140",
        }
        self.write(**pool)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def write(
        self,
        *,
        devices: int = 4,
        router: dict[str, Any] | None = None,
        metrics: dict[str, Any] | None = None,
        **pool: Any,
    ) -> None:
        """The fleet file, as JSON, which is YAML."""
        main = {
            "model_repository": str(REPOSITORY),
            "replicas": {"min": 1, "initial": 2, "max": 4},
            "drain_timeout": "20s",
            "triton": {"exit_timeout": "5s"},
            **pool,
        }
        spec = {
            "version": 1,
            "name": self.name,
            "driver": "process",
            "devices": {"cpu": devices},
            "router": {"listen": self.address, "drain_timeout": "10s", **(router or {})},
            "pools": {"main": main},
            "metrics": metrics or {},
        }
        self.file.write_text(json.dumps(spec, indent=2))

    def cli(
        self, *arguments: str, check: int | None = 0, timeout: float = 100
    ) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [
                *self.prefix, str(Path(sys.executable).with_name("tritonfleet")),
                "-f", str(self.file), *arguments,
            ],
            env=self.environ, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if check is not None and result.returncode != check:
            raise AssertionError(
                f"`tritonfleet {' '.join(arguments)}` ended with {result.returncode}, not {check}\n"
                f"--- stdout\n{result.stdout}\n--- stderr\n{result.stderr}\n{self.last_words()}"
            )
        return result

    def client(self) -> ControlClient:
        """Of the control API: what is asked again and again costs a hundredth of a new process."""
        return ControlClient(self.name, FleetPaths.of(self.name, self.environ).control_socket)

    def snapshot(self) -> dict[str, Any]:
        """What `ps -o json` prints. Raises UnreachableError without a controller."""
        with self.client() as client:
            found: dict[str, Any] = msgspec.to_builtins(client.snapshot())
        return found

    def replicas(self) -> dict[str, dict[str, Any]]:
        return {replica["id"]: replica for replica in self.snapshot()["replicas"]}

    def pids(self) -> dict[str, int]:
        """Of the replicas that have a process now."""
        found = {name: re.findall(r"\d+", replica["handle"]) for name, replica in self.replicas().items()}
        return {name: int(numbers[0]) for name, numbers in found.items() if numbers}

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """The journal: from the controller, or as `events` finds it where none runs."""
        try:
            with self.client() as client:
                found = [msgspec.to_builtins(event) for event in client.events()]
        except UnreachableError:
            found = [json.loads(line) for line in self.cli("events", "-o", "json").stdout.splitlines()]
        return [event for event in found if event["type"].startswith(kind)]

    def until(self, condition: Callable[["RunningFleet"], Any], what: str, timeout: float = 60) -> Any:
        deadline = time.monotonic() + timeout
        while not (value := condition(self)):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout:g} s: {what}\n{self.last_words()}")
            time.sleep(0.1)
        return value

    def ready(self, count: int, timeout: float = 60) -> None:
        self.until(
            lambda fleet: sum(r["state"] == "ready" for r in fleet.replicas().values()) == count,
            f"{count} replicas ready", timeout,
        )  # fmt: skip

    def direct(self, replica: str) -> Any:
        """A client of one replica, past the router."""
        import tritonclient.grpc as triton

        return triton.InferenceServerClient(f"127.0.0.1:{self.replicas()[replica]['grpc_port']}")

    def last_words(self) -> str:
        """The ends of all logs: what one wants to read when a test has failed."""
        return "\n".join(
            f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            for log in sorted(self.state.rglob("*.log"))
        )

    def processes(self) -> dict[int, str]:
        """Every live process that belongs to this fleet, by what its environment or command line says."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environ = (folder / "environ").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            mine = str(self.state).encode() in environ or self.name in command
            if mine and state != "Z" and int(folder.name) != os.getpid():
                found[int(folder.name)] = command
        return found


@contextmanager
def running_fleet(folder: Path, *up: str, **pool: Any) -> Iterator[RunningFleet]:
    """A fleet that is up and ready; afterwards it is down and nothing of it is left."""
    fleet = RunningFleet(folder, **pool)
    try:
        fleet.cli("up", "-d", "--wait", *up)
        yield fleet
    finally:
        stop(fleet)


def stop(fleet: RunningFleet) -> None:
    """`down`, and whatever that leaves is ended by its pid, so that a failed test leaves nothing either."""
    try:
        fleet.cli("down", "--force", "-y", check=None, timeout=60)
    finally:
        for pid in fleet.processes():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        for leftover in Path("/dev/shm").glob(f"*{fleet.name}*"):
            leftover.unlink(missing_ok=True)

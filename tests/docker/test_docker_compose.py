"""The stack in compose/, by the compose tool of this host: docker's plugin, or Debian's docker-compose."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker_daemon
import pytest
from docker_fleets import DockerFleet, free_name
from running_fleet import REPOSITORY, free_port

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

COMPOSE = Path(__file__).parents[2] / "compose"
FIRST_INFERENCE = REPOSITORY.parent / "scripts" / "first_inference.py"


def tool() -> list[str]:
    """The compose tool of this host; skips where there is none."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if os.environ.get("TRITONFLEET_REQUIRE_DOCKER") == "1":
        pytest.fail("there is neither docker compose nor docker-compose")
    pytest.skip("there is neither docker compose nor docker-compose (Debian: apt-get install docker-compose)")


def classifies(port: int) -> bool:
    done = subprocess.run(
        [sys.executable, FIRST_INFERENCE, "--address", f"127.0.0.1:{port}", "--digit", "7"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return "digits says: 7" in done.stdout


class Stack:
    """compose/ on a port and under names of its own."""

    def __init__(self, folder: Path) -> None:
        self.tool, self.fleet, self.port = tool(), free_name(), free_port()
        self.override = folder / "override.yaml"
        text = (COMPOSE / "fleet.cpu.yaml").read_text().replace("name: demo", f"name: {self.fleet}")
        file = folder / "fleet.yaml"
        file.write_text(text)
        self.override.write_text(
            f"services: {{tritonfleet: {{volumes: ['{file}:/etc/tritonfleet/tritonfleet.yaml:ro']}}}}\n"
        )
        socket = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
        self.environ = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.fleet,
            "MODEL_REPOSITORY": str(REPOSITORY),
            "ROUTER_LISTEN": f"127.0.0.1:{self.port}",
            "DOCKER_SOCKET": socket,
            "DOCKER_GID": str(Path(socket).stat().st_gid),
        }

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        files = [COMPOSE / "docker-compose.yaml", COMPOSE / "docker-compose.cpu.yaml", self.override]
        named = [word for file in files for word in ("-f", str(file))]
        done = subprocess.run(
            [*self.tool, "--project-directory", str(COMPOSE), *named, *arguments],
            env=self.environ, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done

    def ready(self) -> None:
        """Until the controller answers and every replica is ready."""
        deadline = time.monotonic() + 60
        while self.run("exec", "-T", "tritonfleet", "tritonfleet", "ps", check=False).returncode != 0:
            assert time.monotonic() < deadline, self.run("logs", "tritonfleet").stdout
            time.sleep(0.2)
        self.run("exec", "-T", "tritonfleet", "tritonfleet", "up", "-d", "--wait")

    def end(self) -> None:
        self.run("kill", check=False)
        docker_daemon.remove_all(self.fleet)
        self.run("down", "--volumes", "--remove-orphans", check=False)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    docker_daemon.require("tritonfleet")
    stack = Stack(tmp_path)
    try:
        yield stack
    finally:
        stack.end()


def test_the_stack_serves_is_adopted_and_goes(stack: Stack) -> None:
    stack.run("up", "-d")
    stack.ready()
    assert classifies(stack.port)
    before = {name: one["Id"] for name, one in docker_daemon.containers(stack.fleet).items()}
    assert sorted(before) == ["main-0.1", "main-1.1"]
    stack.run("restart", "tritonfleet")
    stack.ready()
    assert classifies(stack.port)
    assert {name: one["Id"] for name, one in docker_daemon.containers(stack.fleet).items()} == before
    stack.run("stop")
    stack.run("run", "--rm", "-T", "tritonfleet", "tritonfleet", "down", "-y")
    assert docker_daemon.containers(stack.fleet) == {}


def test_the_stack_for_gpus_is_valid(stack: Stack) -> None:
    done = subprocess.run(
        [*stack.tool, "--project-directory", COMPOSE, "-f", COMPOSE / "docker-compose.yaml", "config"],
        env=stack.environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tritonserver:" in done.stdout


def test_an_exported_fleet_serves_without_a_controller(
    docker_fleet: Callable[..., DockerFleet], tmp_path: Path
) -> None:
    docker_daemon.require("tritonfleet")
    fleet = docker_fleet(models=["digits"])
    file = tmp_path / "compose.yaml"
    file.write_text(fleet.cli("compose").stdout)
    run = [*tool(), "-p", fleet.name, "-f", str(file)]

    def compose(*arguments: str) -> str:
        done = subprocess.run([*run, *arguments], capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    compose("config")  # what the tool itself takes for valid, by the compose specification's JSON Schema
    try:
        compose("up", "-d")
        deadline = time.monotonic() + 60
        while not classifies(fleet.port):
            assert time.monotonic() < deadline, compose("logs")
        assert "main-0" in compose("ps")
    finally:
        compose("down", "-t", "1")


def test_an_exported_fleet_for_gpus_is_valid(
    docker_fleet: Callable[..., DockerFleet], tmp_path: Path
) -> None:
    fleet = docker_fleet(devices=["GPU-1", "GPU-2", "GPU-3", "GPU-4"])
    file = tmp_path / "compose.yaml"
    file.write_text(fleet.cli("compose", "-o", "json").stdout)
    done = subprocess.run(
        [*tool(), "-f", str(file), "config"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "GPU-2" in done.stdout
    without = docker_fleet(triton={"image": ""})
    without.file.write_text(without.file.read_text().replace('"docker"', '"process"'))
    refused = without.cli("compose", check=2)
    assert "set pools.main.triton.image" in refused.stderr

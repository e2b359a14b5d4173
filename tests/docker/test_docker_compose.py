"""The stack in compose/, by the compose tool of this host: docker's plugin, or Debian's docker-compose."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker_daemon
import httpx
import pytest
from docker_fleets import DockerFleet, free_name
from running_fleet import REPOSITORY, free_ports

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
        self.tool, self.fleet = tool(), free_name()
        self.port, self.metrics = free_ports(2)
        self.override = folder / "override.yaml"
        text = (COMPOSE / "fleet.cpu.yaml").read_text().replace("name: demo", f"name: {self.fleet}")
        file = folder / "fleet.yaml"
        file.write_text(text)
        own = {"volumes": [f"{file}:/etc/tritonfleet/tritonfleet.yaml:ro"]}
        self.override.write_text(json.dumps({"services": {"tritonfleet": own, "router": own}}))
        socket = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
        self.environ = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.fleet,
            "MODEL_REPOSITORY": str(REPOSITORY),
            "ROUTER_LISTEN": f"127.0.0.1:{self.port}",
            "METRICS_PORT": str(self.metrics),
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
        """Until the controller answers, every replica is ready, and the router knows them."""
        self.until(lambda: self.inside("ps", check=False).returncode == 0, "the controller answers")
        self.inside("up", "-d", "--wait")

    def inside(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("exec", "-T", "tritonfleet", "tritonfleet", *arguments, check=check)

    def router(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.inside("ps", "-o", "json").stdout)["router"]["workers"][0]
        return found

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"not within a minute: {what}\n{self.run('logs').stdout}"
            time.sleep(0.2)

    def containers(self) -> dict[str, str]:
        return {name: one["Id"] for name, one in docker_daemon.containers(self.fleet).items()}

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


@pytest.mark.timeout(300)  # a dozen commands, each a process of its own in a container
def test_controller_and_router_as_containers(stack: Stack) -> None:
    """They serve, either may end without harm, and everything goes when it is told to. The images of
    Prometheus and Grafana are in registries only, so these two services are left out."""
    stack.run("up", "-d", "tritonfleet", "router")
    stack.ready()
    assert classifies(stack.port)
    before = stack.containers()
    assert sorted(before) == ["main-0.1", "main-1.1"]

    stack.run("stop", "tritonfleet")
    assert classifies(stack.port)  # the router serves on by itself
    stack.run("start", "tritonfleet")
    stack.ready()
    assert classifies(stack.port)
    assert stack.containers() == before

    first = stack.router()
    kill = f"import os; os.kill({first['pid']}, 9)"  # after `docker kill` Docker would start nothing again
    stack.run("exec", "-T", "router", "python", "-c", kill, check=False)  # may go with its container
    stack.until(lambda: stack.router()["started_at"] > first["started_at"], "Docker starts the router again")
    stack.ready()
    assert classifies(stack.port)
    assert stack.containers() == before
    text = httpx.get(f"http://127.0.0.1:{stack.metrics}/metrics", trust_env=False).text
    assert 'tritonfleet_requests_total{grpc_code="OK",model="digits"' in text

    stack.run("stop", "tritonfleet")
    stack.run("run", "--rm", "-T", "tritonfleet", "tritonfleet", "down", "-y")
    assert stack.containers() == {}
    assert not classifies(stack.port)  # the router is there, and says that nothing is behind it


def test_the_stack_for_gpus_is_valid(stack: Stack) -> None:
    files = ("docker-compose.yaml", "docker-compose.proxy.yaml", "docker-compose.gpu-metrics.yaml")
    done = subprocess.run(
        [*stack.tool, *(word for name in files for word in ("-f", str(COMPOSE / name))), "config"],
        env=stack.environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tritonserver:" in done.stdout
    assert "/dev/null:/var/run/docker.sock" in done.stdout  # the proxy's in place of the daemon's


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

"""compose/socket-proxy: containers by way of a real HAProxy, and what that does not let through."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import container_life
import docker_daemon
import pytest
import requests

from tritonfleet.drivers.docker_engine import DEFAULT_HOST, DockerEngine

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker_ways")]

SETTINGS = Path(__file__).parents[2] / "compose" / "socket-proxy" / "haproxy.cfg"


@pytest.fixture
def proxy() -> Iterator[str]:
    """Its address, as DOCKER_HOST has it."""
    docker_daemon.require()
    if shutil.which("haproxy") is None:
        pytest.skip("there is no haproxy (Debian: apt-get install haproxy)")
    with tempfile.TemporaryDirectory(prefix="tfp-") as folder:  # a socket's path must be short
        socket = Path(folder) / "docker.sock"
        daemon = (os.environ.get("DOCKER_HOST") or DEFAULT_HOST).removeprefix("unix://")
        environ = {**os.environ, "PROXY_SOCKET": str(socket), "DOCKER_SOCKET": daemon}
        with subprocess.Popen(["haproxy", "-f", SETTINGS], env=environ, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 20
            while not socket.exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            try:
                yield f"unix://{socket}"
            finally:
                process.kill()


async def test_a_driver_needs_no_more_than_it_lets_through(proxy: str, tmp_path: Path) -> None:
    await container_life.live(tmp_path, proxy, os.environ)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/containers/{}/exec"), ("GET", "/containers/{}/archive?path=/etc"), ("POST", "/build"),
        ("POST", "/containers/{}/rename?name=x"), ("GET", "/volumes"), ("POST", "/networks/create"),
        ("DELETE", "/images/{}"), ("GET", "/info"), ("POST", "/containers/../exec/{}/start"),
        ("PUT", "/containers/{}/archive"), ("POST", "/images/{}/push"), ("GET", "/containers/{}/attach/ws"),
    ],
)  # fmt: skip
def test_everything_else_is_forbidden(proxy: str, method: str, path: str) -> None:
    engine = DockerEngine(proxy, {})
    try:
        client = engine.connect()
        for prefix in ("", "/v1.41"):
            url = client.base_url + prefix + path.format(docker_daemon.IMAGE)
            answer = client.send(client.prepare_request(requests.Request(method, url)))
            assert answer.status_code == 403, (method, path, answer.text)
            answer.close()
    finally:
        engine.close()

"""What a daemon says of itself, asked by the real SDK of a scripted daemon on a real socket."""

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tritonfleet.core.device_access import DeviceLook
from tritonfleet.drivers import docker_facts
from tritonfleet.drivers.docker_engine import DockerEngine

ANSWERS = {
    "/version": {"Version": "27.1.2", "ApiVersion": "1.46", "MinAPIVersion": "1.24"},
    "/info": {"Runtimes": {"runc": {}, "nvidia": {}}},
    "/images/triton:1/json": {"Id": "sha256:1"},
    "/images/json": [{"RepoTags": ["triton:1", "redis:8"]}, {"RepoTags": None}],
    "/exec/1/json": {"ExitCode": 0},
}
SAID = b"GPU 0: a stub (UUID: GPU-00000000-0000-4000-8000-000000000000)\r\n"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        found = next((value for end, value in ANSWERS.items() if path.endswith(end)), None)
        body = json.dumps({"message": f"no such thing: {path}"} if found is None else found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """A command in a container. It is as quick as its daemon, so its output comes with the headers."""
        self.rfile.read(int(self.headers["content-length"]))
        if self.path.endswith("/start"):
            self.wfile.write(b"HTTP/1.1 101 UPGRADED\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\r\n" + SAID)
        else:
            self.wfile.write(b'HTTP/1.1 201 Created\r\ncontent-length: 10\r\n\r\n{"Id":"1"}')

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "docker.sock"
    with socketserver.UnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown()
            thread.join()


def test_version_runtimes_and_images(daemon: str) -> None:
    found = docker_facts.ask(("triton:1", "triton:2"), daemon, {})
    assert (found.error, found.version, found.runtimes) == ("", "27.1.2", ("nvidia", "runc"))
    assert found.images == {"triton:1": True, "triton:2": False}
    assert docker_facts.images(daemon, {}) == ("triton:1", "redis:8")


def test_output_that_comes_with_the_headers_is_not_lost(daemon: str) -> None:
    engine = DockerEngine(daemon, {})
    try:
        look = engine.now("cannot look", lambda client: docker_facts.listed_gpus(client, "main-0.1"))
    finally:
        engine.close()
    assert look == DeviceLook(0, SAID.decode())


def test_no_daemon_says_how_to_have_one(tmp_path: Path) -> None:
    host = f"unix://{tmp_path}/none.sock"
    found = docker_facts.ask(("triton:1",), host, {})
    assert f"no Docker daemon at {host}" in found.error
    assert "systemctl start docker" in found.remedy
    assert docker_facts.images(host, {}) == ()

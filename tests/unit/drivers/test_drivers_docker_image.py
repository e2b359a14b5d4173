"""Pulls by a daemon that says what a test scripts, over a real socket and through the real SDK."""

import asyncio
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tritonfleet.core.image_pull import Layer
from tritonfleet.drivers.base import DriverError
from tritonfleet.drivers.docker_engine import DockerEngine
from tritonfleet.drivers.docker_image import ImageStore

IMAGE = "box:5000/triton:1"


class ScriptedDaemon(socketserver.ThreadingUnixStreamServer):
    """Answers a pull with ``steps``, each when ``go`` is released; has the image once it said all of them."""

    daemon_threads = True

    def __init__(self, path: Path, steps: list[dict[str, Any]]) -> None:
        self.steps, self.go, self.asked, self.there = steps, threading.Semaphore(0), 0, False
        super().__init__(str(path), _Answer)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedDaemon

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        if self.path.endswith("/version"):
            self._json(200, {"ApiVersion": "1.41"})
        else:
            self._json(200 if self.server.there else 404, {"message": "no such image"})

    def do_POST(self) -> None:
        self.server.asked += 1
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for step in self.server.steps:
            self.server.go.acquire()
            line = json.dumps(step).encode() + b"\r\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()
        self.server.there = True
        self.wfile.write(b"0\r\n\r\n")

    def _json(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def daemon(folder: Path, *steps: dict[str, Any]) -> Iterator[tuple[ScriptedDaemon, ImageStore]]:
    path = folder / "d.sock"
    with ScriptedDaemon(path, list(steps)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        engine = DockerEngine(f"unix://{path}", {})
        try:
            yield server, ImageStore(engine)
        finally:
            engine.close()
            server.shutdown()
            thread.join()


def loading(layer: str, current: int) -> dict[str, Any]:
    return {"id": layer, "status": "Downloading", "progressDetail": {"current": current, "total": 8_000_000}}


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 # the state is another thread's
            await asyncio.sleep(0.005)


async def test_each_step_is_seen_as_it_comes_and_one_pull_does_for_all(tmp_path: Path) -> None:
    said: list[str] = []
    with daemon(
        tmp_path, loading("a", 2_000_000), loading("b", 1), {"id": "a", "status": "Pull complete"},
        {"id": "b", "status": "Already exists"},
    ) as (server, store):  # fmt: skip
        waiting = [asyncio.create_task(store.ensure(IMAGE, tell=said.append)) for _ in range(3)]
        server.go.release()
        await until(lambda: any(pull.layers for pull in store.pulls()))
        (pull,) = store.pulls()
        assert (pull.image, pull.layers, pull.ended_at) == (
            IMAGE, (Layer("a", "Downloading", 2_000_000, 8_000_000),), None,
        )  # fmt: skip
        server.go.release(3)
        await asyncio.gather(*waiting)
        (pull,) = store.pulls()
        assert pull.ended_at is not None
        assert [layer.done for layer in pull.layers] == [True, True]
        assert server.asked == 1
    assert said[0] == f"pulling image {IMAGE}"
    assert said[-1].startswith(f"pulled image {IMAGE} in 0 s: 2 of 2 layers")


@pytest.mark.parametrize("words", ["no space left on device", "manifest unknown"])
async def test_a_pull_that_breaks_off_is_told_in_the_daemon_s_words(tmp_path: Path, words: str) -> None:
    with daemon(tmp_path, loading("a", 1), {"error": words, "errorDetail": {"message": words}}) as (
        server,
        store,
    ):
        server.go.release(2)
        with pytest.raises(DriverError, match=words) as caught:
            await store.ensure(IMAGE, tell=lambda _: None)
        assert f"docker pull {IMAGE}" in caught.value.remedy
        (pull,) = store.pulls()
        assert words in pull.error
        assert pull.ended_at is not None

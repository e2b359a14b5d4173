"""A control API whose answers a test writes: real HTTP on a real unix socket, no fleet behind it."""

import socketserver
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from tritonfleet.core.board import Board
from tritonfleet.core.launched import Launched
from tritonfleet.core.rollout import RolloutStatus
from tritonfleet.core.wire import Accepted, AutoscaleStatus, Event, FleetSnapshot, Problem, RpcAnswer


class ControlServer:
    """``snapshots`` are given one by one, the last for ever; ``requests`` records what was asked."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.snapshots: list[FleetSnapshot] = []
        self.board: Board | None = None
        self.rpc: RpcAnswer | None = None
        self.autoscale: list[AutoscaleStatus] = []
        self.launched: Launched | None = None
        self.rollout = RolloutStatus((), ())
        self.events: list[Event] = []
        self.later_events: list[Event] = []  # only for those who follow; then the stream ends
        self.refusals: dict[str, tuple[int, Any]] = {}  # path → status and body
        self.requests: list[tuple[str, str, Any]] = []
        self.close_after: str = ""  # a path with whose answer the server goes away

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        url = urlsplit(target)
        path = url.path.removeprefix("/v1")
        self.requests.append((method, path, msgspec.json.decode(body) if body else None))
        if path in self.refusals:
            status, answer = self.refusals[path]
            return status, answer if isinstance(answer, bytes) else msgspec.json.encode(answer)
        if path == "/snapshot":
            shown = self.snapshots.pop(0) if len(self.snapshots) > 1 else self.snapshots[0]
            return 200, msgspec.json.encode(shown)
        if path == "/board" and self.board is not None:
            return 200, msgspec.json.encode(self.board)
        if path == "/router/rpc" and self.rpc is not None:
            return 200, msgspec.json.encode(self.rpc)
        if path.endswith("/launch") and self.launched is not None:
            return 200, msgspec.json.encode(self.launched)
        if path == "/autoscale":
            return 200, msgspec.json.encode(self.autoscale)
        if path == "/rollout":
            return 200, msgspec.json.encode(self.rollout)
        if path == "/events":
            query = parse_qs(url.query)
            since = int(query["since"][0])
            shown_events = [*self.events, *(self.later_events if "follow" in query else [])]
            lines = [msgspec.json.encode(event) for event in shown_events if event.seq > since]
            return 200, b"".join(line + b"\n" for line in lines)
        if method == "POST":
            return 200, msgspec.json.encode(Accepted(f"accepted {path}", 1))
        return 404, msgspec.json.encode(Problem("not_found", f"no {path}"))


@contextmanager
def serve(socket: Path | None = None) -> Iterator[ControlServer]:
    """On ``socket``, or on one of its own in a short temporary folder."""
    with tempfile.TemporaryDirectory(prefix="tfcli-") as folder:
        control = ControlServer(socket or Path(folder) / "control.sock")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _respond(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                status, answer = control.answer(self.command, self.path, body)
                if control.close_after and control.close_after in self.path:
                    self.close_connection = True
                    control.socket.unlink()
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = _respond  # noqa: N815 - the names http.server calls

            def address_string(self) -> str:
                return "unix"

            def log_message(self, *_: object) -> None:
                return

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True
            block_on_close = False

        control.socket.parent.mkdir(parents=True, exist_ok=True)
        with Server(str(control.socket), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield control
            finally:
                server.shutdown()
                thread.join()
                control.socket.unlink(missing_ok=True)

"""A real router worker, and a gRPC server to stand behind it."""

import asyncio
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
import msgspec

from tritonfleet.core.limits import RouterLimits
from tritonfleet.core.wire import RouterTable, TableReplica

SILENT = b"silent"
STREAMS = 4  # of a neighbour: the router has two connections to a replica, and takes the emptier one
PAUSE_S = 0.01  # between a neighbour's calls, whose CPU time counts as the attack's


@contextmanager
def running_worker(
    folder: Path,
    *rows: TableReplica,
    drain_timeout_s: float = 1,
    limits: RouterLimits = RouterLimits(),  # noqa: B008 # frozen, so calls may share it
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A worker process with a fixed table, and its port."""
    table = folder / "table.json"
    table.write_bytes(msgspec.json.encode(RouterTable("conformance", 1, "least_work", rows)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [sys.executable, "-m", "tritonfleet.router", "--listen", f"127.0.0.1:{port}"]
    command += ["--table", str(table), "--drain-timeout", f"{drain_timeout_s:g}"]
    process = subprocess.Popen([*command, "--limits", msgspec.json.encode(limits).decode()])
    try:
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port, process
    finally:
        process.terminate()
        process.wait(20)


@dataclass
class Target:
    """A worker in front of a gRPC server, and a client of good will beside the attacker."""

    port: int
    pid: int
    channel: grpc.Channel
    seen: list[str]  # paths of the requests that reached the server

    def rss_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_s(self) -> float:
        """Seconds that the worker has computed."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def neighbour_is_well(self) -> None:
        call = self.channel.unary_unary("/good.Neighbour/Echo")
        for number in range(5):
            assert call(b"%d" % number, timeout=20) == b"%d" % number


class Neighbour:
    """Somebody else's calls while an attack is under way: streams that are open throughout, on every
    connection to the replica, and a call after the other. What befell any of them is in ``failures``."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._over = threading.Event()
        self._said: list[queue.Queue[bytes | None]] = [queue.Queue() for _ in range(STREAMS)]
        talk = channel.stream_stream("/good.Neighbour/Talk")
        self._talks = [talk(iter(said.get, None), timeout=60) for said in self._said]
        self._asking = threading.Thread(target=self._ask)
        self.failures: list[str] = []
        self.answered = 0

    def __enter__(self) -> Self:
        self.talk(b"before")
        self._asking.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        for said in self._said:
            said.put(None)
        self._asking.join()
        for talk in self._talks:
            talk.cancel()

    def _ask(self) -> None:
        call = self._channel.unary_unary("/good.Neighbour/Echo")
        while not self._over.wait(PAUSE_S):
            try:
                assert call(b"during", timeout=20) == b"during"
                self.answered += 1
            except (grpc.RpcError, AssertionError) as error:
                self.failures.append(repr(error))

    def talk(self, words: bytes) -> None:
        """A message in each of the streams, and its answer."""
        for said, answers in zip(self._said, self._talks, strict=True):
            said.put(words)
            assert next(answers) == words

    def is_unharmed(self) -> None:
        """The streams that were open go on, and no call has failed."""
        self.talk(b"after")
        assert self.failures == []


class _Server(grpc.GenericRpcHandler):
    """Answers /big.Answer/BYTES with so many bytes, a message with SILENT never, everything else with the
    message it got, /good.Neighbour/Talk one after the other."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        self.seen.append(details.method)
        kind, _, rest = details.method.lstrip("/").partition("/")

        async def answer(message: bytes, _context: grpc.aio.ServicerContext) -> bytes:
            if SILENT in message:
                await asyncio.get_running_loop().create_future()
            return bytes(int(rest)) if kind == "big.Answer" else message

        async def answers(
            messages: AsyncIterator[bytes], _context: grpc.aio.ServicerContext
        ) -> AsyncIterator[bytes]:
            async for message in messages:
                yield message

        if details.method == "/good.Neighbour/Talk":
            return grpc.stream_stream_rpc_method_handler(answers)
        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def grpc_server(slots: dict[str, int] | None = None) -> Iterator[tuple[TableReplica, list[str]]]:
    """A server as `_Server` says, as a row of the router's table; and the paths it has seen. Of a model in
    ``slots`` it is given so many calls at a time."""
    seen: list[str] = []
    ports: queue.Queue[int] = queue.Queue()
    ended = threading.Event()

    async def serve() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Server(seen),))
        ports.put(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        await asyncio.to_thread(ended.wait)
        await server.stop(None)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield (
            TableReplica(
                "m-0", "m-0.1", "m", "127.0.0.1", ports.get(), False, tuple(slots or ()), slots or {}
            ),
            seen,
        )
    finally:
        ended.set()
        thread.join()

"""A real router worker, and a gRPC server to stand behind it."""

import asyncio
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import msgspec

from tritonfleet.core.wire import RouterTable, TableReplica

SILENT = b"silent"


@contextmanager
def running_worker(
    folder: Path, *rows: TableReplica, drain_timeout_s: float = 1
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A worker process with a fixed table, and its port."""
    table = folder / "table.json"
    table.write_bytes(msgspec.json.encode(RouterTable("conformance", 1, "least_work", rows)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [sys.executable, "-m", "tritonfleet.router", "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen([*command, "--table", str(table), "--drain-timeout", f"{drain_timeout_s:g}"])
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
            assert call(b"%d" % number, timeout=20, wait_for_ready=True) == b"%d" % number


class _Server(grpc.GenericRpcHandler):
    """Answers /big.Answer/BYTES with so many bytes, a message with SILENT never, everything else with the
    message it got."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        self.seen.append(details.method)
        kind, _, rest = details.method.lstrip("/").partition("/")

        async def answer(message: bytes, _context: grpc.aio.ServicerContext) -> bytes:
            if SILENT in message:
                await asyncio.get_running_loop().create_future()
            return bytes(int(rest)) if kind == "big.Answer" else message

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

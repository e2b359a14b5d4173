"""A real router worker, and a gRPC server to stand behind it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import msgspec

from tritonfleet.core.wire import RouterTable, TableReplica


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

    def neighbour_is_well(self) -> None:
        call = self.channel.unary_unary("/good.Neighbour/Echo")
        for number in range(5):
            assert call(b"%d" % number, timeout=20, wait_for_ready=True) == b"%d" % number


class _Server(grpc.GenericRpcHandler):
    """Answers /big.Answer/BYTES with so many bytes, everything else with the message it got."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        self.seen.append(details.method)
        kind, _, rest = details.method.lstrip("/").partition("/")

        def answer(message: bytes, _context: grpc.ServicerContext) -> bytes:
            return bytes(int(rest)) if kind == "big.Answer" else message

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def grpc_server() -> Iterator[tuple[TableReplica, list[str]]]:
    """A server as `_Server` says, as a row of the router's table; and the paths it has seen."""
    seen: list[str] = []
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((_Server(seen),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield TableReplica("m-0", "m-0.1", "m", "127.0.0.1", port, False, ()), seen
    finally:
        server.stop(None).wait()

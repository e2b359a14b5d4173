"""Many connections: what each costs a proxy in memory, idle and with a call in flight.

The clients are sockets that speak just enough HTTP/2: a greeting, then one ModelStreamInfer that sends one
message, is answered, and stays open. So every call is in flight at the proxy and at a replica, and no time is
measured.
"""

import resource
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import load
from processes import family, rss_bytes

from tritonfleet.http2 import frames
from tritonfleet.http2.fields import encode

SETTLE_S = 0.5  # after the last byte, before memory is read
TIMEOUT_S = 60.0
STREAM = b"\0\0\0\1"


@dataclass(frozen=True)
class Memory:
    """Resident memory, bytes: of the proxy before, and with all connections idle, and in use."""

    connections: int
    before: int
    idle: int
    in_use: int

    @property
    def idle_kb(self) -> float:
        """kB for each idle connection."""
        return (self.idle - self.before) / self.connections / 1000

    @property
    def in_use_kb(self) -> float:
        """kB for each connection with a call in flight."""
        return (self.in_use - self.before) / self.connections / 1000

    @property
    def total_mb(self) -> float:
        return self.in_use / 1e6


def allow_files(count: int) -> None:
    """Let this process, and the proxies it will start, open so many files. Raises OSError where the system
    does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(hard, count)))


def measure(address: str, pid: int, count: int) -> Memory:
    """Open ``count`` connections to the proxy, then a call on each. Raises RuntimeError if one fails."""
    pids = family(pid)
    before = rss_bytes(pids)
    with opened(address, count) as sockets:
        time.sleep(SETTLE_S)
        idle = rss_bytes(pids)
        begin_calls(address, sockets)
        time.sleep(SETTLE_S)
        return Memory(count, before, idle, rss_bytes(pids))


@contextmanager
def opened(address: str, count: int) -> Iterator[list[socket.socket]]:
    """Greeted connections."""
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        sockets = []
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection((host, int(port)), TIMEOUT_S))
            sock.sendall(frames.PREFACE + frames.settings({}) + frames.SETTINGS_ACK)
            sockets.append(sock)
        for sock in sockets:
            _until(sock, lambda kind, _flags, _stream: kind == frames.SETTINGS, address)
        yield sockets


def begin_calls(address: str, sockets: Sequence[socket.socket]) -> None:
    """One stream on each connection, which has answered once when this returns."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", f"/{load.SERVICE}/ModelStreamInfer".encode()),
        (b":authority", address.encode()),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
    request = frames.headers(STREAM, encode(fields), False, frames.DEFAULT_MAX_FRAME)
    request += frames.frame(frames.DATA, 0, STREAM, load.echo(16))
    for sock in sockets:
        sock.sendall(request)
    for sock in sockets:
        _until(sock, lambda kind, _flags, stream: kind == frames.DATA and stream == STREAM, address)


def _until(sock: socket.socket, wanted: Callable[[int, int, bytes], bool], address: str) -> None:
    """Read frames up to the ``wanted`` one. Raises RuntimeError if the call or the connection ends before."""
    while True:
        head = _exactly(sock, frames.HEADER_LENGTH, address)
        length, kind, flags, stream = int.from_bytes(head[:3], "big"), head[3], head[4], head[5:]
        _exactly(sock, length, address)
        if wanted(kind, flags, stream):
            return
        over = stream == STREAM and (kind == frames.RST_STREAM or flags & frames.END_STREAM)
        if kind == frames.GOAWAY or over:
            raise RuntimeError(f"{address} ended a call or connection of many")


def _exactly(sock: socket.socket, size: int, address: str) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise RuntimeError(f"{address} closed one of many connections")
        data += more
    return data

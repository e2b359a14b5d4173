"""The load generator's HTTP/2 client: unary calls whose requests are bytes made beforehand.

It is the router's own protocol machine, seen from the other side: a generator that spends more on a call than
the router could not load it. docs/bench.md has the measurement.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from urllib.parse import unquote

from tritonfleet.http2.fields import Fields, encode
from tritonfleet.http2.frames import ErrorCode
from tritonfleet.http2.stream import Buffer, Stream
from tritonfleet.router import grpc
from tritonfleet.router.grpc import Status
from tritonfleet.router.transport import SocketConnection, Touched, flush_all

CONNECT_TIMEOUT_S = 5.0
RECONNECT_S = 0.2


class Exchange(Stream):
    """One call. ``due`` is when it should have been sent, by `time.perf_counter`; latency counts from there.
    ``ended`` is called once, when ``status`` says how."""

    __slots__ = ("body", "chunks", "due", "ended", "ended_at", "place", "sent_at", "status", "text")

    def __init__(
        self, connection: LoadConnection, stream_id: bytes, ended: Callable[[Exchange], None]
    ) -> None:
        super().__init__(connection, stream_id)
        self.ended = ended
        self.due = self.sent_at = self.ended_at = 0.0
        self.chunks: list[bytes] = []
        self.status = -1
        self.text = ""
        self.place = 0  # the caller's: which of its slots this is

    @classmethod
    def never_sent(cls, unsent: Unsent, text: str) -> Exchange:
        """How a call ends that no connection took in time: without a stream."""
        exchange = cls.__new__(cls)
        exchange.due, exchange.place = unsent.due, unsent.place
        exchange.sent_at = exchange.ended_at = perf_counter()
        exchange.chunks, exchange.status, exchange.text = [], Status.UNAVAILABLE, text
        return exchange

    @property
    def message(self) -> bytes:
        """The answer, without gRPC's prefix."""
        return b"".join(self.chunks)[5:]


@dataclass(slots=True)
class Unsent:
    """A call that waits for a stream: its connection is being made, or has as many as its peer allows."""

    block: bytes
    body: bytes
    due: float
    place: int
    ended: Callable[[Exchange], None]


class LoadConnection(SocketConnection):
    """One connection; all its calls are ours."""

    is_client = True
    credit_on_receipt = True
    stream_window = 8 << 20
    connection_window = 64 << 20

    def __init__(self, client: LoadClient) -> None:
        self.client = client
        self.refusing = False  # it said GOAWAY
        self.closed = asyncio.Event()
        super().__init__(client.touched, client.loop)

    @property
    def has_room(self) -> bool:
        return not self.refusing and self.transport is not None and len(self.streams) < self.peer_max_streams

    def call(self, block: bytes, body: bytes, ended: Callable[[Exchange], None]) -> Exchange:
        """Send a request; ``body`` has gRPC's prefix."""
        stream_id = self.open_stream_id()
        exchange = Exchange(self, stream_id, ended)
        self.streams[stream_id] = exchange
        self.send_headers(exchange, block, False)
        self.send_data(exchange, body, True)
        return exchange

    def on_headers(self, _id: bytes, stream: Stream | None, fields: Fields, end_stream: bool) -> None:
        exchange: Exchange = stream  # type: ignore[assignment] # every stream of this connection is an Exchange
        if end_stream:
            status = grpc.status_of(fields)
            text = unquote((fields.get(b"grpc-message") or b"").decode("latin-1")) if status else ""
            self._end(exchange, status, text)

    def on_data(self, stream: Stream, payload: Buffer, end_stream: bool) -> None:
        exchange: Exchange = stream  # type: ignore[assignment] # see on_headers
        exchange.chunks.append(bytes(payload))
        self.credit(stream, len(payload))
        if end_stream:
            self._end(exchange, Status.UNKNOWN, "an answer without a gRPC status")

    def on_reset(self, stream: Stream, code: int) -> None:
        name = ErrorCode(code).name if code in set(ErrorCode) else str(code)
        refused = code == ErrorCode.REFUSED_STREAM
        status = Status.UNAVAILABLE if refused else Status.INTERNAL
        self._end(stream, status, f"reset by the server: {name}")  # type: ignore[arg-type] # see on_headers

    def on_goaway(self, last_stream: bytes, _code: int, _debug: bytes) -> None:
        self.refusing = True
        for stream_id, stream in list(self.streams.items()):
            if stream_id > last_stream:
                del self.streams[stream_id]
                self._end(stream, Status.UNAVAILABLE, "the server is shutting down")  # type: ignore[arg-type] # see on_headers
        self.closed.set()
        if not self.streams:
            self.close()

    def on_settings(self) -> None:
        self.client.send_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        lost, self.streams = list(self.streams.values()), {}
        for stream in lost:
            why = f"the connection was lost: {exc or 'the server closed it'}"
            self._end(stream, Status.UNAVAILABLE, why)  # type: ignore[arg-type] # see on_headers
        self.blocked.clear()
        self.closed.set()

    def give_up(self, exchange: Exchange, status: Status, text: str) -> None:
        self.send_reset(exchange, ErrorCode.CANCEL)
        self._end(exchange, status, text)

    def _end(self, exchange: Exchange, status: int, text: str) -> None:
        if exchange.status >= 0:
            return
        exchange.status, exchange.text, exchange.ended_at = status, text, perf_counter()
        exchange.ended(exchange)
        if self.refusing and not self.streams:
            self.close()
        elif self.client.waiting:
            self.client.send_waiting()


class LoadClient:
    """Several connections to one address, each opened again when it is lost."""

    def __init__(
        self, host: str, port: int, connections: int, timeout_s: float, tls: ssl.SSLContext | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:  # fmt: skip
        self.loop = asyncio.get_running_loop()
        self.touched = Touched()
        self.waiting: deque[Unsent] = deque()
        self.timeout_s = timeout_s
        self.last_error = ""
        self._host, self._port, self._tls, self._headers = host, port, tls, headers
        self._slots: list[LoadConnection | None] = [None] * connections
        self._next = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect for the first time. Raises OSError (TimeoutError is one) if that fails."""
        for index in range(len(self._slots)):
            self._slots[index] = await self._connect()
        self._tasks = [asyncio.create_task(self._keep(index)) for index in range(len(self._slots))]
        self._tasks.append(asyncio.create_task(self._watch_deadlines()))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._slots:
            if connection is not None and connection.transport is not None:
                connection.close()
                await connection.closed.wait()

    def block(self, path: str) -> bytes:
        """The header block of every call to ``path``."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return encode(
            (
                (b":method", b"POST"),
                (b":scheme", b"https" if self._tls is not None else b"http"),
                (b":path", path.encode()),
                (b":authority", f"{host}:{self._port}".encode()),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"user-agent", b"tritonfleet-bench"),
                (b"grpc-timeout", b"%dm" % max(1, min(round(self.timeout_s * 1000), 99_999_999))),
                *self._headers,
            )
        )

    def send(
        self, block: bytes, body: bytes, due: float, place: int, ended: Callable[[Exchange], None]
    ) -> None:
        """Send now, or as soon as a connection has room. `flush` or the turn's end writes it. Requests of one
        ``place`` below 0 go over one connection, in order: those of sequence ``-place``."""
        slots = self._slots
        for _ in range(len(slots)):
            if place < 0:
                connection = slots[-place % len(slots)]
            else:
                self._next = (self._next + 1) % len(slots)
                connection = slots[self._next]
            if connection is not None and connection.has_room:
                exchange = connection.call(block, body, ended)
                exchange.due, exchange.place, exchange.sent_at = due, place, perf_counter()
                return
        self.waiting.append(Unsent(block, body, due, place, ended))

    def send_waiting(self) -> None:
        """Try what waits, oldest first. What still has no room waits on."""
        for _ in range(len(self.waiting)):
            if not any(slot is not None and slot.has_room for slot in self._slots):
                return
            unsent = self.waiting.popleft()
            self.send(unsent.block, unsent.body, unsent.due, unsent.place, unsent.ended)

    def flush(self) -> None:
        flush_all(self.touched)

    async def ask(self, path: str, message: bytes) -> Exchange:
        """One call, waited for."""
        done: asyncio.Future[Exchange] = self.loop.create_future()
        body = framed(message)
        self.send(self.block(path), body, perf_counter(), 0, lambda exchange: done.set_result(exchange))
        self.flush()
        return await done

    @property
    def in_flight(self) -> int:
        return sum(len(slot.streams) for slot in self._slots if slot is not None)

    def abandon(self, text: str) -> None:
        """Give up everything under way."""
        self.waiting.clear()
        self._give_up(perf_counter(), text)
        self.flush()

    async def _connect(self) -> LoadConnection:
        name = self._host if self._tls is not None else None
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, connection = await self.loop.create_connection(
                lambda: LoadConnection(self), self._host, self._port, ssl=self._tls, server_hostname=name
            )
        return connection

    async def _keep(self, index: int) -> None:
        while True:
            connection = self._slots[index]
            if connection is not None:
                await connection.closed.wait()
            self._slots[index] = None
            try:
                self._slots[index] = await self._connect()
                self.send_waiting()
                self.flush()
            except OSError as error:
                self.last_error = str(error) or f"no connection within {CONNECT_TIMEOUT_S:g} s"
                await asyncio.sleep(RECONNECT_S)

    async def _watch_deadlines(self) -> None:
        """A server that is silent is given up shortly after the deadline it was told."""
        while True:
            await asyncio.sleep(0.5)
            latest = perf_counter() - self.timeout_s - 1.0
            while self.waiting and self.waiting[0].due < latest:
                unsent = self.waiting.popleft()
                unsent.ended(Exchange.never_sent(unsent, f"no connection had room for it: {self.last_error}"))
            if self._give_up(latest, "no answer in time"):
                self.flush()

    def _give_up(self, latest: float, text: str) -> int:
        """What was sent before ``latest``; how many that were."""
        count = 0
        for slot in self._slots:
            for stream in list(slot.streams.values()) if slot is not None else ():
                exchange: Exchange = stream  # type: ignore[assignment] # see LoadConnection.on_headers
                if slot is not None and exchange.sent_at < latest:
                    slot.give_up(exchange, Status.DEADLINE_EXCEEDED, text)
                    count += 1
        return count


def framed(message: bytes) -> bytes:
    """With gRPC's prefix: not compressed, length."""
    return b"\0" + len(message).to_bytes(4, "big") + message

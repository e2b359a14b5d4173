"""A router in this event loop, replicas that follow a script, and raw and gRPC clients to drive them.

The scripted replica speaks HTTP/2 by the `h2` library, so that it shares nothing with the code under test.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from tritonfleet.core.limits import RouterLimits
from tritonfleet.core.wire import RouterSettings, RouterTable, TableReplica
from tritonfleet.router.client import ClientConnection
from tritonfleet.router.dispatch import Dispatcher

OK = [(":status", "200"), ("content-type", "application/grpc")]
DONE = [("grpc-status", "0")]


def message(body: bytes) -> bytes:
    return b"\0" + len(body).to_bytes(4, "big") + body


@dataclass
class Request:
    connection: "ReplicaProtocol"
    stream: int
    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)

    def answer(self, body: bytes = b"", *, trailers: list[tuple[str, str]] = DONE) -> None:
        h2 = self.connection.h2
        h2.send_headers(self.stream, OK)
        self.connection.send_body(self.stream, message(body), trailers)

    def reset(self, code: int) -> None:
        self.connection.h2.reset_stream(self.stream, code)
        self.connection.flush()


class ReplicaProtocol(asyncio.Protocol):
    def __init__(self, replica: "ScriptedReplica") -> None:
        self.replica = replica
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self.requests: dict[int, Request] = {}
        self.unsent: dict[int, tuple[bytes, list[tuple[str, str]]]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.replica.connections.append(self)
        self.h2.initiate_connection()
        self.h2.update_settings(self.replica.settings)
        self.flush()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.replica.connections.remove(self)

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def send_body(self, stream: int, body: bytes, trailers: list[tuple[str, str]]) -> None:
        while body:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(body))
            if room <= 0:
                self.unsent[stream] = (body, trailers)
                return self.flush()
            self.h2.send_data(stream, body[:room])
            body = body[room:]
        self.h2.send_headers(stream, trailers, end_stream=True)
        return self.flush()

    def data_received(self, data: bytes) -> None:
        if self.h2.state_machine.state is h2.connection.ConnectionState.CLOSED:
            return  # it has said GOAWAY, and ignores what comes (RFC 9113, 6.8), which h2 takes for an error
        for event in self.h2.receive_data(data):
            self.replica.seen.append(event)
            if isinstance(event, h2.events.RequestReceived):
                request = Request(self, event.stream_id, dict(event.headers))
                self.requests[event.stream_id] = request
                self.replica.on_start(request)
            elif isinstance(event, h2.events.DataReceived):
                self.requests[event.stream_id].body += event.data
                if self.replica.credits:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                request = self.requests[event.stream_id]
                self.replica.requests.append(request)
                self.replica.on_request(request)
            elif isinstance(event, h2.events.WindowUpdated):
                for stream, (body, trailers) in list(self.unsent.items()):
                    del self.unsent[stream]
                    with suppress(h2.exceptions.StreamClosedError):  # reset in the same read
                        self.send_body(stream, body, trailers)
        self.flush()


class ScriptedReplica:
    """An HTTP/2 server whose answers are a function. By default it echoes."""

    def __init__(self, on_request: Callable[[Request], object] | None = None, **settings: int) -> None:
        self.on_request: Callable[[Request], object] = on_request or (lambda r: r.answer(bytes(r.body[5:])))
        self.on_start: Callable[[Request], object] = lambda _request: None
        self.credits = True
        self.settings = {getattr(h2.settings.SettingCodes, key): value for key, value in settings.items()}
        self.connections: list[ReplicaProtocol] = []
        self.requests: list[Request] = []
        self.seen: list[h2.events.Event] = []
        self.port = 0

    async def start(self, port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: ReplicaProtocol(self), "127.0.0.1", port)
        self.port = self.server.sockets[0].getsockname()[1]

    def hang_up(self) -> None:
        """As a process that was killed: everything closes at once."""
        self.server.close()
        for connection in list(self.connections):
            connection.transport.abort()

    async def stop(self) -> None:
        self.hang_up()
        await asyncio.sleep(0)


class Router:
    """A worker's dispatcher with a listening socket, in this loop."""

    def __init__(
        self,
        replicas: list[ScriptedReplica],
        policy: str = "round_robin",
        limits: RouterLimits = RouterLimits(),  # noqa: B008 # frozen
    ) -> None:
        self.scripted = replicas
        self.policy = policy
        self.revision = 0
        self.slots: dict[str, int] = {}
        self.strict = True
        self.settings = RouterSettings()
        self.dispatcher = Dispatcher(connections_per_replica=1, limits=limits)
        self.port = 0

    def table(self, *, draining: tuple[int, ...] = (), without: tuple[int, ...] = ()) -> RouterTable:
        self.revision += 1
        rows = (
            TableReplica(
                f"m-{i}",
                f"m-{i}.1",
                "m",
                "127.0.0.1",
                replica.port,
                i in draining,
                ("model",),
                self.slots,
                strict=self.strict,
            )
            for i, replica in enumerate(self.scripted)
            if i not in without
        )
        return RouterTable("test", self.revision, self.policy, tuple(rows), self.settings)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.dispatcher.apply(self.table())
        self.server = await loop.create_server(lambda: ClientConnection(self.dispatcher), "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        await until(lambda: all(r.connections for r in self.dispatcher.replicas.values()))

    async def stop(self) -> None:
        self.server.close()
        for client in list(self.dispatcher.clients):
            client.close()
        for transport in list(self.dispatcher.touched.deaf):
            transport.abort()
        for replica in (*self.dispatcher.replicas.values(), *self.dispatcher.retired.values()):
            await replica.close()
        await asyncio.sleep(0)

    def in_flight(self) -> int:
        everyone = (*self.dispatcher.replicas.values(), *self.dispatcher.retired.values())
        return sum(r.in_flight for r in everyone) + sum(
            s.in_flight for r in everyone for s in r.stats.values()
        )


@asynccontextmanager
async def router_of(
    *replicas: ScriptedReplica,
    policy: str = "round_robin",
    slots: dict[str, int] | None = None,
    strict: bool = True,
    limits: RouterLimits = RouterLimits(),  # noqa: B008 # frozen
) -> AsyncIterator[Router]:
    """A started router over started replicas; afterwards nothing is in flight any more, whatever happened."""
    for replica in replicas:
        await replica.start()
    router = Router(list(replicas), policy, limits)
    router.slots, router.strict = slots or {}, strict
    await router.start()
    try:
        yield router
        await until(lambda: router.in_flight() == 0)
    finally:
        await router.stop()
        for replica in replicas:
            await replica.stop()


class RawClient(asyncio.Protocol):
    """An HTTP/2 client by the `h2` library: for what no gRPC client can be made to do."""

    def __init__(self) -> None:
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        )
        self.events: list[h2.events.Event] = []
        self.unsent: dict[int, bytes] = {}
        self.credits = True
        self.closed = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.h2.initiate_connection()
        self.flush()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.closed = True

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived) and self.credits:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamReset):  # it wants no more of it
                self.unsent.pop(event.stream_id, None)
        self._pump()

    def request(self, body: bytes | None = b"", path: str = "/x.Y/Z", **extra: str) -> int:
        """Send a request; without a body (None) its stream stays open."""
        stream = self.h2.get_next_available_stream_id()
        headers = {
            ":method": "POST", ":scheme": "http", ":authority": "x", ":path": path,
            "content-type": "application/grpc", "te": "trailers", **extra,
        }  # fmt: skip
        self.h2.send_headers(stream, list(headers.items()))
        if body is not None:
            self.h2.send_data(stream, message(body), end_stream=True)
        self.flush()
        return stream

    def send_all(self, stream: int, data: bytes) -> None:
        """Send a body of any size as the windows allow, then end the stream."""
        self.unsent[stream] = data
        self._pump()

    def _pump(self) -> None:
        for stream, data in list(self.unsent.items()):
            while data:
                room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
                if room <= 0:
                    break
                self.h2.send_data(stream, data[:room])
                data = data[room:]
            self.unsent[stream] = data
            if not data:
                del self.unsent[stream]
                self.h2.end_stream(stream)
        self.flush()

    def of(self, kind: type[h2.events.Event], stream: int | None = None) -> list[h2.events.Event]:
        return [
            e for e in self.events if isinstance(e, kind) and stream in (None, getattr(e, "stream_id", None))
        ]

    def body(self, stream: int) -> bytes:
        return b"".join(event.data for event in self.of(h2.events.DataReceived, stream))

    def status(self, stream: int) -> tuple[int, str] | None:
        """The call's gRPC status and message once its trailers are here."""
        kinds = (h2.events.TrailersReceived, h2.events.ResponseReceived)
        for event in (e for kind in kinds for e in self.of(kind, stream)):
            found = dict(event.headers)
            if "grpc-status" in found:
                return int(found["grpc-status"]), found.get("grpc-message", "")
        return None

    async def finished(self, stream: int) -> tuple[int, str]:
        await until(lambda: self.status(stream) is not None)
        status = self.status(stream)
        assert status is not None
        return status


@asynccontextmanager
async def raw_client(port: int) -> AsyncIterator[RawClient]:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(RawClient, "127.0.0.1", port)
    try:
        yield client
    finally:
        client.transport.abort()
        await until(lambda: client.closed)


async def until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Wait for something to become true; the time is a bound for a broken run, not an expectation."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 # the conditions are of any kind
            await asyncio.sleep(0.005)

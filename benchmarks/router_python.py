"""How much Python runs for one request in the router: its code alone, in this process, without sockets.

Four clients and two replicas (two connections each) are real connections of the router on transports that
forget what is written. Requests are fed to the clients as bytes; what comes out at the replicas is answered
as bytes. CPU time of this thread, by phase; the smallest of many short runs, since what else the machine does
only adds. The steadiest of all measurements: what a change of the router's code saves shows here first.

    python benchmarks/router_python.py [--rpc ModelInfer] [--at-once 4] [--cold 4] [--profile]

``--cold 4`` goes through 4 MB of other memory before each read, as when other processes had the core
meanwhile: what a call costs whose code and data are in no cache of the core's own.

Of ModelStreamInfer every client keeps so many streams open, and a request is a message in one of them.
"""

import argparse
import asyncio
import cProfile
import gc
import pstats
import sys
from dataclasses import dataclass, field
from statistics import median
from time import thread_time

import hpack
import load
import numpy as np

from tritonfleet.core.wire import RouterSettings, RouterTable, TableReplica
from tritonfleet.http2 import frames
from tritonfleet.router.call import CallStats
from tritonfleet.router.client import ClientConnection
from tritonfleet.router.dispatch import Dispatcher
from tritonfleet.router.replica import ReplicaConnection
from tritonfleet.router.transport import flush_all

CLIENTS, REPLICAS, CONNECTIONS = 4, 2, 2
ANSWER = load.framed(bytes(120))  # about what ModelMetadata of `digits` has
STREAM_ANSWER = load.framed(  # to a request of 16 bytes, as Triton writes it
    b'\x12M\n\x04echo\x12\x011"\x1b\n\x15triton_final_response\x12\x02\x08\x01*\x13\n\x07OUTPUT0\x12\x05UINT8\x1a'
    b"\x01\x102\x10" + bytes(16)
)
WIDE = 1 << 30  # windows that never close
CACHE_LINE = 64  # bytes


class Transport:
    """Takes what is written, and forgets it."""

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int) -> None: ...

    def write(self, data: bytes) -> None: ...

    def writelines(self, data: list[bytes]) -> None: ...

    def get_extra_info(self, _name: str) -> None: ...


@dataclass
class Phases:
    """CPU seconds: from a client's bytes to a replica's, from the replica's answer to the client's."""

    requests: float = 0.0
    requests_written: float = 0.0
    answers: float = 0.0
    answers_written: float = 0.0

    @property
    def all(self) -> float:
        return self.requests + self.requests_written + self.answers + self.answers_written


@dataclass
class Client:
    connection: ClientConnection
    encoder: hpack.Encoder = field(default_factory=hpack.Encoder)
    next_stream: int = 1

    def requests(self, rpc: str, body: bytes, count: int, *, ends: bool = True) -> bytes:
        """As h2load sends them: HEADERS through a dynamic table, DATA with the end, unless it is a stream."""
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "127.0.0.1:8001"),
            (":path", f"/{load.SERVICE}/{rpc}"),
            ("user-agent", "h2load nghttp2/1.52.0"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        parts = []
        for _ in range(count):
            stream, self.next_stream = self.next_stream.to_bytes(4, "big"), self.next_stream + 2
            block = self.encoder.encode(fields)
            parts += [
                frames.headers(stream, block, False, frames.DEFAULT_MAX_FRAME),
                frames.frame(frames.DATA, frames.END_STREAM if ends else 0, stream, body),
            ]
        return b"".join(parts)


class Server:
    """The far end of a replica's connection."""

    def __init__(self, connection: ReplicaConnection) -> None:
        self.connection = connection
        encoder = hpack.Encoder()
        headers = [(":status", "200"), ("content-type", "application/grpc")]
        connection.receive(frames.settings({}))
        for _ in range(2):  # the second time everything is in the table, as in all later answers
            self._head = encoder.encode([*headers, ("grpc-accept-encoding", "identity, deflate, gzip")])
            self._tail = encoder.encode([("grpc-status", "0")])
            given_up = connection.open_stream_id()  # its answer only teaches the decoder
            for block in (self._head, self._tail):
                connection.receive(frames.headers(given_up, block, False, frames.DEFAULT_MAX_FRAME))

    def heads(self) -> bytes:
        return b"".join(
            frames.headers(stream, self._head, False, frames.DEFAULT_MAX_FRAME)
            for stream in self.connection.streams
        )

    def answers(self) -> bytes:
        return b"".join(
            frames.headers(stream, self._head, False, frames.DEFAULT_MAX_FRAME)
            + frames.frame(frames.DATA, 0, stream, ANSWER)
            + frames.headers(stream, self._tail, True, frames.DEFAULT_MAX_FRAME)
            for stream in self.connection.streams
        )


class Bench:
    """A dispatcher between clients and replicas. Needs a running event loop."""

    def __init__(self, rpc: str) -> None:
        self.rpc = rpc
        self.body = load.model_metadata("digits") if rpc == "ModelMetadata" else load.echo(16)
        self.dispatcher = Dispatcher(connections_per_replica=0)
        rows = tuple(
            TableReplica(f"r-{i}", f"r-{i}.1", "r", "127.0.0.1", 1, False, ("echo", "digits"), {})
            for i in range(REPLICAS)
        )
        self.dispatcher.apply(RouterTable("bench", 1, "least_requests", rows, RouterSettings()))
        self.servers, self.clients = [], []
        for replica in self.dispatcher.replicas.values():
            for _ in range(CONNECTIONS):
                connection = ReplicaConnection(self.dispatcher, replica)
                connection.connection_made(Transport())
                replica.connections.append(connection)
                self.servers.append(Server(connection))
        self.dispatcher.room_changed()
        for _ in range(CLIENTS):
            client = Client(ClientConnection(self.dispatcher))
            client.connection.connection_made(Transport())
            client.connection.receive(frames.PREFACE + frames.settings({}))
            self.clients.append(client)
        flush_all(self.dispatcher.touched)

    def round(self, at_once: int, phases: Phases) -> None:
        """``at_once`` calls of every client, there and back."""
        for one in (*self.clients, *self.servers):
            one.connection.send_room = WIDE
        asked = [self.ask(client, at_once) for client in self.clients]
        began = thread_time()
        for client, data in zip(self.clients, asked, strict=True):
            client.connection.receive(data)
        received = thread_time()
        flush_all(self.dispatcher.touched)
        written = thread_time()
        phases.requests += received - began
        phases.requests_written += written - received
        answered = [(server.connection, self.answer(server)) for server in self.servers]
        began = thread_time()
        for connection, data in answered:
            if data:
                connection.receive(data)
        received = thread_time()
        flush_all(self.dispatcher.touched)
        phases.answers += received - began
        phases.answers_written += thread_time() - received

    def cold_round(self, at_once: int, phases: Phases, others: np.ndarray) -> None:
        """The same, read by read, each of which finds ``others`` in the caches; written with its read."""
        for one in (*self.clients, *self.servers):
            one.connection.send_room = WIDE
        for client in self.clients:
            phases.requests += self._cold_read(client.connection, self.ask(client, at_once), others)
            for server in self.servers:
                if data := self.answer(server):
                    phases.answers += self._cold_read(server.connection, data, others)

    def _cold_read(
        self, connection: ClientConnection | ReplicaConnection, data: bytes, others: np.ndarray
    ) -> float:
        others[::CACHE_LINE] += 1
        began = thread_time()
        connection.receive(data)
        flush_all(self.dispatcher.touched)
        return thread_time() - began

    def ask(self, client: Client, at_once: int) -> bytes:
        return client.requests(self.rpc, self.body, at_once)

    def answer(self, server: Server) -> bytes:
        return server.answers()

    @property
    def stats(self) -> list[CallStats]:
        return [one for replica in self.dispatcher.replicas.values() for one in replica.stats.values()]

    def answered(self) -> int:
        """How many calls have ended well."""
        return sum(one.codes.get(0, 0) for one in self.stats)


class StreamBench(Bench):
    """The same with streams that stay open: a message in each, there and back."""

    def __init__(self, at_once: int) -> None:
        super().__init__("ModelStreamInfer")
        for client in self.clients:
            client.connection.receive(client.requests(self.rpc, self.body, at_once, ends=False))
        flush_all(self.dispatcher.touched)
        for server in self.servers:
            server.connection.receive(server.heads() + self.answer(server))
        flush_all(self.dispatcher.touched)
        self._first = self.answered()

    def ask(self, client: Client, _at_once: int) -> bytes:
        return self._to_all(client.connection, self.body)

    def answer(self, server: Server) -> bytes:
        return self._to_all(server.connection, STREAM_ANSWER)

    @staticmethod
    def _to_all(connection: ClientConnection | ReplicaConnection, message: bytes) -> bytes:
        for stream in connection.streams.values():
            stream.send_room = WIDE
        return b"".join(frames.frame(frames.DATA, 0, stream, message) for stream in connection.streams)

    def answered(self) -> int:
        """How many requests have been answered since the streams were opened."""
        return sum(one.streamed for one in self.stats) - getattr(self, "_first", 0)


async def measure(
    rpc: str, at_once: int, runs: int, rounds: int, *, cold_mb: float, profile: bool
) -> list[Phases]:
    """``runs`` measurements of ``rounds`` rounds, in µs per request. Raises RuntimeError if a call failed."""
    bench = StreamBench(at_once) if rpc == "ModelStreamInfer" else Bench(rpc)
    others = np.zeros(int(cold_mb * 1e6), np.uint8)
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        bench.round(at_once, Phases())
    found = []
    profiler = cProfile.Profile() if profile else None
    for _ in range(runs):
        phases = Phases()
        if profiler is not None:
            profiler.enable()
        for _ in range(rounds):
            if cold_mb:
                bench.cold_round(at_once, phases, others)
            else:
                bench.round(at_once, phases)
        if profiler is not None:
            profiler.disable()
        each = 1e6 / (rounds * at_once * CLIENTS)
        found.append(Phases(*(getattr(phases, name) * each for name in Phases.__dataclass_fields__)))
    expected = (runs + 1) * rounds * at_once * CLIENTS
    if bench.answered() != expected:
        raise RuntimeError(f"{bench.answered()} of {expected} calls were answered")
    if profiler is not None:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(r"tritonfleet[/\\]", 30)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rpc", choices=["ModelMetadata", "ModelInfer", "ModelStreamInfer"], default="ModelMetadata"
    )
    parser.add_argument(
        "--at-once", type=int, default=4, help="calls of each client in one read (%(default)s)"
    )
    parser.add_argument("--runs", type=int, default=40, help="of which the best counts (%(default)s)")
    parser.add_argument("--rounds", type=int, default=60, help="in each run (%(default)s)")
    parser.add_argument(
        "--cold", type=float, default=0.0, metavar="MB", help="of other memory, between reads"
    )
    parser.add_argument("--profile", action="store_true", help="also print where cProfile sees the time")
    chosen = parser.parse_args()
    found = asyncio.run(
        measure(
            chosen.rpc,
            chosen.at_once,
            chosen.runs,
            chosen.rounds,
            cold_mb=chosen.cold,
            profile=chosen.profile,
        )
    )
    best = min(found, key=lambda phases: phases.all)
    print(f"{chosen.rpc}, {chosen.at_once} calls at once, µs of Python per request")
    for name in Phases.__dataclass_fields__:
        print(f"  {name.replace('_', ' '):18} {getattr(best, name):6.2f}")
    print(f"  {'in all':18} {best.all:6.2f}   (median of runs {median(phases.all for phases in found):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())

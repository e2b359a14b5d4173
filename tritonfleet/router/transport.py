"""The one place where an HTTP/2 connection meets a socket."""

import asyncio
import logging
from time import perf_counter
from typing import cast

from tritonfleet.http2.connection import Connection
from tritonfleet.http2.frames import ErrorCode, ProtocolError
from tritonfleet.http2.sending import Held, Sender

log = logging.getLogger(__name__)

DEAF_S = 1.0  # that a peer has to hear why it was hung up on
# What comes in larger reads leaves at once: libuv reads a socket up to 32 times in a turn, 256 KiB each, and
# frames of a few bytes become as many pieces of output, each of which takes more memory than it has bytes.
LARGE_READ = 32 * 1024
LONELY_TURNS = 16  # with one read each, until the next reads are taken to come alone as well
TOGETHER_S = 50e-6  # reads that follow each other so soon may be of one turn
WRITE_HIGH = 256 * 1024  # bytes the transport may hold before DATA waits in its stream instead


class Touched(list[Sender]):
    """The connections of one event loop that have output waiting, flushed once per turn of the loop.

    All sockets that were readable in one turn are read before anything is written, so that what they
    caused on one connection leaves with one write: 25 µs of CPU per call instead of 28 with a flush after
    every read (h2load, 4 connections × 8 streams, medians of 3).

    Where reads come alone, turn after turn, there is nothing to wait for, and the way through the loop costs
    time: then each flushes at once. A sequential call was 7 to 16 µs shorter for that, of the 178 to 274 that
    the router adds (benchmarks/sequential.py's calls, medians of 5 to 6).
    """

    __slots__ = ("alone", "deaf", "read_at", "reads", "scheduled", "turns")

    def __init__(self) -> None:
        super().__init__()
        self.scheduled = False
        self.alone = False  # what is read is flushed at once
        self.reads = 0  # in this turn of the loop
        self.turns = 0  # in a row that had one
        self.read_at = 0.0  # the last one, while they come alone; by perf_counter
        self.deaf: set[asyncio.Transport] = set()  # hung up on, and not gone yet


class SocketConnection(Connection, asyncio.Protocol):
    """A `Connection` on an asyncio transport."""

    __slots__ = ("_call_soon", "_outbox", "transport", "turn_waits")
    reads_only_while_writable = False

    def __init__(self, touched: Touched, loop: asyncio.AbstractEventLoop, held: Held | None = None) -> None:
        self.transport: asyncio.Transport | None = None
        self.turn_waits = False  # a rest of what was read is still to be looked at
        self._outbox = touched
        self._call_soon = loop.call_soon
        super().__init__(touched, held)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)
        self.flush()

    def data_received(self, data: bytes) -> None:
        try:
            self.receive(data)
        except ProtocolError as error:
            self.fail(error)
        outbox = self._outbox
        if outbox.alone:
            flush_all(outbox)
            now = perf_counter()
            if now - outbox.read_at < TOGETHER_S:
                outbox.alone = False
            outbox.read_at = now
        elif len(data) > LARGE_READ:
            flush_all(outbox)
        elif outbox:
            outbox.reads += 1
            if not outbox.scheduled:
                outbox.scheduled = True
                self._call_soon(flush_turn, outbox)
        if self.interrupted:
            self._give_way()

    def _give_way(self) -> None:
        """So much was asked at once that it is the other connections' turn; no more is read meanwhile."""
        self.interrupted = False
        if self.transport is not None and not self.transport.is_closing():
            self.turn_waits = True
            self.choose_reading()
            self._call_soon(self._go_on)

    def _go_on(self) -> None:
        self.turn_waits = False
        if self.transport is not None and not self.transport.is_closing():
            self.data_received(b"")
            self.choose_reading()

    def choose_reading(self) -> None:
        """Read from the socket, or leave what comes there."""
        if self.transport is None or self.transport.is_closing():
            return
        if self.turn_waits or (self.reads_only_while_writable and not self.writable):
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def flush(self) -> None:
        transport = self.transport
        if transport is None:  # not connected yet: the preface waits for `connection_made`
            return
        out = self.take_output()
        if not out:
            return
        if self.out_is_large:
            self.out_is_large = False
            transport.writelines(out)
        else:
            transport.write(b"".join(out))

    def fail(self, error: ProtocolError) -> None:
        """The peer broke the protocol: say so and hang up."""
        log.info("closing %r: %s", self, error)
        self.send_goaway(self.last_peer_stream, error.code, str(error).encode()[:128])
        self.flush()
        transport = self.transport
        if transport is None or transport.is_closing() or not transport.can_write_eof():
            self.close()
            return
        transport.set_protocol(_Deaf(transport, self._outbox.deaf))
        transport.write_eof()
        transport.resume_reading()
        self.connection_lost(None)

    def close(self) -> None:
        self.flush()
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Hang up at once, whatever was still to be sent."""
        if self.transport is not None:
            self.transport.abort()

    def pause_writing(self) -> None:
        self.set_writable(False)

    def resume_writing(self) -> None:
        self.set_writable(True)
        flush_all(self._outbox)

    def eof_received(self) -> bool:
        return False  # closes the transport: HTTP/2 has no use for half a connection

    def __repr__(self) -> str:
        peer = self.transport.get_extra_info("peername") if self.transport is not None else None
        name = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "not connected"
        return f"<{type(self).__name__} {name} streams={len(self.streams)}>"


class _Deaf(asyncio.Protocol):
    """What is left of a connection that was hung up on: throws away what comes until the peer hangs up too.

    A socket that is closed with unread bytes in it resets the connection, and the GOAWAY that says why may be
    lost with that.
    """

    def __init__(self, transport: asyncio.Transport, deaf: set[asyncio.Transport]) -> None:
        self._transport, self._deaf = transport, deaf
        deaf.add(transport)
        asyncio.get_running_loop().call_later(DEAF_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Thrown away."""

    def connection_lost(self, _exc: Exception | None) -> None:
        self._deaf.discard(self._transport)


def flush_turn(touched: Touched) -> None:
    """The end of a turn of the loop."""
    if touched.reads == 1:
        touched.turns += 1
        if touched.turns >= LONELY_TURNS:
            touched.alone, touched.turns = True, 0
    else:
        touched.turns = 0
    touched.reads = 0
    flush_all(touched)


def flush_all(touched: Touched) -> None:
    """Write what waits. Flushing may touch more (a transport pauses): those too."""
    touched.scheduled = False
    while touched:
        batch = touched[:]
        touched.clear()
        for connection in batch:
            cast("SocketConnection", connection).flush()


__all__ = ["ErrorCode", "SocketConnection", "flush_all"]

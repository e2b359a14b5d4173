"""One replica as the router knows it: its connections and what is in flight there."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

from tritonfleet.core.balance import KEEPS_BUSY_S
from tritonfleet.core.cost import Pace
from tritonfleet.core.wire import TableReplica
from tritonfleet.http2.fields import Fields
from tritonfleet.http2.frames import ErrorCode
from tritonfleet.http2.specialised import with_own_code
from tritonfleet.http2.stream import Buffer, Stream
from tritonfleet.router import grpc
from tritonfleet.router.call import Call, CallStats, Leg
from tritonfleet.router.transport import SocketConnection, flush_all
from tritonfleet.router.upstream_tls import secured

if TYPE_CHECKING:
    from tritonfleet.router.dispatch import Dispatcher
    from tritonfleet.router.needs import Needs

log = logging.getLogger(__name__)

NO_WORK_S = 1e-9  # less is what rounding left
NEVER_S = -1.0  # no work is less, whatever rounding leaves
CONNECT_TIMEOUT_S = 2.0
GREETING_TIMEOUT_S = 10.0  # a busy server accepts by its kernel, and speaks when it comes to it
FIRST_RETRY_S = 0.05
LAST_RETRY_S = 1.0
MOST_STRANGERS = 64  # names of no model that are counted apart
LAST_STREAM = 0x7FFFFFFF  # identifier of a connection's
USER_TIMEOUT_MS = 20_000  # unacknowledged data this old: the replica's host is gone (TCP_USER_TIMEOUT)


@with_own_code
class ReplicaConnection(SocketConnection):
    """A connection to one replica, shared by the calls of many clients. We are the client."""

    is_client = True
    credit_on_receipt = True
    # An answer begins with little room and gets more when its client takes it, so that one who asks much and
    # takes nothing fills little memory.
    stream_window = 16 * 1024

    def __init__(self, dispatcher: Dispatcher, replica: Replica) -> None:
        self.dispatcher = dispatcher
        self.replica = replica
        self.closed: asyncio.Event = asyncio.Event()
        self.heard: asyncio.Event = asyncio.Event()  # it has sent its settings, or hung up before
        self.refusing = False  # it said GOAWAY, or is replaced: what runs may finish, nothing new
        self.orderly = False  # and that is no failure
        super().__init__(dispatcher.touched, dispatcher.loop)

    @property
    def usable(self) -> bool:
        return not self.refusing and self.transport is not None and not self.transport.is_closing()

    def on_headers(self, _id: bytes, stream: Stream | None, fields: Fields, end_stream: bool) -> None:
        leg: Leg = stream  # type: ignore[assignment] # every stream of this connection is a Leg
        call: Call | None = leg.partner  # type: ignore[assignment] # whose partner is a Call
        if call is None:
            return
        if not call.answered:
            if end_stream and self.dispatcher.declined(call, leg, fields):
                return
            call.answered = True
            if call.kept:
                self.dispatcher.drop_replay(call)
            else:  # the same, without its call
                call.replayable = False
                call.held = None
        call.connection.send_headers(call, fields.block, end_stream)
        if end_stream:
            self.dispatcher.complete(call, leg, grpc.status_of(fields), fields)

    def on_data(self, stream: Stream, payload: Buffer, end_stream: bool) -> None:
        call: Call | None = stream.partner  # type: ignore[assignment] # see on_headers
        if call is None:
            return
        if call.connection.send_data(call, payload, end_stream):
            self.credit(stream, len(payload))
        if call.streamed is not None:
            call.streamed.answered(payload)
        if end_stream:  # a response without trailers: not gRPC, passed on as it is
            self.dispatcher.complete(call, stream, grpc.Status.UNKNOWN)  # type: ignore[arg-type] # see on_headers

    def on_reset(self, stream: Stream, code: int) -> None:
        self.dispatcher.leg_reset(stream, code)  # type: ignore[arg-type] # see on_headers

    def on_drained(self, stream: Stream, size: int) -> None:
        """Request bytes that had waited have gone to the replica: the client may send as many more."""
        leg: Leg = stream  # type: ignore[assignment] # see on_headers
        known = min(leg.credited, size)
        leg.credited -= known
        if leg.partner is not None and size > known:
            leg.partner.connection.credit(leg.partner, size - known)

    def may_widen(self, stream: Stream) -> bool:
        call: Call | None = stream.partner  # type: ignore[assignment] # see on_headers
        return call is not None and call.connection.widens(stream)  # type: ignore[attr-defined] # a Call's is a ClientConnection

    def on_settings(self) -> None:
        self.heard.set()
        self.dispatcher.room_changed()

    def on_goaway(self, last_stream: bytes, code: int, debug: bytes) -> None:
        """What it will never look at goes elsewhere; the rest may finish here; a new connection is opened."""
        self.refusing = True
        self.orderly = code == ErrorCode.NO_ERROR
        log.info(
            "%s: GOAWAY %s %s", self.replica.instance, ErrorCode(code).name if code < 14 else code, debug[:80]
        )
        for stream_id, leg in list(self.streams.items()):
            if stream_id > last_stream:
                del self.streams[stream_id]
                self.dispatcher.leg_reset(leg, ErrorCode.REFUSED_STREAM)  # type: ignore[arg-type] # see on_headers
        self.close_if_refusing()
        self.closed.set()
        self.dispatcher.room_changed()

    def on_few_streams_left(self) -> None:
        """Another connection is opened for this one, and used instead once it is there."""
        self.closed.set()
        if self.next_stream > LAST_STREAM:
            self.stop_using()

    def stop_using(self) -> None:
        self.refusing = self.orderly = True
        self.dispatcher.choose_anew()

    def close_if_refusing(self) -> None:
        if self.refusing and not self.streams:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        why = str(exc) if exc is not None else "it closed the connection"
        self.replica.without(self)  # before its calls look for another place
        legs, self.streams = list(self.streams.values()), {}
        for leg in legs:
            self.dispatcher.leg_lost(leg, why)  # type: ignore[arg-type] # see on_headers
        self.blocked.clear()
        self.closed.set()
        if self.heard.is_set():
            self.replica.on_connection_lost(why, failed=bool(legs) or not self.orderly)
        self.heard.set()
        flush_all(self.dispatcher.touched)


class Replica:
    """A row of the table, connected. ``available`` means: the router may send new requests there."""

    def __init__(self, dispatcher: Dispatcher, row: TableReplica, connections: int) -> None:
        self.dispatcher = dispatcher
        self.row = row
        self.id, self.instance = row.id, row.instance
        self.in_flight = 0
        self.work_s = 0.0  # expected seconds of what is in flight
        self.progress_at = 0.0  # by perf_counter: its last answer to an inference, or its first one sent
        self.paces = Pace()
        self.pace = row.pace  # the larger of paces.value and the table's, one look-up nearer
        self.slow_starts = 0
        self.since = dispatcher.loop.time()
        self.elsewhere: tuple[int, ...] = ()  # other workers' cells for it (`router.board`)
        self.stats: dict[str, CallStats] = {}
        self.connections: list[ReplicaConnection] = []
        self.reachable = True  # until an attempt to connect fails
        self.untried = True  # no attempt has succeeded or failed yet
        self.last_error = ""
        self.sequences = 0  # open ones, whose state is there
        self.failures_in_row = 0
        self.ejections = 0
        self.ejected_until: float | None = None  # by the loop's clock: answers badly, is not chosen
        self.stuck: dict[Leg, tuple[object, object, float]] = {}  # who waits here, for what, and since when
        self.declines: set[str | Needs] = set()  # models it says it has not, though its row lists them
        self.retired = False  # no longer in the table: goes away when its last call ends
        self._slots = [asyncio.create_task(self._keep_connected()) for _ in range(connections)]

    @property
    def available(self) -> bool:
        return not self.retired and not self.row.draining and any(c.usable for c in self.connections)

    def connection(self) -> ReplicaConnection | None:
        """The usable connection with the fewest streams, or None if none has room for one more.

        One that is about to be written to anyway goes first: the calls of one turn of the loop leave, and
        mostly come back, together (22.7 µs of CPU per call instead of 25.3; h2load, 4 connections × 8
        streams, medians of 9). Not behind a large message, which would hold them up.
        """
        best, fewest = None, 1 << 31
        for connection in self.connections:
            streams = len(connection.streams)
            if connection.has_output and not connection.out_is_large:
                if streams < connection.peer_max_streams and connection.usable:
                    return connection
            elif streams < fewest and streams < connection.peer_max_streams and connection.usable:
                best, fewest = connection, streams
        return best

    def stats_of(self, model: str) -> CallStats:
        """What is counted for ``model`` here. Names come from clients and must not fill memory: a few that no
        model has are counted apart, all others together, as what has no name."""
        stats = self.stats.get(model)
        if stats is None:
            models = self.row.models
            if model and model not in models and len(self.stats) >= len(models) + MOST_STRANGERS:
                return self.stats_of("")
            stats = self.stats[model] = CallStats(model)
            if self.dispatcher.board is not None:
                stats.attribution = self.dispatcher.board.finishes.attribution(self.instance, model)
            self._limit(stats)
        return stats

    def _limit(self, stats: CallStats) -> None:
        stats.slots = self.row.slots.get(stats.model, 0)
        stats.busy_s = NEVER_S if self.row.strict else KEEPS_BUSY_S
        stats.decoupled = stats.decoupled or stats.model in self.row.decoupled

    def start_slow(self) -> None:
        """Less than its peers for its first seconds back."""
        self.paces.start_slow()
        self.slow_starts += 1
        self.settle_pace()

    def settle_pace(self) -> None:
        """What was measured here, or what Triton's statistics say of it beside its peers: the worse one. Both
        see the same slowness, so they are not multiplied."""
        self.pace = max(self.paces.value, self.row.pace)

    def has_room(self, model: str) -> bool:
        """Whether it can usefully hold one more call for ``model``."""
        stats = self.stats_of(model)
        return not stats.slots or stats.held < stats.slots or self.work_s < stats.busy_s

    def update(self, row: TableReplica) -> None:
        """A newer row of the table."""
        self.row = row
        self.declines.clear()
        self.settle_pace()
        for stats in self.stats.values():
            self._limit(stats)

    async def _keep_connected(self) -> None:
        """Hold one connection open for as long as the replica is in the table."""
        loop, delay = asyncio.get_running_loop(), FIRST_RETRY_S
        before: ReplicaConnection | None = None
        while not self.retired:
            try:
                connection = await self._connected()
            except (OSError, TimeoutError) as error:
                self._note_unreachable(error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_RETRY_S)
                continue
            sock = connection.transport.get_extra_info("socket") if connection.transport else None
            if sock is not None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
            self.connections.append(connection)
            if before is not None and before.usable:  # its stream identifiers are nearly used up
                before.stop_using()
                before.close_if_refusing()
            before = connection
            self.reachable, self.last_error = True, ""
            connected_at = loop.time()
            self.untried = False
            self.dispatcher.room_changed()
            flush_all(self.dispatcher.touched)
            await connection.closed.wait()
            if loop.time() - connected_at > LAST_RETRY_S:
                delay = FIRST_RETRY_S
            else:  # accepts and hangs up: to ask again at once would only spin
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_RETRY_S)

    async def _connected(self) -> ReplicaConnection:
        """A connection on which the replica has sent its settings. Who only accepts is not it: a proxy before
        a port that nobody listens on, or a server that will refuse our certificate. Raises OSError and
        TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, connection = await loop.create_connection(
                lambda: self.dispatcher.replica_connection(self.dispatcher, self),
                self.row.host,
                self.row.port,
                **secured(self.row.tls),
            )
        try:
            async with asyncio.timeout(GREETING_TIMEOUT_S):
                await connection.heard.wait()
        except (TimeoutError, asyncio.CancelledError):
            connection.abort()
            raise
        if not connection.greeted:
            certificate = "; does triton.tls fit?" if self.row.tls is not None else ""
            raise ConnectionResetError(f"it hung up before it said anything{certificate}")
        if (
            connection.closed.is_set()
        ):  # before this task's turn came: nobody would take it off the list again
            raise ConnectionResetError("it hung up at once")
        return connection

    def _note_unreachable(self, error: Exception) -> None:
        reason = str(error) or "it does not answer in time"
        if self.reachable:
            log.warning(
                "%s cannot be reached at %s:%d: %s", self.instance, self.row.host, self.row.port, reason
            )
        self.reachable, self.last_error = False, reason
        if self.untried:
            self.untried = False
            self.dispatcher.room_changed()
            flush_all(self.dispatcher.touched)

    def without(self, connection: ReplicaConnection) -> None:
        """It can carry nothing any more."""
        if connection in self.connections:
            self.connections.remove(connection)
        self.dispatcher.choose_anew()

    def on_connection_lost(self, why: str, *, failed: bool) -> None:
        if failed and not self.retired:
            self.dispatcher.note_failure(self)
        if not self.connections and not self.retired:
            self.last_error = why
            log.warning("%s: all connections lost: %s", self.instance, why)
        self.dispatcher.room_changed()

    def retire(self) -> None:
        """It left the table: nothing new goes there, what runs may finish, then its connections close."""
        self.retired = True
        for task in self._slots:
            task.cancel()
        self.close_if_idle()

    def close_if_idle(self) -> None:
        if self.retired:
            for connection in list(self.connections):
                if not connection.streams:
                    connection.close()

    async def close(self) -> None:
        self.retired = True
        for task in self._slots:
            task.cancel()
        await asyncio.gather(*self._slots, return_exceptions=True)
        for connection in list(self.connections):
            connection.close()

    def __repr__(self) -> str:
        words = [
            word for word, is_so in (("draining", self.row.draining), ("retired", self.retired)) if is_so
        ]
        return f"<Replica {self.instance} in_flight={self.in_flight} {' '.join(words) or 'serving'}>"

"""The connection of one client: its requests become calls, which the dispatcher sends on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from tritonfleet.http2 import frames
from tritonfleet.http2.fieldrules import trailers_fault
from tritonfleet.http2.fields import Fields
from tritonfleet.http2.frames import LARGEST_WINDOW, ErrorCode, ProtocolError, ping
from tritonfleet.http2.specialised import with_own_code
from tritonfleet.http2.stream import Buffer, Stream, kept, put
from tritonfleet.router import grpc, peek
from tritonfleet.router.call import Call, Leg
from tritonfleet.router.limits import CONTROL_FRAMES_PER_CALL, TokenBucket, gave_up
from tritonfleet.router.needs import Needs
from tritonfleet.router.streamed import Streamed
from tritonfleet.router.transport import LARGE_READ, SocketConnection, flush_all

if TYPE_CHECKING:
    import asyncio

    from tritonfleet.router.dispatch import Dispatcher
    from tritonfleet.router.keeping import OwnAnswers

log = logging.getLogger(__name__)

DRAIN_PING = b"drain\0\0\0"
REFUSED_BODY_LIMIT = 64 << 10  # bytes of a request that is not gRPC, before it is answered unheard
FIELD_BYTES = 96  # of memory that a field takes beyond its bytes as they are counted
LARGE_METADATA = 1024  # bytes of a header list, as RFC 9113, 6.5.2 counts; larger ones are counted


@with_own_code
class ClientConnection(SocketConnection):
    """What a client is connected to. We are the server."""

    reads_only_while_writable = True  # who does not take answers gets none to further questions

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        limits = self.limits = dispatcher.limits
        self.max_streams = limits.streams
        self.queue_limit = limits.held_by_connection
        self.opened_at = dispatcher.loop.time()
        self.block_since: float | None = None  # a header block is under way
        self.stalled_since: float | None = None  # it does not take what we have to send
        self.stuck: dict[Stream, tuple[object, float]] = {}  # what waits first in a stream, and since when
        self.drain_began: float | None = None
        self.drained_at: float | None = None  # it has heard of our end, and may begin nothing more
        self.kept_bytes = 0  # of its requests, for another try
        self.open_requests = 0  # in its streams
        self._calls_seen = 0
        self._resets = TokenBucket(limits.resets, limits.resets_per_second)
        self._control_frames = TokenBucket(limits.control_frames, limits.control_frames_per_second)
        self._begin: Callable[[Call], None] = dispatcher.dispatch  # or `_postpone`, for a while
        self._postponed: list[Call] | None = None
        self._large: list[Call] = []  # whose metadata is large
        self._large_bytes = 0
        self._wide: list[Stream] = []  # legs whose answers have a wide window
        self._most_wide = max(1, limits.held_by_connection // self.wide_window)
        super().__init__(dispatcher.touched, dispatcher.loop, dispatcher.held)
        self.streams_per_turn = limits.streams_per_turn
        self.max_continuations, self.max_settings = limits.continuations, limits.settings_per_frame
        self._decoder.max_size_updates = limits.table_updates
        self.bytes_per_turn = LARGE_READ

    def on_unproductive(self, kind: int) -> None:
        calls = int.from_bytes(self.last_peer_stream, "big") >> 1
        earned, self._calls_seen = (calls - self._calls_seen) * CONTROL_FRAMES_PER_CALL, calls
        if not self._control_frames.take(self.dispatcher.loop.time(), earned):
            # The words by which gRPC clients learn to ping less often (gRFC A8).
            nothing = "too many frames that move nothing (router.limits.control_frames)"
            why = "too_many_pings" if kind == frames.PING else nothing
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, why)

    def pause_writing(self) -> None:
        """It reads too slowly: it gets no answers to further questions meanwhile, and we hold no more."""
        self.stalled_since = self.dispatcher.loop.time()
        super().pause_writing()
        self.choose_reading()

    def resume_writing(self) -> None:
        self.stalled_since = None
        super().resume_writing()
        self.choose_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.dispatcher.clients.add(self)
        super().connection_made(transport)
        if self.transport is not None:
            self.transport.set_write_buffer_limits(high=self.limits.unread)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.dispatcher.clients.discard(self)
        calls = list(self.streams.values())
        # Those that wait first: the room that the others leave is for other clients' calls.
        for call in sorted(calls, key=lambda one: not one.waiting):  # type: ignore[attr-defined] # a client's streams are Calls
            self.discard_queue(call)
            self.dispatcher.cancel(call)
        self.streams.clear()
        self.blocked.clear()
        self._large.clear()  # calls, which know this connection: only the collector would find them
        self._wide.clear()
        self.transport = None
        flush_all(self.dispatcher.touched)

    def on_headers(self, stream_id: bytes, stream: Stream | None, fields: Fields, end_stream: bool) -> None:
        if stream is not None:  # trailers of a request: gRPC has none, their end is what counts
            fault = "trailers that do not end the request"
            if end_stream:
                fault = trailers_fault(fields.items, self.limits.fields)
            if fault:
                self._reset_malformed(stream, fault)
            else:
                self.on_data(stream, b"", True)
            return
        info = fields.info
        if info is None:
            info = grpc.request_info(fields, self.limits)
            large = fields.size > LARGE_METADATA
        else:
            large = False
        call = Call(self, stream_id, fields, info)
        call.receive_closed = end_stream
        self.streams[stream_id] = call
        dispatcher = self.dispatcher
        dispatcher.requests_total += 1
        if info.plain and not large and not end_stream and len(self.streams) <= self.max_streams:
            return
        if info.timeout_s is not None:
            call.deadline = dispatcher.loop.time() + info.timeout_s
        if info.fault:
            log.info("%r: malformed request: %s", self, info.fault)
            call.done = True
            self.send_reset(call, ErrorCode.PROTOCOL_ERROR)
            self._count_reset("too many malformed requests")
        elif len(self.streams) > self.max_streams:
            call.done = True
            self.send_reset(call, ErrorCode.REFUSED_STREAM)
            self._count_reset("too many calls beyond SETTINGS_MAX_CONCURRENT_STREAMS")
        elif large and not self._may_hold(call):
            text = f"the metadata of this connection's calls has more than {self.limits.metadata_held} bytes"
            dispatcher.refuse(call, grpc.Status.RESOURCE_EXHAUSTED, text)
            self._count_reset("too many calls with large metadata")
        elif info.content_length and end_stream:
            self._reset_malformed(call, "a content-length, and no content")
        elif info.refusal is not None:
            if end_stream:
                self._refuse_http(call)
        elif end_stream:
            if info.is_own and self._is_kept(call, 0, end_stream=True):
                return
            call.model = ""
            self._begin(call)

    def _may_hold(self, call: Call) -> bool:
        """Whether the lists over `LARGE_METADATA` that open calls hold are few, this one's included. A block
        of a few bytes can mean 16 KiB, so calls that cost their client nothing could fill our memory. Lists
        that came from the decoder's cache are shared and not looked at."""
        self._large.append(call)
        self._large_bytes += _memory_of(call.fields)
        if self._large_bytes > self.limits.metadata_held:  # most of those have ended: count anew
            self._large = [one for one in self._large if self.streams.get(one.id) is one]
            self._large_bytes = sum(_memory_of(one.fields) for one in self._large)
        return self._large_bytes <= self.limits.metadata_held

    def _count_reset(self, why: str) -> None:
        """A call that made us work for nothing, whoever reset it (CVE-2023-44487, CVE-2025-8671)."""
        if not self._resets.take(self.dispatcher.loop.time()):
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, f"{why} (router.limits.resets)")

    def on_data(self, stream: Stream, payload: Buffer, end_stream: bool) -> None:
        call: Call = stream  # type: ignore[assignment] # every stream of this connection is a Call
        if call.info.content_length is not None and not self._length_holds(call, len(payload), end_stream):
            return
        leg = call.partner
        if leg is not None:
            size = len(payload)
            if call.streamed is not None:
                call.streamed.asked(payload)
            if call.replayable and call.held is not None:
                self.dispatcher.keep(call, payload)
            if leg.connection.send_data(leg, payload, end_stream):
                self.credit(call, size)
            return
        if call.done or call.held is None:
            self.credit(call, len(payload))
            return
        if call.info.refusal is not None:
            self.credit(call, len(payload))
            call.held_bytes += len(payload)
            if end_stream or call.held_bytes > REFUSED_BODY_LIMIT:
                self._refuse_http(call)
            return
        call.held_bytes += len(payload)
        if call.held:
            put(call.held, payload)
        else:
            call.held.append(payload if type(payload) is bytes else kept(payload))
        if call.waiting:
            return
        if call.info.is_own and self._is_kept(call, len(payload), end_stream=end_stream):
            return
        if call.info.names_model:
            if len(call.held) > 1:  # what is asked of it later is asked of its first part, too
                call.held = [b"".join(call.held)]
            head = call.held[0]
            if not end_stream and not peek.enough(head):
                return
            model = grpc.peek_model(head)
            legible = head
            if not model:  # none is named, or the message is compressed
                legible = peek.plain(head)
                model = grpc.peek_model(legible) or ""
            call.model = model
            version = peek.peek_version(legible)
            known = self.dispatcher.regions
            regions = peek.peek_regions(legible, known) if known and call.info.infers else ()
            if version or regions:
                call.needs = Needs(model, version, regions)
            if call.info.infers:
                call.sequence = peek.peek_sequence(legible, model)
                if call.info.streaming:
                    call.streamed = Streamed(self.dispatcher, self)
        else:
            call.model = ""
        self._begin(call)

    def _length_holds(self, call: Call, size: int, end_stream: bool) -> bool:
        """Whether a request has as many bytes as it announced (RFC 9113, 8.1.1); if not it is reset."""
        call.received += size
        expected = call.info.content_length or 0
        if call.received == expected or (call.received < expected and not end_stream):
            return True
        self.credit(call, size)
        self._reset_malformed(call, f"content-length {expected}, {call.received} bytes")
        return False

    def _reset_malformed(self, stream: Stream, fault: str) -> None:
        log.info("%r: malformed request: %s", self, fault)
        self.send_reset(stream, ErrorCode.PROTOCOL_ERROR)
        self.dispatcher.cancel(stream)
        self._count_reset("too many malformed requests")

    def _refuse_http(self, call: Call) -> None:
        """Answer what is not gRPC, with words. Only after its end (or much of it): until then it can still
        prove malformed, and a reset that says so is the better answer."""
        if call.info.refusal is None:
            raise AssertionError("only what is refused comes here")
        with_body = call.fields.get(b":method") != b"HEAD"
        self.dispatcher.answer(call, call.info.refusal, call.info.refusal_body if with_body else b"")

    def _is_kept(self, call: Call, size: int, *, end_stream: bool) -> bool:
        """Whether a fleet-wide request is not for a replica: the fleet answers it, or it is refused."""
        own, guard = self.dispatcher.own, self.dispatcher.guard
        if own is not None:
            self._collect(call, own, size, end_stream=end_stream)
            return True
        return guard is not None and guard.keeps(self.dispatcher, call, end_stream=end_stream)

    def _collect(self, call: Call, own: OwnAnswers, size: int, *, end_stream: bool) -> None:
        """The body of a request that we answer ourselves: taken whole, and bounded."""
        self.credit(call, size)
        refusal = own.unfit(call)
        if refusal is not None:
            self.dispatcher.refuse(call, *refusal)
        elif end_stream and call.held is not None:
            body, call.held = b"".join(call.held), None
            own.answer(call, body)

    def on_reset(self, stream: Stream, _code: int) -> None:
        call: Call = stream  # type: ignore[assignment] # see on_data
        leg: Leg | None = call.partner  # type: ignore[assignment] # a Call's partner is a Leg
        brief = not call.done and not self._gave_up(call, leg)
        self.dispatcher.cancel(stream)
        if brief:
            self._count_reset("too many calls taken back")

    def _gave_up(self, call: Call, leg: Leg | None) -> bool:
        if call.deadline is None or call.info.timeout_s is None:
            return leg is not None and gave_up(leg.age_s, None)
        began = call.deadline - call.info.timeout_s
        return gave_up(self.dispatcher.loop.time() - began, call.info.timeout_s)

    def on_drained(self, stream: Stream, size: int) -> None:
        """Response bytes that had waited have gone to the client: the replica may send as many more."""
        leg = stream.partner
        if leg is not None:
            leg.connection.credit(leg, size)
        if self._postponed is not None and self.queued_bytes <= self.queue_limit >> 1:
            self._begin, postponed, self._postponed = self.dispatcher.dispatch, self._postponed, None
            self.dispatcher.loop.call_soon(self._resume, postponed)

    # ------------------------------------------------------------ what it does not take

    def widens(self, leg: Stream) -> bool:
        """Whether an answer to this client gets a wide window: while few of its answers have one."""
        if len(self._wide) >= self._most_wide:
            self._wide = [one for one in self._wide if one.partner is not None]
        if len(self._wide) >= self._most_wide:
            return False
        self._wide.append(leg)
        return True

    def on_backlog(self) -> None:
        """Its answers fill our memory. While they do, its further calls wait; those of other clients do not.
        When all clients together hold too much, the one that holds most is hung up on."""
        if self.held.total > self.held.limit:
            largest = max(self.dispatcher.clients, key=lambda client: client.queued_bytes, default=self)
            largest.drop(f"{largest.queued_bytes} bytes of answers were not read")
        if self._postponed is None and self.queued_bytes > self.queue_limit:
            self._postponed, self._begin = [], self._postpone

    def _postpone(self, call: Call) -> None:
        call.waiting = call.delayed = True
        if self._postponed is None:
            raise AssertionError("calls are postponed while there is a list of them")
        if len(self._postponed) >= 2 * self.max_streams:  # most of those have been taken back
            self._postponed = [one for one in self._postponed if one.waiting]
        self._postponed.append(call)

    def _resume(self, calls: list[Call]) -> None:
        for call in calls:
            if call.waiting:  # else its client or its deadline has ended it
                call.waiting = False
                self._begin(call)
        flush_all(self.dispatcher.touched)

    def drop(self, why: str) -> None:
        """Give up all that it has, now, and hang up."""
        for stream in list(self.streams.values()):
            self.discard_queue(stream)
            self.dispatcher.cancel(stream)
        self.streams.clear()
        self.blocked.clear()
        self.fail(ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, why))

    # ------------------------------------------------------------ graceful end

    def begin_drain(self) -> None:
        """First half of the two-step GOAWAY (RFC 9113, 6.8): no stream is cut off that was already on its
        way when the client learns of it."""
        if self.drain_began is not None:
            return
        self.drain_began = self.dispatcher.loop.time()
        self.send_goaway(
            LARGEST_WINDOW.to_bytes(4, "big"), ErrorCode.NO_ERROR, b"the router is shutting down"
        )
        self.send(ping(DRAIN_PING))

    def on_ping_ack(self, opaque: bytes) -> None:
        if opaque == DRAIN_PING and self.drained_at is None:
            self.drained_at = self.dispatcher.loop.time()
            self.send_goaway(self.last_peer_stream, ErrorCode.NO_ERROR)
            self.dispatcher.client_drained(self)


def _memory_of(fields: Fields) -> int:
    return fields.size + FIELD_BYTES * len(fields.items)

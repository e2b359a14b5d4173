"""The connection of one client: its requests become calls, which the dispatcher sends on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tritonfleet.http2.fieldrules import trailers_fault
from tritonfleet.http2.fields import Fields
from tritonfleet.http2.frames import LARGEST_WINDOW, ErrorCode, ProtocolError, ping
from tritonfleet.http2.specialised import with_own_code
from tritonfleet.http2.stream import Buffer, Stream
from tritonfleet.router import grpc, limits, peek
from tritonfleet.router.call import Call, Leg
from tritonfleet.router.limits import TokenBucket
from tritonfleet.router.needs import Needs
from tritonfleet.router.transport import SocketConnection, flush_all

if TYPE_CHECKING:
    import asyncio

    from tritonfleet.router.dispatch import Dispatcher, OwnAnswers
    from tritonfleet.router.peek import StreamScanner

log = logging.getLogger(__name__)

DRAIN_PING = b"drain\0\0\0"
REFUSED_BODY_LIMIT = 64 << 10  # bytes of a request that is not gRPC, before it is answered unheard
OWN_BODY_LIMIT = 64 << 20  # bytes; a model load may carry the model's files


@with_own_code
class ClientConnection(SocketConnection):
    """What a client is connected to. We are the server."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.opened_at = dispatcher.loop.time()
        self.block_since: float | None = None  # a header block is under way
        self.stalled_since: float | None = None  # it does not take what we have to send
        self._calls_seen = 0
        self._resets = TokenBucket(limits.RESETS, limits.RESETS_PER_S)
        self._unproductive = TokenBucket(limits.UNPRODUCTIVE, limits.UNPRODUCTIVE_PER_S)
        super().__init__(dispatcher.touched, dispatcher.loop)

    def on_unproductive(self) -> None:
        calls = int.from_bytes(self.last_peer_stream, "big") >> 1
        earned, self._calls_seen = (calls - self._calls_seen) * limits.UNPRODUCTIVE_PER_CALL, calls
        if not self._unproductive.take(self.dispatcher.loop.time(), earned):
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that move nothing")

    def pause_writing(self) -> None:
        """It reads too slowly: it gets no answers to further questions meanwhile, and we hold no more."""
        self.stalled_since = self.dispatcher.loop.time()
        super().pause_writing()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.stalled_since = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
        super().resume_writing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.dispatcher.clients.add(self)
        super().connection_made(transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.dispatcher.clients.discard(self)
        for call in list(self.streams.values()):
            self.dispatcher.cancel(call)
        self.streams.clear()
        self.blocked.clear()
        self.transport = None
        flush_all(self.dispatcher.touched)

    def on_headers(self, stream_id: bytes, stream: Stream | None, fields: Fields, end_stream: bool) -> None:
        if stream is not None:  # trailers of a request: gRPC has none, their end is what counts
            fault = trailers_fault(fields.items) if end_stream else "trailers that do not end the request"
            if fault:
                self._reset_malformed(stream, fault)
            else:
                self.on_data(stream, b"", True)
            return
        info = fields.info
        if info is None:
            info = grpc.request_info(fields)
        call = Call(self, stream_id, fields, info)
        call.receive_closed = end_stream
        self.streams[stream_id] = call
        dispatcher = self.dispatcher
        dispatcher.requests_total += 1
        if info.plain and not end_stream and len(self.streams) <= self.max_streams:
            return
        if info.timeout_s is not None:
            call.deadline = dispatcher.loop.time() + info.timeout_s
        if info.fault:
            log.info("%r: malformed request: %s", self, info.fault)
            call.done = True
            self.send_reset(call, ErrorCode.PROTOCOL_ERROR)
        elif len(self.streams) > self.max_streams:
            call.done = True
            self.send_reset(call, ErrorCode.REFUSED_STREAM)
        elif info.content_length and end_stream:
            self._reset_malformed(call, "a content-length, and no content")
        elif info.refusal is not None:
            if end_stream:
                self._refuse_http(call)
        elif end_stream:
            call.model = ""
            dispatcher.dispatch(call)

    def on_data(self, stream: Stream, payload: Buffer, end_stream: bool) -> None:
        call: Call = stream  # type: ignore[assignment] # every stream of this connection is a Call
        if call.info.content_length is not None and not self._length_holds(call, len(payload), end_stream):
            return
        leg = call.partner
        if leg is not None:
            size = len(payload)
            if call.scanner is not None:
                self._scan(call, call.scanner, payload)
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
        call.held.append(payload)
        call.held_bytes += len(payload)
        if call.waiting:
            return
        if call.info.is_own and self.dispatcher.own is not None:
            self._collect(call, self.dispatcher.own, len(payload), end_stream=end_stream)
            return
        if call.info.names_model:
            head = call.held[0] if len(call.held) == 1 else b"".join(call.held)
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
                    call.scanner = peek.StreamScanner()
                    call.scanner.feed(head)
        else:
            call.model = ""
        self.dispatcher.dispatch(call)

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

    def _refuse_http(self, call: Call) -> None:
        """Answer what is not gRPC, with words. Only after its end (or much of it): until then it can still
        prove malformed, and a reset that says so is the better answer."""
        if call.info.refusal is None:
            raise AssertionError("only what is refused comes here")
        with_body = call.fields.get(b":method") != b"HEAD"
        self.dispatcher.answer(call, call.info.refusal, grpc.NOT_GRPC if with_body else b"")

    def _scan(self, call: Call, scanner: StreamScanner, payload: Buffer) -> None:
        """Further messages of a stream may begin and end sequences: they live where the stream goes."""
        for head in scanner.feed(payload):
            leg: Leg | None = call.partner  # type: ignore[assignment] # a Call's partner is a Leg
            legible = peek.plain(head)
            found = peek.peek_sequence(legible, grpc.peek_model(legible) or "")
            if found is None or leg is None:
                continue
            sequences = self.dispatcher.sequences
            if found.start:
                sequences.pin(found.key, leg.replica, self.dispatcher.loop.time())
            if found.end:
                sequences.release(found.key)

    def _collect(self, call: Call, own: OwnAnswers, size: int, *, end_stream: bool) -> None:
        """The body of a request that we answer ourselves: taken whole, and bounded."""
        self.credit(call, size)
        if call.held_bytes > OWN_BODY_LIMIT:
            call.held = None
            self.dispatcher.refuse(
                call, grpc.Status.RESOURCE_EXHAUSTED, f"a fleet-wide request may have {OWN_BODY_LIMIT} bytes"
            )
        elif end_stream and call.held is not None:
            body, call.held = b"".join(call.held), None
            own.answer(call, body)

    def on_reset(self, stream: Stream, _code: int) -> None:
        call: Call = stream  # type: ignore[assignment] # see on_data
        if not call.done and not self._resets.take(self.dispatcher.loop.time()):
            self.dispatcher.cancel(stream)
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "too many calls taken back")
        self.dispatcher.cancel(stream)

    def on_drained(self, stream: Stream, size: int) -> None:
        """Response bytes that had waited have gone to the client: the replica may send as many more."""
        leg = stream.partner
        if leg is not None:
            leg.connection.credit(leg, size)

    # ------------------------------------------------------------ graceful end

    def begin_drain(self) -> None:
        """First half of the two-step GOAWAY (RFC 9113, 6.8): no stream is cut off that was already on its
        way when the client learns of it."""
        self.send_goaway(
            LARGEST_WINDOW.to_bytes(4, "big"), ErrorCode.NO_ERROR, b"the router is shutting down"
        )
        self.send(ping(DRAIN_PING))

    def on_ping_ack(self, opaque: bytes) -> None:
        if opaque == DRAIN_PING:
            self.send_goaway(self.last_peer_stream, ErrorCode.NO_ERROR)
            self.dispatcher.client_drained(self)

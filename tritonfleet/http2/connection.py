"""One HTTP/2 connection of a proxy, without I/O: bytes in by `receive`, bytes out in ``out``.

What flows in: raw bytes from the socket. What flows out: events, as calls of the ``on_…`` methods that a
subclass overrides, and bytes in ``out`` (the sending half, `tritonfleet.http2.sending`).

Methods instead of event objects because this runs for every frame: building and dispatching one object
per frame would be one more allocation and one more call for each. Payloads are never assembled: a DATA
frame is handed on as its bytes arrive.
"""

from tritonfleet.http2 import frames
from tritonfleet.http2.blocks import MAX_CONTINUATIONS, MAX_CUT_BLOCK, Block
from tritonfleet.http2.events import Events
from tritonfleet.http2.fields import MAX_HEADER_LIST, FieldsDecoder
from tritonfleet.http2.frames import CONNECTION, DATA, ErrorCode, ProtocolError, unpack_header
from tritonfleet.http2.sending import MAX_FRAME, SMALL_PAYLOAD, Held, Sender
from tritonfleet.http2.stream import Buffer, Stream

MAX_CONTROL_PAYLOAD = 64 * 1024  # any frame but DATA is taken whole, so it is held this small
UPDATES_PER_SENDING = 20  # WINDOW_UPDATEs that may follow what we sent; Envoy: 20 for each DATA frame
LARGE_BLOCK = 1024  # bytes of a header block that take others' time as a further stream would
TINY_PAYLOAD = 1024  # bytes of DATA, of which less takes others' time for what is around it
STREAMS_PER_STRIKE = 128  # a new initial window costs work for each stream that is open
UNPRODUCTIVE = frozenset((frames.PING, frames.SETTINGS, frames.PRIORITY, frames.GOAWAY)) | frozenset(
    range(10, 256)
)
HEADERS, END_HEADERS = frames.HEADERS, frames.END_HEADERS
PLAIN_HEADERS = END_HEADERS | frames.PADDED | frames.HAS_PRIORITY


class Connection(Sender, Events):
    """Both halves of a connection: parses what arrives, and sends (see `Sender`)."""

    __slots__ = (
        "_block", "_data_ends", "_data_left",
        "_data_stream", "_decoded", "_decoder", "_goaway_last", "_pending", "_preface_read",
        "_sent_at_update", "_settings_read", "_updates_left", "bytes_per_turn", "interrupted",
        "last_peer_stream", "streams_per_turn",
    )  # fmt: skip

    max_continuations = MAX_CONTINUATIONS  # of a header block
    max_settings = 32  # in one frame

    def __init__(self, touched: list[Sender], held: Held | None = None) -> None:
        super().__init__(touched, held)
        self.streams_per_turn = 1 << 30  # that may be opened in one turn of the loop; then others' turn comes
        self.bytes_per_turn = 1 << 62  # that may be looked at in one turn, those of larger DATA apart
        self.last_peer_stream = CONNECTION
        self.interrupted = False  # `receive` stopped for the others' sake; call it again with b""
        self._goaway_last = frames.LARGEST_STREAM
        self._sent_at_update = 0
        self._updates_left = UPDATES_PER_SENDING
        self._decoder = FieldsDecoder(MAX_CUT_BLOCK if self.is_client else MAX_HEADER_LIST)
        self._decoded = self._decoder.cache
        self._pending = b""
        self._preface_read = self.is_client
        self._settings_read = False
        self._data_left = 0  # of a DATA frame whose payload is still arriving
        self._data_stream: Stream | None = None
        self._data_ends = False
        self._block: Block | None = None  # whose CONTINUATION is still to come

    @property
    def greeted(self) -> bool:
        """Whether the peer has sent its preface and settings."""
        return self._settings_read

    @property
    def in_header_block(self) -> bool:
        """Whether a header block was begun and not ended."""
        return self._block is not None

    # ------------------------------------------------------------ input

    def receive(self, data: bytes) -> None:
        """Take bytes from the socket. Raises ProtocolError: send GOAWAY with its code, flush, close.

        One long loop on purpose: it runs for every frame, and a call costs more than what it would hold.
        """
        if self._pending:
            data, self._pending = self._pending + data, b""
        size, at, opened = len(data), 0, 0
        if not self._preface_read:
            if not frames.PREFACE.startswith(data[:24]):
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "this is not HTTP/2 with prior knowledge")
            if size < 24:
                self._pending = data
                return
            at, self._preface_read = 24, True
        if self._data_left:
            at = min(self._data_left, size)
            self._data_left -= at
            self._on_data_part(memoryview(data)[:at], self._data_left == 0)
        limit = size if size - at <= self.bytes_per_turn else at + self.bytes_per_turn
        while limit - at >= 9:
            high, low, kind, flags, stream_id = unpack_header(data, at)
            length = (high << 8) | low
            start = at + 9
            end = start + length
            if kind == DATA:
                if length > MAX_FRAME or self._block is not None or flags & frames.PADDED:
                    if not self._on_unusual_data(data, start, end, flags):
                        break
                    at = end
                    continue
                self.receive_room -= length
                if self.receive_room < 0:
                    raise ProtocolError(
                        ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window"
                    )
                stream = self.streams.get(stream_id)
                if stream is None or stream.receive_closed:
                    stream = self._on_late_data(stream_id, length)
                else:  # `_data_target` without its call
                    if self.credit_on_receipt:
                        self.credit_connection(length)
                    stream.receive_room -= length
                    if stream.receive_room < 0:
                        raise ProtocolError(
                            ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream's window"
                        )
                if end > size:
                    self._data_left = end - size
                    self._data_stream = stream
                    self._data_ends = bool(flags & 1)
                    if start < size:
                        self._on_data_part(memoryview(data)[start:size], False)
                    return
                if stream is not None:
                    if length < TINY_PAYLOAD:
                        payload: Buffer = data[start:end]
                    else:  # such bytes take little time
                        payload = data[start:end] if length <= SMALL_PAYLOAD else memoryview(data)[start:end]
                        limit = min(limit + length, size)
                    if flags & 1:
                        self.close_receive(stream)
                        self.on_data(stream, payload, True)
                    elif length:
                        self.on_data(stream, payload, False)
                    else:
                        self.on_unproductive(DATA)
            elif (
                kind == HEADERS
                and end <= size
                and flags & PLAIN_HEADERS == END_HEADERS
                and self._block is None
                and self._settings_read
                and length < LARGE_BLOCK
                and stream_id[0] < 0x80
            ):  # the usual header block: `_on_frame` and `_on_headers_frame` without their calls
                self._on_block(stream_id, data[start:end], flags & 1 == 1)
                opened += 1
                if opened >= self.streams_per_turn and size - end >= 9:
                    at, self.interrupted = end, True
                    break
            else:
                if length > MAX_CONTROL_PAYLOAD and not (self.is_client and length <= MAX_FRAME):
                    raise ProtocolError(
                        ErrorCode.FRAME_SIZE_ERROR, f"frame of type {kind} with {length} bytes"
                    )
                if end > size:
                    break
                self._on_frame(kind, flags, stream_id, data[start:end])
                if kind == HEADERS or kind == frames.CONTINUATION:
                    opened += 1 + length // LARGE_BLOCK  # to decode it may cost as much as many calls
                    if opened >= self.streams_per_turn and size - end >= 9:
                        at, self.interrupted = end, True
                        break
            at = end
        else:
            if limit < size:
                self.interrupted = True
        if at < size:
            self._pending = data[at:]

    def _data_target(self, stream_id: bytes, length: int) -> Stream | None:
        """The stream that DATA belongs to, its window charged; None if it is to be thrown away."""
        stream = self.streams.get(stream_id)
        if stream is None or stream.receive_closed:
            return self._on_late_data(stream_id, length)
        if self.credit_on_receipt:
            self.credit_connection(length)
        stream.receive_room -= length
        if stream.receive_room < 0:
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream's window")
        return stream

    def _on_late_data(self, stream_id: bytes, length: int) -> Stream | None:
        """DATA of a stream that takes none: thrown away if it crossed a reset of ours, else an offence."""
        if stream_id[0] & 0x80:
            return self._data_target(frames.unreserved(stream_id), length)
        if self._is_idle(stream_id):
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "DATA on a stream that was never opened")
        if stream_id in self.streams:
            raise ProtocolError(ErrorCode.STREAM_CLOSED, "DATA after END_STREAM")
        if not self.is_client and not self.was_abandoned(stream_id):
            raise ProtocolError(ErrorCode.STREAM_CLOSED, "DATA on a stream that its sender has closed")
        self.credit_connection(length)  # nobody else will give it back
        return None

    def _on_data_part(self, part: memoryview, last: bool) -> None:
        stream = self._data_stream
        if last:
            self._data_stream = None
        if stream is None:
            return
        if self.streams.get(stream.id) is not stream:  # reset meanwhile
            if not self.credit_on_receipt:
                self.credit_connection(len(part))
            return
        end_stream = last and self._data_ends
        if end_stream:
            self.close_receive(stream)
        self.on_data(stream, part, end_stream)

    def _on_unusual_data(self, data: bytes, start: int, end: int, flags: int) -> bool:
        """Padded DATA, taken whole, and the illegal kinds. False while the frame is not complete."""
        length = end - start
        if length > MAX_FRAME:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"DATA frame of {length} bytes")
        if self._block is not None:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "DATA inside a header block")
        if end > len(data):
            return False
        padding = data[start] if length else 0
        if length == 0 or padding >= length:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "padding exceeds the frame")
        self.receive_room -= length
        if self.receive_room < 0:
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window")
        stream = self._data_target(data[start - 4 : start], length)
        if stream is not None:
            end_stream = bool(flags & 1)
            if end_stream:
                self.close_receive(stream)
            self.credit(stream, padding + 1)  # padding goes nowhere: it has drained already
            if padding + 1 == length and not end_stream:
                self.on_unproductive(DATA)
            self.on_data(stream, data[start + 1 : end - padding], end_stream)
        return True

    def _is_idle(self, stream_id: bytes) -> bool:
        """Whether a stream of this identifier was never opened by anyone. Bytes compare as the numbers."""
        if stream_id == CONNECTION:
            return True  # no stream at all: whatever speaks of one is as wrong there
        ours = (stream_id[3] & 1) == (1 if self.is_client else 0)
        if ours:
            return stream_id >= self.next_stream.to_bytes(4, "big")
        return stream_id > self.last_peer_stream

    def _on_frame(self, kind: int, flags: int, stream_id: bytes, payload: bytes) -> None:
        if stream_id[0] & 0x80:
            stream_id = frames.unreserved(stream_id)
        if self._block is not None and (kind != frames.CONTINUATION or stream_id != self._block.stream):
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted by another frame")
        if not self._settings_read and kind != frames.SETTINGS:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "the first frame was not SETTINGS")
        if kind in UNPRODUCTIVE:
            self.on_unproductive(kind)
        if kind == frames.HEADERS:
            self._on_headers_frame(flags, stream_id, payload)
        elif kind == frames.WINDOW_UPDATE:
            self._on_window_update(stream_id, payload)
        elif kind == frames.RST_STREAM:
            self._on_rst_stream(stream_id, payload)
        elif kind == frames.SETTINGS:
            self._on_settings_frame(flags, stream_id, payload)
        elif kind == frames.PING:
            self._on_ping(flags, stream_id, payload)
        elif kind == frames.GOAWAY:
            if stream_id != CONNECTION:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
            if len(payload) < 8:
                raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "malformed GOAWAY")
            if payload[:4] > self._goaway_last:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "GOAWAY with a higher stream than before")
            self._goaway_last = payload[:4]
            self.on_goaway(payload[:4], int.from_bytes(payload[4:8], "big"), payload[8:])
        elif kind == frames.CONTINUATION:
            self._on_continuation(flags, payload)
        elif kind == frames.PRIORITY:
            if stream_id == CONNECTION:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
            if len(payload) != 5:
                raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "malformed PRIORITY")
            frames.check_dependency(stream_id, payload)
        elif kind == frames.PUSH_PROMISE:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE was not allowed")

    def _on_headers_frame(self, flags: int, stream_id: bytes, payload: bytes) -> None:
        if flags & (frames.PADDED | frames.HAS_PRIORITY):
            payload = frames.fragment(flags, stream_id, payload)
        self._block = Block(
            stream_id,
            ends=bool(flags & frames.END_STREAM),
            cuts=self.is_client,
            continuations=self.max_continuations,
        )
        self._add_to_block(self._block, flags, payload)

    def _on_continuation(self, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._add_to_block(self._block, flags, payload)

    def _add_to_block(self, block: Block, flags: int, payload: bytes) -> None:
        block.add(payload)
        if flags & frames.END_HEADERS:
            self._block = None
            self._on_block(block.stream, block.whole(), block.ends)

    def _on_block(self, stream_id: bytes, block: bytes, end_stream: bool) -> None:
        fields = self._decoded.get(block) or self._decoder.decode(block)
        stream = self.streams.get(stream_id)
        if stream is None:
            if stream_id == CONNECTION:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0")
            if self.is_client:
                if self._is_idle(stream_id):
                    raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream that was never opened")
                return  # of a stream that we reset
            if stream_id <= self.last_peer_stream:
                if self.was_abandoned(stream_id):
                    return  # it was on its way when we reset the stream
                raise ProtocolError(
                    ErrorCode.STREAM_CLOSED, "HEADERS on a stream that its sender has closed or passed over"
                )
            if not stream_id[3] & 1:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "a client's stream must have an odd number")
            self.last_peer_stream = stream_id
        elif stream.receive_closed:
            raise ProtocolError(ErrorCode.STREAM_CLOSED, "HEADERS after END_STREAM")
        elif end_stream:
            self.close_receive(stream)
        self.on_headers(stream_id, stream, fields, end_stream)

    def _on_window_update(self, stream_id: bytes, payload: bytes) -> None:
        if len(payload) != 4:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "malformed WINDOW_UPDATE")
        increment = int.from_bytes(payload, "big") & 0x7FFFFFFF
        if increment == 0:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        self._count_update()
        if stream_id == CONNECTION:
            was_closed = self.send_room <= 0
            self.send_room += increment
            self.granted += increment
            if self.send_room > frames.LARGEST_WINDOW:
                raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window overflowed")
            if was_closed and self.blocked:  # else none waits for this window: not a scan for each frame
                self._pump_all(list(self.blocked))
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise ProtocolError(
                    ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE on a stream that was never opened"
                )
            return
        stream.send_room += increment
        if stream.send_room > frames.LARGEST_WINDOW:
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window overflowed")
        if stream.queue is not None:
            self._pump(stream)

    def _count_update(self) -> None:
        """Windows are opened because bytes were taken. More than a few updates since we last sent any are
        work for nothing; how large they are says nothing (a stream of small messages has small ones)."""
        sent = self.granted - self.send_room
        if sent != self._sent_at_update:
            self._sent_at_update, self._updates_left = sent, UPDATES_PER_SENDING
        elif self._updates_left:
            self._updates_left -= 1
        else:
            self.on_unproductive(frames.WINDOW_UPDATE)

    def _on_rst_stream(self, stream_id: bytes, payload: bytes) -> None:
        if len(payload) != 4:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "malformed RST_STREAM")
        stream = self.streams.pop(stream_id, None)
        if stream is None:
            if self._is_idle(stream_id):
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on a stream that was never opened")
            self.on_unproductive(frames.RST_STREAM)
            return
        stream.receive_closed = stream.send_closed = True
        self.discard_queue(stream)
        self.on_reset(stream, int.from_bytes(payload, "big"))

    def _on_settings_frame(self, flags: int, stream_id: bytes, payload: bytes) -> None:
        if stream_id != CONNECTION:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if len(payload) % 6 or (flags & frames.ACK and payload):
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "malformed SETTINGS")
        if flags & frames.ACK:
            return
        if len(payload) > 6 * self.max_settings:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, f"{len(payload) // 6} settings in one frame")
        self._settings_read = True
        for at in range(0, len(payload), 6):
            self._apply_setting(
                int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big")
            )
        self.send(frames.SETTINGS_ACK)
        self.on_settings()

    def _apply_setting(self, key: int, value: int) -> None:
        if key == frames.SETTINGS_INITIAL_WINDOW_SIZE:
            if value > frames.LARGEST_WINDOW:
                raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, f"initial window of {value}")
            change = value - self.peer_initial_window
            self.peer_initial_window = value
            for _ in range(len(self.streams) // STREAMS_PER_STRIKE):
                self.on_unproductive(frames.SETTINGS)
            for stream in list(self.streams.values()):
                stream.send_room += change
                if stream.send_room > frames.LARGEST_WINDOW:
                    raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window overflowed")
            if change > 0 and self.blocked:
                self._pump_all(list(self.blocked))
        elif key == frames.SETTINGS_MAX_FRAME_SIZE:
            if not frames.DEFAULT_MAX_FRAME <= value <= frames.LARGEST_MAX_FRAME:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"frame size of {value}")
            self.peer_max_frame = value
        elif key == frames.SETTINGS_MAX_CONCURRENT_STREAMS:
            self.peer_max_streams = value
        elif key == frames.SETTINGS_HEADER_TABLE_SIZE:
            if value < frames.DEFAULT_TABLE:
                self.give_up_table()
        elif key == frames.SETTINGS_ENABLE_PUSH and value > 1:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")

    def _on_ping(self, flags: int, stream_id: bytes, payload: bytes) -> None:
        if stream_id != CONNECTION:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "malformed PING")
        if flags & frames.ACK:
            self.on_ping_ack(payload)
        else:
            self.send(frames.ping(payload, ack=True))

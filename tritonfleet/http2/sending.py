"""The sending half of a connection: frames into ``out``, within the peer's windows.

What flows in: header blocks, pieces of messages, resets, credits. What flows out: bytes in ``out``; the first
append after a `take_output` puts the connection on the ``touched`` list it was given, so that whoever drives
several connections knows which to flush, once each, after a batch of input.

DATA that does not fit into the peer's windows (or the socket) waits in its stream's queue, and headers or a
reset that must not overtake it wait behind it. The sender on the other side of the proxy is credited only for
bytes that have left (`Sender.credit`), so what one stream can make us hold is bounded by ``stream_window``.
"""

from collections import deque
from collections.abc import Iterable

from tritonfleet.http2 import frames
from tritonfleet.http2.blocks import MAX_HEADER_BLOCK
from tritonfleet.http2.frames import (
    CONNECTION,
    DATA_LAST,
    DATA_OPEN,
    HEADERS_LAST,
    HEADERS_OPEN,
    SMALL_FRAME,
)
from tritonfleet.http2.stream import SMALL_PIECE, Buffer, Stream, joins, kept

SMALL_PAYLOAD = 4096  # bytes; up to this a copy is cheaper than a memoryview and a scatter write
MAX_FRAME = 1 << 20  # what we let peers send in one DATA frame; its payload is passed on piecewise
REMEMBERED_RESETS = 1024  # streams that we reset, whose late frames are no offence
FEW_STREAMS_LEFT = 0x7F  # first byte of an identifier, from which on they will soon be used up
EMPTY_TABLE = b"\x20"  # HPACK: the dynamic table has 0 bytes from here on (RFC 7541, 6.3)


class Held:
    """How many bytes wait in the streams of several connections together, and how many may."""

    __slots__ = ("limit", "total")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0


class Sender:
    """What both halves share, and everything that sends. ``is_client``: whether we opened the connection."""

    __slots__ = (
        "_abandoned", "_forgotten", "blocked", "drained", "goaway_sent", "granted",
        "has_output", "held", "next_stream", "out", "out_is_large", "peer_initial_window",
        "peer_max_frame", "peer_max_streams", "queued_bytes", "receive_room", "send_room", "small_block",
        "streams", "table_given_up", "touched", "writable",
    )  # fmt: skip

    is_client = False
    # Whether the sender's connection window is refilled on receipt instead of as bytes drain. True toward
    # replicas: their connections are shared by many clients, and a slow one must not stall the others.
    credit_on_receipt = False
    stream_window = 256 * 1024  # that a stream begins with
    wide_window = 256 * 1024  # that it may get when its bytes are taken (`may_widen`)
    connection_window = 4 << 20
    max_streams = 1024  # that we let the peer open
    queue_limit = 1 << 62  # bytes that may wait in all streams' queues before `on_backlog`

    def __init__(self, touched: "list[Sender]", held: Held | None = None) -> None:
        self.touched = touched
        self.held = held if held is not None else Held(1 << 62)
        self.queued_bytes = 0  # over all streams
        self.out: list[Buffer] = []
        self.out_is_large = False  # out holds views of large payloads: write it scattered, do not join
        self.has_output = False  # since the last take_output
        self.writable = True  # False while the transport holds too much: DATA waits in its streams
        self.streams: dict[bytes, Stream] = {}
        self.blocked: dict[Stream, None] = {}  # streams whose queue waits, in the order to serve them
        self.next_stream = 1 if self.is_client else 2
        self.peer_initial_window = frames.DEFAULT_WINDOW
        self.peer_max_frame = frames.DEFAULT_MAX_FRAME
        self.peer_max_streams = frames.LARGEST_WINDOW
        self.send_room = frames.DEFAULT_WINDOW
        self.granted = frames.DEFAULT_WINDOW  # by the peer since the start: less send_room, what was sent
        self.receive_room = self.connection_window
        self.drained = 0
        self.small_block = SMALL_FRAME  # shorter header blocks are plainly framed; 0: the next one is not
        self.table_given_up = False  # we have told the peer that our HPACK table has no room, or will
        self.goaway_sent = False
        self._abandoned: dict[bytes, None] = {}  # what we reset, oldest first
        self._forgotten = CONNECTION  # the highest that fell out of it
        self._greet()

    def on_drained(self, stream: Stream, size: int) -> None:
        """``size`` bytes that had waited in ``stream``'s queue have left (or were thrown away)."""

    def may_widen(self, stream: Stream) -> bool:  # noqa: ARG002 # for those who override it
        """Whether ``stream``, whose first bytes have drained, gets the wide window from now on."""
        return True

    def on_few_streams_left(self) -> None:
        """One of the last eight million identifiers of this connection was given to a stream of ours."""

    def on_backlog(self) -> None:
        """More than ``queue_limit`` bytes wait here, or more than `Held.limit` everywhere."""

    def send(self, part: bytes) -> None:
        self.out.append(part)
        if not self.has_output:
            self.has_output = True
            self.touched.append(self)

    def take_output(self) -> list[Buffer]:
        out, self.out = self.out, []
        self.has_output = False
        return out

    def _greet(self) -> None:
        values = {
            frames.SETTINGS_INITIAL_WINDOW_SIZE: self.stream_window,
            frames.SETTINGS_MAX_FRAME_SIZE: MAX_FRAME,
            frames.SETTINGS_MAX_HEADER_LIST_SIZE: MAX_HEADER_BLOCK,
        }
        if self.is_client:
            values[frames.SETTINGS_ENABLE_PUSH] = 0
            self.send(frames.PREFACE)
        else:
            values[frames.SETTINGS_MAX_CONCURRENT_STREAMS] = self.max_streams
        self.send(frames.settings(values))
        self.send(frames.window_update(CONNECTION, self.connection_window - frames.DEFAULT_WINDOW))

    def open_stream_id(self) -> bytes:
        """The identifier for a stream that we open. Raises OverflowError when the connection is used up."""
        stream_id = self.next_stream.to_bytes(4, "big")
        self.next_stream += 2
        if stream_id[0] >= FEW_STREAMS_LEFT:
            if stream_id[0] & 0x80:
                raise OverflowError("all stream identifiers of this connection are used")
            self.on_few_streams_left()
        return stream_id

    def send_headers(self, stream: Stream, block: bytes, end_stream: bool) -> None:
        """Send a header block, behind whatever DATA of the stream still waits."""
        if stream.queue is not None:
            stream.queue.append((None, block, end_stream))
            return
        size = len(block)
        if size < self.small_block:
            head = HEADERS_LAST[size] if end_stream else HEADERS_OPEN[size]
            self.out.append(head + stream.id + block)
            if not self.has_output:  # `send` without its call
                self.has_output = True
                self.touched.append(self)
        else:
            self._emit_headers(stream, block, end_stream)
        if end_stream:
            self._close_send(stream)

    def _emit_headers(self, stream: Stream, block: bytes, end_stream: bool) -> None:
        """Any header block; the first one after a smaller table was asked for says that there is none at all
        (RFC 7541, 4.2), which holds for ever."""
        if not self.small_block:
            block, self.small_block = EMPTY_TABLE + block, SMALL_FRAME
        self.send(frames.headers(stream.id, block, end_stream, self.peer_max_frame))

    def give_up_table(self) -> None:
        """The peer wants our HPACK table, which we do not use, to be smaller than HTTP/2's default."""
        if not self.table_given_up:
            self.table_given_up, self.small_block = True, 0

    def send_data(self, stream: Stream, payload: Buffer, end_stream: bool) -> bool:
        """Send DATA as far as windows and the socket allow; the rest waits in the stream's queue.

        True if all of it went out now: the caller then credits its sender. Otherwise `on_drained` reports
        every byte as it leaves, those that left at once included.
        """
        size = len(payload)
        if (
            stream.queue is None
            and self.writable
            and size <= stream.send_room
            and size <= self.send_room
            and size <= self.peer_max_frame
        ):
            stream.send_room -= size
            self.send_room -= size
            if size < SMALL_FRAME:  # `_emit_data` and `send` without their calls
                head = DATA_LAST[size] if end_stream else DATA_OPEN[size]
                self.out.append(head + stream.id + payload)
                if not self.has_output:
                    self.has_output = True
                    self.touched.append(self)
                if end_stream:
                    self._close_send(stream)
            else:
                self._emit_data(stream, payload, size, end_stream)
            return True
        queue = stream.queue
        if queue is None:
            queue = stream.queue = deque()
        last = queue[-1][0] if queue else None
        if joins(last, size):
            last += payload
            if end_stream:
                queue[-1] = (last, True)
        else:
            queue.append((bytearray(payload) if size <= SMALL_PIECE else kept(payload), end_stream))
        stream.queued_bytes += size
        self._count_queued(size)
        self._pump(stream)
        if self.queued_bytes > self.queue_limit or self.held.total > self.held.limit:
            self.on_backlog()
        return False

    def _count_queued(self, change: int) -> None:
        self.queued_bytes += change
        self.held.total += change

    def _emit_data(self, stream: Stream, payload: Buffer, size: int, end_stream: bool) -> None:
        head = size.to_bytes(3, "big") + (b"\0\1" if end_stream else b"\0\0") + stream.id
        if size <= SMALL_PAYLOAD:
            self.send(head + payload)
        else:
            self.send(head)
            self.out.append(payload)
            self.out_is_large = True
        if end_stream:
            self._close_send(stream)

    def send_reset(self, stream: Stream, code: int, *, after_queue: bool = False) -> None:
        """Give up the stream at once, or behind what still waits (``after_queue``)."""
        if stream.queue is not None and after_queue:
            stream.queue.append((None, None, code))
            return
        self.discard_queue(stream)
        if self.streams.pop(stream.id, None) is not None:
            self.send(frames.rst_stream(stream.id, code))
            if not stream.receive_closed:
                self._remember(stream.id)
        stream.send_closed = stream.receive_closed = True

    def _remember(self, stream_id: bytes) -> None:
        """The peer may not know of our reset yet: what it sends meanwhile is to be ignored (RFC 9113, 5.4.2),
        while the same frames on a stream that it ended itself are an error."""
        self._abandoned[stream_id] = None
        if len(self._abandoned) > REMEMBERED_RESETS:
            oldest = next(iter(self._abandoned))
            del self._abandoned[oldest]
            self._forgotten = max(self._forgotten, oldest)

    def was_abandoned(self, stream_id: bytes) -> bool:
        """Whether frames on this closed stream may have crossed a reset of ours."""
        return stream_id in self._abandoned or stream_id <= self._forgotten

    def discard_queue(self, stream: Stream) -> None:
        if stream.queue is not None:
            size, stream.queued_bytes, stream.queue = stream.queued_bytes, 0, None
            self.blocked.pop(stream, None)
            self._count_queued(-size)
            self.on_drained(stream, size)

    def credit(self, stream: Stream, size: int) -> None:
        """``size`` bytes of DATA received on ``stream`` have left us: let its sender send as many more."""
        if not self.credit_on_receipt:
            self.drained += size  # `credit_connection` without its call
            if self.drained >= self.receive_room:
                self.credit_connection(0)
        if not stream.receive_closed:
            stream.drained += size
            if stream.drained >= stream.credit_at:
                if stream.credit_at < self.wide_window >> 1 and self.may_widen(stream):
                    stream.credit_at = self.wide_window >> 1
                    stream.drained += self.wide_window - self.stream_window
                stream.receive_room += stream.drained
                self.send(frames.window_update(stream.id, stream.drained))
                stream.drained = 0

    def credit_connection(self, size: int) -> None:
        """At half of the window that is not held by what waits: were it half of all, streams that hold more
        than the other half would keep the rest from what has drained."""
        self.drained += size
        if self.drained >= self.receive_room and self.drained:
            self.receive_room += self.drained
            self.send(frames.window_update(CONNECTION, self.drained))
            self.drained = 0

    def set_writable(self, writable: bool) -> None:
        """What the transport says of its buffer. When it has room again, waiting streams go on in turn."""
        self.writable = writable
        if writable:
            self._pump_all(list(self.blocked))

    def _pump_all(self, streams: Iterable[Stream]) -> None:
        for stream in streams:
            if not self.writable or self.send_room <= 0:
                return
            self.blocked.pop(stream, None)  # goes to the back of the line if it stays blocked
            self._pump(stream)

    def _pump(self, stream: Stream) -> None:
        """Send what windows allow of one stream's queue."""
        queue, sent = stream.queue, 0
        while queue:
            first = queue[0]
            if first[0] is None:
                queue.popleft()
                if first[1] is None:
                    stream.queue = None
                    self.send_reset(stream, first[2])
                    break
                self._emit_headers(stream, first[1], first[2])
                if first[2]:
                    self._close_send(stream)
                continue
            payload, end_stream = first[0], first[1]
            size = len(payload)
            room = min(size, stream.send_room, self.send_room, self.peer_max_frame)
            if not size:
                room = 0  # an empty frame needs no window, not even one in debt (a smaller one was set)
            elif room <= 0 or not self.writable:
                break
            if room < size:
                view = memoryview(payload)
                queue[0] = (view[room:], bool(end_stream))
                payload, end_stream = view[:room], False
            else:
                queue.popleft()
            stream.send_room -= room
            self.send_room -= room
            stream.queued_bytes -= room
            sent += room
            self._emit_data(stream, payload, room, bool(end_stream))
        if queue:
            self.blocked[stream] = None
        else:
            stream.queue = None
            self.blocked.pop(stream, None)
        if sent:
            self._count_queued(-sent)
            self.on_drained(stream, sent)

    def _close_send(self, stream: Stream) -> None:
        stream.send_closed = True
        if stream.receive_closed:
            self.streams.pop(stream.id, None)

    def close_receive(self, stream: Stream) -> None:
        """The peer ended its half; the stream goes when ours has ended too."""
        stream.receive_closed = True
        if stream.send_closed:
            self.streams.pop(stream.id, None)

    def send_goaway(self, last_stream: bytes, code: int, debug: bytes = b"") -> None:
        self.goaway_sent = True
        self.send(frames.goaway(last_stream, code, debug))

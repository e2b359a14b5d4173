"""One direction pair of a proxied call on one connection, and what waits to be sent on it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from tritonfleet.http2.sending import Sender

Buffer = bytes | bytearray | memoryview

SMALL_PIECE = 256  # bytes; such pieces of a message that has to wait are put together ...
PUT_TOGETHER = 4096  # ... up to this many, or each would cost more memory than it has bytes

# What waits in a stream's queue: DATA (payload, its length, END_STREAM?), a header block (None, -1, …) …
QueuedData = tuple[Buffer, bool]
QueuedHeaders = tuple[None, bytes, bool]
QueuedReset = tuple[None, None, int]
Queued = QueuedData | QueuedHeaders | QueuedReset


def kept(payload: Buffer) -> Buffer:
    """``payload`` as it may be kept: not a piece of a read that is more than twice as large, and nothing that
    may grow."""
    if type(payload) is bytearray:
        return bytes(payload)
    if type(payload) is memoryview and len(payload.obj) > 2 * len(payload):  # type: ignore[arg-type] # a piece of a read, which is bytes
        return bytes(payload)
    return payload


def joins(last: Buffer | None, size: int) -> TypeGuard[bytearray]:
    """Whether a piece of ``size`` bytes is to be put to the ``last`` one that waits before it."""
    return size <= SMALL_PIECE and type(last) is bytearray and len(last) + size <= PUT_TOGETHER


def put(parts: list[Buffer], payload: Buffer) -> None:
    """Add ``payload`` to what is kept of a message, whose first part is there."""
    size = len(payload)
    last = parts[-1]
    if joins(last, size):
        last += payload
    else:
        parts.append(bytearray(payload) if size <= SMALL_PIECE else kept(payload))


class Stream:
    """A stream of one connection. ``partner`` is the stream on the other side of the proxy.

    Flow control: ``send_room`` is how many bytes of DATA the peer lets us send; ``receive_room`` how many
    we still let the peer send; ``drained`` the bytes that came from the peer, have left us on the other
    side, and were not credited back yet. Sizes in bytes.
    """

    __slots__ = (
        "connection",
        "credit_at",
        "drained",
        "id",
        "partner",
        "queue",
        "queued_bytes",
        "receive_closed",
        "receive_room",
        "send_closed",
        "send_room",
    )

    def __init__(self, connection: Sender, stream_id: bytes) -> None:
        self.connection = connection
        self.id = stream_id
        self.partner: Stream | None = None
        self.send_room = connection.peer_initial_window
        self.receive_room = connection.stream_window
        self.drained = 0
        self.credit_at = connection.stream_window >> 1  # drained bytes that are worth a WINDOW_UPDATE
        self.queue: deque[Queued] | None = None  # None while nothing waits: the usual case
        self.queued_bytes = 0
        self.receive_closed = False  # the peer ended its half
        self.send_closed = False  # END_STREAM (or a reset) has gone out on our half

    def __repr__(self) -> str:
        halves = f"{'-' if self.receive_closed else '<'}{'-' if self.send_closed else '>'}"
        waiting = f" queued={self.queued_bytes}" if self.queue else ""
        return f"<{type(self).__name__} {int.from_bytes(self.id, 'big')} {halves}{waiting}>"

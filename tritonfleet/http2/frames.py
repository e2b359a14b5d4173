"""HTTP/2 frames as bytes: types, flags, error codes, settings, and builders (RFC 9113 sections 4, 6, 7)."""

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_LENGTH = 9
# A frame's header in one go: length (in two parts), type, flags, stream identifier.
unpack_header = struct.Struct(">HBBB4s").unpack_from

# Plain ints, not an IntEnum: they are compared for every frame, and enum members compare slower.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)

END_STREAM = 0x1  # DATA, HEADERS
ACK = 0x1  # SETTINGS, PING
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

SETTINGS_HEADER_TABLE_SIZE = 1
SETTINGS_ENABLE_PUSH = 2
SETTINGS_MAX_CONCURRENT_STREAMS = 3
SETTINGS_INITIAL_WINDOW_SIZE = 4
SETTINGS_MAX_FRAME_SIZE = 5
SETTINGS_MAX_HEADER_LIST_SIZE = 6

DEFAULT_WINDOW = 65_535  # RFC 9113, 6.5.2 and 6.9.2
DEFAULT_MAX_FRAME = 16_384  # RFC 9113, 6.5.2
DEFAULT_TABLE = 4096  # bytes of HPACK's dynamic table (RFC 9113, 6.5.2)
LARGEST_WINDOW = 0x7FFFFFFF  # RFC 9113, 6.9.1
LARGEST_MAX_FRAME = 0xFFFFFF  # RFC 9113, 6.5.2

LARGEST_STREAM = b"\x7f\xff\xff\xff"
CONNECTION = b"\0\0\0\0"  # the stream identifier that means the connection itself

# The first five bytes (length, type, flags) of frames whose payload is shorter than SMALL_FRAME, ready-made.
SMALL_FRAME = 1024  # bytes
HEADERS_OPEN, HEADERS_LAST, DATA_OPEN, DATA_LAST = (
    [length.to_bytes(3, "big") + bytes((kind, flags)) for length in range(SMALL_FRAME)]
    for kind, flags in (
        (HEADERS, END_HEADERS),
        (HEADERS, END_HEADERS | END_STREAM),
        (DATA, 0),
        (DATA, END_STREAM),
    )
)


class ErrorCode(IntEnum):
    """RFC 9113, section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class ProtocolError(Exception):
    """The peer broke a rule that concerns the whole connection: it is to be told and closed."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def frame(kind: int, flags: int, stream: bytes, payload: bytes = b"") -> bytes:
    """One whole frame. ``stream`` is the four-byte identifier as it stands on the wire."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream + payload


def settings(values: dict[int, int]) -> bytes:
    return frame(
        SETTINGS, 0, CONNECTION, b"".join(struct.pack(">HI", key, value) for key, value in values.items())
    )


SETTINGS_ACK = frame(SETTINGS, ACK, CONNECTION)


def window_update(stream: bytes, increment: int) -> bytes:
    return b"\0\0\4\x08\0" + stream + increment.to_bytes(4, "big")


def rst_stream(stream: bytes, code: int) -> bytes:
    return b"\0\0\4\x03\0" + stream + code.to_bytes(4, "big")


def ping(opaque: bytes, *, ack: bool = False) -> bytes:
    return frame(PING, ACK if ack else 0, CONNECTION, opaque)


def goaway(last_stream: bytes, code: int, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, CONNECTION, last_stream + code.to_bytes(4, "big") + debug)


def headers(stream: bytes, block: bytes, end_stream: bool, max_frame: int) -> bytes:
    """A header block as HEADERS and, where it exceeds the peer's frame size, CONTINUATION frames."""
    if len(block) <= max_frame:
        return len(block).to_bytes(3, "big") + (b"\1\5" if end_stream else b"\1\4") + stream + block
    parts = [frame(HEADERS, END_STREAM if end_stream else 0, stream, block[:max_frame])]
    for start in range(max_frame, len(block), max_frame):
        last = start + max_frame >= len(block)
        parts.append(
            frame(CONTINUATION, END_HEADERS if last else 0, stream, block[start : start + max_frame])
        )
    return b"".join(parts)


def unreserved(stream: bytes) -> bytes:
    """Without the reserved bit, which is ignored (RFC 9113, 4.1)."""
    return bytes((stream[0] & 0x7F,)) + stream[1:]


def fragment(flags: int, stream: bytes, payload: bytes) -> bytes:
    """What of a HEADERS frame's payload is of its block. Raises ProtocolError."""
    skip = (1 if flags & PADDED else 0) + (5 if flags & HAS_PRIORITY else 0)
    padding = payload[0] if flags & PADDED and payload else 0
    if skip + padding > len(payload):
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "padding exceeds the frame")
    if flags & HAS_PRIORITY:
        check_dependency(stream, payload[skip - 5 : skip])
    return payload[skip : len(payload) - padding]


def check_dependency(stream: bytes, priority: bytes) -> None:
    """A stream cannot depend on itself (RFC 7540, 5.3.1); otherwise priorities are ignored."""
    if unreserved(priority[:4]) == stream:
        raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself")

"""A header block that comes in several frames, or is long.

From a client it may be neither. A replica's may be: Triton repeats names of a request in the message of its
error, which stands in the trailers, so one request can have it send megabytes of them. Its connection is
shared, and HPACK's table must not be lost, so such a block is not refused: its long strings are cut while
they arrive. What is cut leaves the table as the whole does: an entry larger than the table empties it
(RFC 7541, 4.4).
"""

from tritonfleet.http2.fields import integer
from tritonfleet.http2.frames import DEFAULT_TABLE, ErrorCode, ProtocolError

MAX_HEADER_BLOCK = 16 * 1024  # bytes over HEADERS and its CONTINUATION frames (CVE-2024-28182 and kin)
MAX_CUT_BLOCK = 64 * 1024  # of what is left of a replica's longer one
MAX_CONTINUATIONS = 8  # nghttp2's limit
LONG = DEFAULT_TABLE  # bytes of a string that is cut, and to which
LONG_HUFFMAN = 4 * DEFAULT_TABLE  # a code has at most 30 bits, so these are more than LONG, too
LONGEST_INTEGER = 6  # bytes, of a length in 32 bits


class Block:
    """``cuts``: whether it may be long; else it has at most so many ``continuations``."""

    __slots__ = ("_continuations", "_cut", "_frames", "_size", "_whole", "ends", "stream")

    def __init__(
        self, stream: bytes, *, ends: bool, cuts: bool, continuations: int = MAX_CONTINUATIONS
    ) -> None:
        self.stream = stream
        self.ends = ends  # END_STREAM
        self._whole = bytearray()  # while it is no more than `MAX_HEADER_BLOCK`
        self._cut = Cut() if cuts else None
        self._size = 0
        self._frames, self._continuations = 0, continuations

    def add(self, payload: bytes) -> None:
        """Raises ProtocolError: the decoder is of no further use then."""
        self._frames += 1
        self._size += len(payload)
        if self._cut is not None:
            self._cut.add(payload)
        elif self._frames > self._continuations + 1 or self._size > MAX_HEADER_BLOCK:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "header block too large")
        if self._size <= MAX_HEADER_BLOCK:
            self._whole += payload

    def whole(self) -> bytes:
        """What is to be decoded."""
        if self._cut is not None and self._size > MAX_HEADER_BLOCK:
            return bytes(self._cut.kept)
        return bytes(self._whole)

    def __len__(self) -> int:
        """How many bytes are held of it."""
        return len(self._whole) + (len(self._cut.kept) if self._cut is not None else 0)


class Cut:
    """Copies a block as it arrives into ``kept``, all but the ends of long strings."""

    __slots__ = ("_copied", "_left", "_rest", "_strings", "kept")

    def __init__(self) -> None:
        self.kept = bytearray()
        self._rest = b""  # an integer that is not all here
        self._strings = 0  # of the field at hand that are still to come
        self._left = 0  # bytes of the string at hand that are still to come ...
        self._copied = 0  # ... and those of them that are kept

    def add(self, data: bytes) -> None:
        """Raises ProtocolError for what is no block, or has too many fields."""
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        while at < size:
            if self._left:
                step = min(self._left, size - at)
                some = min(self._copied, step)
                self.kept += data[at : at + some]
                self._copied -= some
                self._left -= step
                at += step
                continue
            value, end = _integer(data, at, 7 if self._strings else _prefix_bits(data[at]))
            if end > size:
                break
            if self._strings:
                self._begin_string(data[at:end], value)
            else:
                self.kept += data[at:end]
                if data[at] & 0x80 == 0 and data[at] & 0xE0 != 0x20:  # a literal
                    self._strings = 1 if value else 2
            at = end
        self._rest = data[at:]
        if len(self.kept) > MAX_CUT_BLOCK:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "header block too large")

    def _begin_string(self, head: bytes, size: int) -> None:
        self._strings -= 1
        self._left = size
        if head[0] & 0x80:
            if size <= LONG_HUFFMAN:
                self.kept += head
                self._copied = size
            else:  # it cannot be cut without decoding it
                self.kept += integer(LONG, 7) + b"?" * LONG
                self._copied = 0
        else:
            self._copied = min(size, LONG)
            self.kept += integer(self._copied, 7)


def _prefix_bits(first: int) -> int:
    """Of the integer that a field representation begins with (RFC 7541, 6)."""
    if first & 0x80:
        return 7
    if first & 0x40:
        return 6
    return 5 if first & 0x20 else 4


def _integer(data: bytes, at: int, prefix_bits: int) -> tuple[int, int]:
    """An integer (RFC 7541, 5.1) and where it ends: beyond ``data`` if it is not all here."""
    top = (1 << prefix_bits) - 1
    value = data[at] & top
    end = at + 1
    if value < top:
        return value, end
    shift = 0
    while end < len(data):
        value += (data[end] & 0x7F) << shift
        shift += 7
        end += 1
        if data[end - 1] < 0x80:
            return value, end
        if end - at >= LONGEST_INTEGER:
            raise ProtocolError(ErrorCode.COMPRESSION_ERROR, "an integer of a header block is too large")
    return value, len(data) + 1

"""Header lists: HPACK decoding with a cache, and encoding without a dynamic table.

A gRPC client sends the same header block on nearly every call. A block that neither inserts into the
decoder's dynamic table nor resizes it always decodes to the same list *while the table stands still*, so
one dict look-up by the block's bytes replaces decoding it. Any insertion or resize empties the cache.

Toward the other side a list is encoded as literals without indexing (RFC 7541, 6.2.2): the block is then
a pure function of the list, is kept beside it, and the peer's table holds nothing of any client's metadata.
"""

from typing import Any

from hpack import Decoder
from hpack.exceptions import HPACKError
from hpack.table import HeaderTable

from tritonfleet.http2.frames import ErrorCode, ProtocolError

HeaderList = tuple[tuple[bytes, bytes], ...]

MAX_HEADER_LIST = 16 * 1024  # bytes, counted as in RFC 9113, 6.5.2 (name + value + 32 each)
CACHED_BLOCKS = 512  # per connection
CACHED_BYTES = 256 * 1024  # of blocks and lists, per connection: a block of a few bytes may mean 16 KiB
MAX_SIZE_UPDATES = 2  # in one block, as many as RFC 7541, 4.2 has use for; each costs an eviction


class Fields:
    """One decoded header list, shared by every call that sent the same block. Treat it as immutable.

    ``block`` is its encoding for any peer. ``info`` is a place for the owner's parsed form, filled once.
    """

    __slots__ = ("block", "info", "items", "size")

    def __init__(self, items: HeaderList) -> None:
        self.items = items
        self.block = encode(items)
        self.size = sum(len(name) + len(value) + 32 for name, value in items)  # RFC 9113, 6.5.2
        self.info: Any = None

    def get(self, name: bytes) -> bytes | None:
        for key, value in self.items:
            if key == name:
                return value
        return None

    def __repr__(self) -> str:
        return f"Fields({dict(self.items)!r})"


class _ObservedTable(HeaderTable):
    insertions = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.insertions += 1
        super().add(name, value)


class FieldsDecoder:
    """The receiving half of one connection's HPACK state."""

    def __init__(self, most: int = MAX_HEADER_LIST) -> None:
        self.max_size_updates = MAX_SIZE_UPDATES
        self._decoder = Decoder(max_header_list_size=most)
        self._table = self._decoder.header_table = _ObservedTable()
        self.cache: dict[bytes, Fields] = {}  # by block; the same dict for the whole life: read it directly
        self._cached_bytes = 0

    def decode(self, block: bytes) -> Fields:
        """Decode one whole block. Raises ProtocolError; the decoder is of no further use then."""
        fields = self.cache.get(block)
        if fields is not None:
            return fields
        table = self._table
        insertions, size = table.insertions, table.maxsize
        if block and block[0] & 0xE0 == 0x20 and size_updates(block) > self.max_size_updates:
            raise ProtocolError(ErrorCode.COMPRESSION_ERROR, "too many table size updates in a header block")
        try:
            decoded = self._decoder.decode(block, raw=True)
        except HPACKError as error:
            # Its own words are not passed on: some hold an address of this process's memory.
            raise ProtocolError(
                ErrorCode.COMPRESSION_ERROR, f"header block cannot be decoded: {type(error).__name__}"
            ) from error
        fields = Fields(tuple((bytes(name), bytes(value)) for name, value in decoded))
        if table.insertions != insertions or table.maxsize != size:
            self._forget()
        elif not block or block[0] & 0xE0 != 0x20:  # a size update is an instruction, not only a list
            weight = len(block) + 2 * fields.size  # the list, and its encoding
            if len(self.cache) >= CACHED_BLOCKS or self._cached_bytes + weight > CACHED_BYTES:
                self._forget()
            self._cached_bytes += weight
            self.cache[block] = fields
        return fields

    def _forget(self) -> None:
        self.cache.clear()
        self._cached_bytes = 0


def size_updates(block: bytes) -> int:
    """How many table size updates (RFC 7541, 6.3) a block begins with."""
    count = at = 0
    while at < len(block) and block[at] & 0xE0 == 0x20:
        count += 1
        more = block[at] & 0x1F == 0x1F
        at += 1
        while more and at < len(block):
            more = block[at] & 0x80 != 0
            at += 1
    return count


def integer(value: int, prefix_bits: int) -> bytes:
    """An HPACK integer whose prefix shares its first byte with nothing set above it (RFC 7541, 5.1)."""
    top = (1 << prefix_bits) - 1
    if value < top:
        return bytes((value,))
    out = bytearray((top,))
    value -= top
    while value >= 128:
        out.append((value & 127) | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(items: HeaderList) -> bytes:
    """Encode a list as literals without indexing, names and values plain (no Huffman)."""
    out = bytearray()
    for name, value in items:
        out += b"\0"
        out += integer(len(name), 7)
        out += name
        out += integer(len(value), 7)
        out += value
    return bytes(out)

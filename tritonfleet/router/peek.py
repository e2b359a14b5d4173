"""What the router reads of a ModelInferRequest: its model, version, priority, sequence, regions. No more.

The message is protobuf; fields are written in the order of their numbers: 1 model_name, 2 model_version,
3 id, 4 parameters (a map), 5 inputs … (grpc_service.proto). So everything of interest stands before the
tensors' values, in the first bytes. Whether "sequence_id" occurs there at all is one search in C; only then
are they parsed. Of a compressed message `plain` makes such first bytes.
"""

import zlib
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from tritonfleet.http2.stream import Buffer

PEEK_LIMIT = 4096  # bytes of a message within which its parameters must stand
GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # told apart by the header: gRPC's "gzip", and "deflate", which is zlib's
SEQUENCE_ID = b"sequence_id"
REGION = b"shared_memory_region"
# The entries of a map of parameters, as every implementation writes them: the name, then a bool_param.
ASKS_FOR_FINAL = b'\n"triton_enable_empty_final_response\x12\x02\x08\x01'
IS_FINAL = b"\n\x15triton_final_response\x12\x02\x08"

LONGEST_ID = 64  # characters of a sequence's name that are kept as they are

SequenceKey = tuple[str, str, int | str]  # model, kind of id, id


@dataclass(frozen=True, slots=True)
class SequenceRef:
    """A request's place in a sequence (Triton's parameters sequence_id, sequence_start, sequence_end)."""

    key: SequenceKey
    start: bool
    end: bool


def enough(data: Buffer) -> bool:
    """Whether ``data``, the first bytes of a call's body, hold all that a peek may need."""
    size = len(data)
    if size >= PEEK_LIMIT:
        return True
    return size >= 5 and size >= 5 + int.from_bytes(data[1:5], "big")


def plain(data: Buffer) -> Buffer:
    """``data``, the first bytes of a call's body, as if its message were not compressed: what the peeks take.
    At most `PEEK_LIMIT` bytes are read and made, whatever a message would unfold to. Of one that is not
    compressed with gzip or deflate, ``data`` itself, which tells the peeks nothing."""
    if len(data) < 5 or data[0] != 1:
        return data
    try:
        message = zlib.decompressobj(GZIP_OR_ZLIB).decompress(data[5 : 5 + PEEK_LIMIT], PEEK_LIMIT)
    except zlib.error:
        return data
    return b"\0" + len(message).to_bytes(4, "big") + message


def peek_sequence(data: Buffer, model: str) -> SequenceRef | None:
    """The sequence that the message at the start of ``data`` (with its 5-byte prefix) belongs to, if any.
    A compressed message tells nothing (see `plain`), nor does the end of a request without one."""
    if not data or data[0] != 0:
        return None
    head = bytes(data[: PEEK_LIMIT + 5])
    if head.find(SEQUENCE_ID) < 0:
        return None
    try:
        return _parameters(head[5 : 5 + int.from_bytes(head[1:5], "big")], model)
    except (IndexError, UnicodeDecodeError):
        return None  # cut off or malformed: Triton will say what is wrong


def peek_priority(data: Buffer) -> int:
    """Triton's parameter "priority" of the message at the start of ``data``; 0, the default, without one."""
    if len(data) < 5 or data[0] != 0:
        return 0
    head = bytes(data[: PEEK_LIMIT + 5])
    if head.find(b"priority") < 0:
        return 0
    try:
        for name, _, value in _entries(head[5 : 5 + int.from_bytes(head[1:5], "big")]):
            if name == "priority" and isinstance(value, int):
                return value
    except (IndexError, UnicodeDecodeError):
        return 0
    return 0


def peek_version(data: Buffer) -> str:
    """Field 2, model_version, of the message at the start of ``data``, whose field 1 is the model's name; ""
    without one. Every RPC that names a model has both."""
    try:
        at = 7 + data[6] if data[6] < 0x80 else 8 + (data[6] & 0x7F | data[7] << 7)
        if data[at] != 0x12 or data[5] != 0x0A:  # most requests end here
            return ""
        end = at + 2 + data[at + 1]
    except IndexError:
        return ""
    if data[at + 1] & 0x80 or end > min(len(data), 5 + int.from_bytes(data[1:5], "big")):
        return ""
    try:
        return str(data[at + 2 : end], "utf-8")
    except UnicodeDecodeError:
        return ""


def peek_regions(data: Buffer, known: Container[str]) -> tuple[str, ...]:
    """The ``known`` shared-memory regions that the tensors of the message at the start of ``data`` name, in
    order of the alphabet. They stand in parameters of inputs and outputs, within the bytes that are looked at
    unless inputs before them carry their values in the old way (``contents``)."""
    if len(data) < 5 or data[0] != 0:
        return ()
    head = bytes(data[: PEEK_LIMIT + 5])
    if head.find(REGION) < 0:
        return ()
    found = set()
    try:
        for name in _region_names(head[5 : 5 + int.from_bytes(head[1:5], "big")]):
            if name in known:
                found.add(name)
    except (IndexError, UnicodeDecodeError):
        pass  # cut off or malformed: what was found until then counts
    return tuple(sorted(found))


def asks_for_final(head: Buffer) -> bool:
    """Whether the request at the start of ``head`` has an empty final response sent."""
    return bytes(head).find(ASKS_FOR_FINAL) >= 0


def peek_final(head: Buffer) -> bool | None:
    """Whether the message at the start of ``head`` (a ModelStreamInferResponse: 1 error_message, 2
    infer_response, whose 4 are its parameters) is the last of its request; None if it does not say. An error
    without a word of it is about a request that was not executed, or longer than what is looked at."""
    data = bytes(head)
    at = data.find(IS_FINAL) + len(IS_FINAL)
    if len(IS_FINAL) <= at < len(data):
        return data[at] == 1
    return True if data[:1] == b"\0" and data[5:6] == b"\n" else None


def peek_answering(head: Buffer) -> str:
    """The model that such a message comes from, ``infer_response.model_name``; "" if it does not say."""
    data = bytes(head)
    try:
        for number, at, length in _fields(data, 5, len(data)):
            if number == 2:
                named = _fields(data, at, min(at + length, len(data)))
                return next((str(data[i : i + n], "utf-8") for key, i, n in named if key == 1), "")
    except (IndexError, UnicodeDecodeError):
        return ""
    return ""


def _region_names(message: bytes) -> Iterator[str]:
    parameters_of = {5: 4, 6: 2}  # inputs and outputs → the number of their parameters' field
    for number, at, length in _fields(message, 0, len(message)):
        if number in parameters_of:
            for inner, inner_at, inner_length in _fields(message, at, min(at + length, len(message))):
                if inner == parameters_of[number]:
                    name, kind, value = _entry(message[inner_at : inner_at + inner_length])
                    if name == "shared_memory_region" and kind == "str":
                        yield str(value)


def _fields(message: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, place, length) of the length-delimited fields in ``message[at:end]``."""
    while at < end:
        tag, at = _varint(message, at)
        if tag & 7 == 0:
            _, at = _varint(message, at)
            continue
        if tag & 7 != 2:
            return
        length, at = _varint(message, at)
        yield tag >> 3, at, length
        at += length


def _parameters(message: bytes, model: str) -> SequenceRef | None:
    key: SequenceKey | None = None
    flags = {"sequence_start": False, "sequence_end": False}
    for name, kind, value in _entries(message):
        if name == "sequence_id" and value not in (0, ""):
            key = (model, kind, value if isinstance(value, int) else _short(value))
        elif name in flags:
            flags[name] = bool(value)
    return SequenceRef(key, flags["sequence_start"], flags["sequence_end"]) if key is not None else None


def _short(name: str) -> str:
    """A sequence's name, or what stands for one that is long: it is kept for as long as the sequence."""
    return name if len(name) <= LONGEST_ID else blake2b(name.encode(), digest_size=16).hexdigest()


def _entries(message: bytes) -> Iterator[tuple[str, str, int | str]]:
    """The parameters of a ModelInferRequest: (name, "int" or "str", value)."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        if tag & 7 != 2 or tag >> 3 > 4:
            return  # the tensors begin
        length, at = _varint(message, at)
        if tag >> 3 == 4:
            yield _entry(message[at : at + length])
        at += length


def _entry(entry: bytes) -> tuple[str, str, int | str]:
    """One parameter: (name, "int" or "str", value)."""
    name, value = "", b""
    at = 0
    while at < len(entry):
        tag, at = _varint(entry, at)
        length, at = _varint(entry, at)
        if tag == 0x0A:
            name = entry[at : at + length].decode()
        elif tag == 0x12:
            value = entry[at : at + length]
        at += length
    if not value:
        return name, "int", 0
    if value[0] == 0x1A:  # string_param
        length, at = _varint(value, 1)
        return name, "str", value[at : at + length].decode()
    if value[0] in (0x08, 0x10, 0x28):  # bool_param, int64_param, uint64_param
        return name, "int", _varint(value, 1)[0]
    return name, "int", 0


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


class StreamScanner:
    """Finds the beginning of every message of a stream in the pieces it arrives in."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._head = b""  # of the message at hand, while too little of it is here
        self._left = 0  # bytes of the message at hand that are still to come, once it was looked at

    def feed(self, payload: Buffer) -> Sequence[Buffer]:
        """The heads (prefix and first bytes) of the messages whose peek became possible with ``payload``."""
        size = len(payload)
        if (
            not self._left
            and not self._head
            and 5 <= size <= PEEK_LIMIT
            and size == 5 + int.from_bytes(payload[1:5], "big")
        ):
            return (payload,)  # the usual piece: a whole message
        heads: list[bytes] = []
        data = self._head + bytes(payload) if self._head else payload
        self._head = b""
        at, size = 0, len(data)
        while at < size:
            if self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
                continue
            rest = size - at
            length = int.from_bytes(data[at + 1 : at + 5], "big") if rest >= 5 else 0
            if rest < 5 or rest < min(5 + length, PEEK_LIMIT):
                self._head = bytes(data[at:])
                break
            heads.append(bytes(data[at : at + min(5 + length, PEEK_LIMIT)]))
            self._left = 5 + length
        return heads

"""What is fuzzed: functions of bytes that raise AssertionError (or whatever else slips out) for a fault.

What an attacker sends must end in ProtocolError or be taken; and what is taken must mean the same however it
is cut, cached or looked at.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.exceptions
import hpack
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "http2"))

from http2_dialogue import ClientRecorder, Recorder  # after the path

from tritonfleet.http2 import frames  # after the path
from tritonfleet.http2.blocks import MAX_CUT_BLOCK, MAX_HEADER_BLOCK, Cut
from tritonfleet.http2.connection import MAX_CONTROL_PAYLOAD
from tritonfleet.http2.fieldrules import request_fault, trailers_fault
from tritonfleet.http2.fields import MAX_SIZE_UPDATES, FieldsDecoder, encode, size_updates
from tritonfleet.http2.frames import ProtocolError
from tritonfleet.router import grpc, peek
from tritonfleet.router.management import READABLE, is_reading

GREETING = frames.settings({})
MOST_HELD = MAX_CONTROL_PAYLOAD + MAX_HEADER_BLOCK + (1 << 16)


def frames_to_us(data: bytes) -> None:
    """Frames of a client, in two pieces, the first byte saying where they are cut, and in one."""
    _frames(data, Recorder, frames.PREFACE + GREETING)


def frames_from_a_replica(data: bytes) -> None:
    """The same from a server, with two streams of ours open."""
    _frames(data, ClientRecorder, GREETING)


def _frames(data: bytes, kind: type[Recorder], greeting: bytes) -> None:
    cut, rest = data[:1], data[1:]
    at = len(rest) * cut[0] // 255 if cut else 0
    whole, pieces = _talk(kind, greeting, [rest]), _talk(kind, greeting, [rest[:at], rest[at:]])
    assert whole == pieces, f"cut at {at}: {pieces} instead of {whole}"


def _talk(kind: type[Recorder], greeting: bytes, parts: list[bytes]) -> tuple[list[Any], str]:
    """What the connection saw, its DATA joined, and the error that ended it."""
    connection = kind()
    connection.receive(greeting)
    if connection.is_client:
        from tritonfleet.http2.stream import Stream

        for _ in range(2):
            stream_id = connection.open_stream_id()
            connection.streams[stream_id] = Stream(connection, stream_id)
    error = ""
    for part in parts:
        try:
            connection.receive(part)
        except ProtocolError as caught:
            error = f"{caught.code!r}: {caught}"
            break
        assert len(connection._pending) <= MOST_HELD
        most = MAX_CUT_BLOCK + MAX_HEADER_BLOCK if connection.is_client else MAX_HEADER_BLOCK
        assert len(connection._block or b"") <= most
    joined: list[Any] = []
    for event in connection.events:
        last = joined[-1] if joined else ("",)
        if event[0] == "data" == last[0] and event[1] == last[1] and not last[3]:
            joined[-1] = ("data", event[1], last[2] + event[2], event[3])
        elif event[0] != "data" or event[2] or event[3]:
            joined.append(event)
    if error and joined and joined[-1][0] == "data":
        joined.pop()  # how much of a message was handed on depends on the cut
    return joined, error


def header_blocks(data: bytes) -> None:
    """Blocks, each behind one byte of length, decoded by the caching decoder and by a plain one."""
    cached, plain = FieldsDecoder(), hpack.Decoder(max_header_list_size=16 * 1024)
    at = 0
    while at < len(data):
        block = data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]
        try:
            expected = tuple((bytes(name), bytes(value)) for name, value in plain.decode(block, raw=True))
        except hpack.HPACKError:
            expected = None
        try:
            found = cached.decode(block).items
        except ProtocolError:
            found = None
        if found is None and size_updates(block) > MAX_SIZE_UPDATES:
            return  # that is our own limit
        assert found == expected
        if found is None:
            return
        assert tuple(hpack.Decoder().decode(encode(found), raw=True)) == found
        header_rules_of(found)


def long_blocks(data: bytes) -> None:
    """A replica's block, in one and two pieces, the first byte saying where. Its strings are short, so what
    is kept of it means what it meant."""
    at, block = (data[0] % max(len(data), 1) if data else 0), data[1:]
    found: list[bytes | str] = []
    for parts in ([block], [block[:at], block[at:]]):
        cut = Cut()
        try:
            for part in parts:
                cut.add(part)
        except ProtocolError as error:
            found.append(f"{error.code!r}: {error}")
        else:
            found.append(bytes(cut.kept))
    assert found[0] == found[1]
    if isinstance(found[0], str):
        return
    try:
        items = hpack.Decoder(max_header_list_size=1 << 20).decode(block, raw=True)
    except hpack.HPACKError:
        return
    assert hpack.Decoder(max_header_list_size=1 << 20).decode(found[0], raw=True) == items


def header_rules(data: bytes) -> None:
    """A request's header list, line by line ``name: value``, judged by us and by the `h2` library."""
    items = [line.partition(b"=")[::2] for line in data.split(b"\n\n")[:20]]
    header_rules_of(tuple(items))


def header_rules_of(items: tuple[tuple[bytes, bytes], ...]) -> None:
    """What we take the `h2` library takes too, but for two things: it wants an authority, for which RFC 9113
    (8.3.1) does not ask; and it wants no white space around values, which gRPC clients send."""
    fault = request_fault(items)
    trailers_fault(items)
    if not fault:
        grpc.RequestInfo(FieldsDecoder().decode(encode(items)))
        if any(name in (b":authority", b"host") for name, _ in items):
            bare = tuple(
                (name, value if name[:1] == b":" else value.strip(b" \t"))
                for name, value in items
                if name != b"cookie"  # it joins them, and refuses what white space that makes
            )
            assert not h2_refuses(bare), f"h2 refuses {items}, we do not"


def h2_refuses(items: tuple[tuple[bytes, bytes], ...]) -> bool:
    """Whether the `h2` library, as a server, takes such a request for malformed."""
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    server.initiate_connection()
    server.receive_data(frames.PREFACE + GREETING)
    try:
        events = server.receive_data(frames.headers(b"\0\0\0\1", encode(items), False, 1 << 14))
    except h2.exceptions.ProtocolError:
        return True
    return not any(type(event).__name__ == "RequestReceived" for event in events)


def grpc_prefix(data: bytes) -> None:
    """Messages of a stream in pieces: the first byte is the size of the pieces."""
    step, rest = (data[0] or 256) if data else 1, data[1:]
    whole = peek.StreamScanner().feed(rest)
    scanner, pieces = peek.StreamScanner(), []
    for at in range(0, len(rest), step):
        pieces += scanner.feed(rest[at : at + step])
    for head, other in zip(whole, pieces, strict=True):
        assert head == other
        peek_at(head)
    peek.enough(rest)


def peek_at(data: bytes) -> None:
    """The first bytes of a body, whatever they are; of a whole plain message, what protobuf finds in it."""
    legible = bytes(peek.plain(data))
    model = grpc.peek_model(legible)
    sequence = peek.peek_sequence(legible, model or "")
    priority = peek.peek_priority(legible)
    only_asks(data)
    if len(data) < 5 or data[0] != 0 or int.from_bytes(data[1:5], "big") != len(data) - 5:
        return
    request = pb.ModelInferRequest()
    try:
        request.ParseFromString(data[5:])
    except DecodeError:
        return
    if request.SerializeToString(deterministic=True) != data[5:] or len(data) > peek.PEEK_LIMIT:
        return  # not as a client writes it: fields out of order, twice, or unknown
    if len(request.model_name.encode()) <= grpc.LONGEST_NAME:
        assert (model or "") == request.model_name
    named = request.parameters.get("sequence_id")
    value = named.int64_param or named.string_param or named.uint64_param if named is not None else 0
    if named is not None and named.WhichOneof("parameter_choice") in ("int64_param", "string_param"):
        assert (sequence is not None) == bool(value)
    if "priority" in request.parameters and request.parameters["priority"].uint64_param:
        assert priority == request.parameters["priority"].uint64_param


def only_asks(data: bytes) -> None:
    """A body that is said to change no setting has none, whatever else is in it."""
    for path, kind in ((READABLE[0], pb.TraceSettingRequest), (READABLE[1], pb.LogSettingsRequest)):
        if is_reading(path, data):
            request = kind()
            try:
                request.ParseFromString(data[5:])
            except DecodeError:
                continue
            assert not request.settings, (path, data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        frames_to_us,
        frames_from_a_replica,
        header_blocks,
        long_blocks,
        header_rules,
        grpc_prefix,
        peek_at,
    )
}

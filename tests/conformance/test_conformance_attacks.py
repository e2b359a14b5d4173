"""What a hostile client can try, one attack after the other on one worker: each meets its reaction, leaves
the worker's memory as it was, and the client beside it notices nothing."""

from collections.abc import Callable

import pytest
from conformance_workers import Neighbour, Target
from h2peer import (
    CONT,
    EH,
    END,
    GOAWAY,
    HEADERS,
    PAD,
    PING,
    PRIORITY,
    SETTINGS,
    Expect,
    Frame,
    Peer,
    acked,
    block,
    data,
    error,
    fatal,
    fr,
    get,
    post,
    priority,
    raw,
    rst,
    setting,
    sid,
    window,
)

from tritonfleet.http2 import frames
from tritonfleet.http2.fields import encode, integer

pytestmark = pytest.mark.processes

MIB = 1 << 20
MOST_GROWTH = 10 * MIB
REACTION_S = 1.0  # of the worker's time, up to its reaction: a busy machine makes no attack more dangerous
GRPC = ("content-type", "application/grpc")
TE = ("te", "trailers")
EMPTY_MESSAGE = b"\0\0\0\0\0"
PING8 = fr(PING, 0, 0, b"h2spec\0\0")
CALM = fatal("ENHANCE_YOUR_CALM")
COMPRESSION = fatal("COMPRESSION_ERROR")
PROTOCOL = error("PROTOCOL_ERROR")
Step = bytes | Expect


def call(stream: int, path: str = "/good.Neighbour/Echo", *extra: tuple[str, str]) -> bytes:
    """A gRPC request's header block; its message is still to come."""
    return fr(HEADERS, EH, stream, block("POST", GRPC, TE, *extra, path=path))


def asked(stream: int, path: str) -> bytes:
    return call(stream, path) + data(stream, EMPTY_MESSAGE)


def each(count: int, *makers: Callable[[int], bytes], first: int = 1) -> bytes:
    """``count`` streams, each with what the makers give for its number."""
    numbers = range(first, first + 2 * count, 2)
    return b"".join(make(number) for number in numbers for make in makers)


def literal(name: bytes, value: bytes) -> bytes:
    """An HPACK field that enters the dynamic table (RFC 7541, 6.2.1)."""
    return b"\x40" + integer(len(name), 7) + name + integer(len(value), 7) + value


def refused(status: int, words: str) -> Expect:
    """Some call is answered by a gRPC status of the router's own."""
    number = f"grpc-status{chr(len(str(status)))}{status}".encode()

    def check(peer: Peer) -> None:
        seen = peer.read(lambda f: f.kind == HEADERS and words.encode() in f.payload)
        assert seen, "closed"
        assert seen[-1].kind == HEADERS, seen[-1]
        assert number in seen[-1].payload, seen[-1]

    return check


def calm(words: str) -> Expect:
    """GOAWAY ENHANCE_YOUR_CALM with these words, then the end."""

    def check(peer: Peer) -> None:
        (told,) = [f for f in peer.read(lambda f: False) if f.kind == GOAWAY]
        assert told.code.name == "ENHANCE_YOUR_CALM"
        assert words.encode() in told.payload

    return check


def well(peer: Peer) -> None:
    """Nothing happens to the connection: a PING that is sent now comes back."""
    peer.send(PING8)
    ponged_after_anything(peer)


def ponged_after_anything(peer: Peer) -> None:
    seen = peer.read(lambda f: f.kind == PING and f.flags & 1)
    assert seen, "closed"
    assert seen[-1].kind == PING, seen[-1]


def answers_have_begun(count: int) -> Expect:
    """So many calls have got their response's headers."""

    def check(peer: Peer) -> None:
        begun: set[int] = set()

        def enough(frame: Frame) -> bool:
            if frame.kind == HEADERS:
                begun.add(frame.stream)
            return len(begun) == count

        peer.read(enough)
        assert len(begun) == count

    return check


# A block of a few bytes that means a list of 4 KB, once the table holds the entry.
TABLED = literal(b"x-large", b"v" * 3800)
FEW_BYTES = encode(((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x.Y/Never")))


def large_list(stream: int) -> bytes:
    """Another one each time, or the decoder would know it."""
    return fr(HEADERS, EH, stream, FEW_BYTES + b"\0\1n\4" + b"%04d" % stream + b"\xbe")


ATTACKS: dict[str, tuple[Step, ...]] = {
    # Rapid reset (CVE-2023-44487), and its relatives by which the server resets (CVE-2025-8671)
    "rapid reset": (each(1500, call, lambda n: data(n, EMPTY_MESSAGE, 0), rst), CALM),
    "rapid reset without a message": (each(1500, call, rst), CALM),
    "calls beyond the limit": (each(1024, post) + each(1500, post, first=2049), CALM),
    "malformed requests": (each(1500, lambda n: get(n, ("connection", "x"))), CALM),
    "lengths that do not hold": (
        each(1500, lambda n: call(n, "/x.Y/Z", ("content-length", "9")) + data(n, EMPTY_MESSAGE)),
        CALM,
    ),
    "trailers that are none": (each(1500, post, lambda n: fr(HEADERS, EH, n, b"\0\1x\1y")), CALM),
    "window opened by 0": (call(1), window(1, 0), fatal("PROTOCOL_ERROR")),
    "window overflow": (call(1), window(1, 0x7FFFFFFF), fatal("FLOW_CONTROL_ERROR")),
    "bad PRIORITY": (call(1), fr(PRIORITY, 0, 1, priority(1)), fatal("PROTOCOL_ERROR")),
    "HEADERS after the end": (asked(1, "/big.Answer/200000") + call(1), fatal("STREAM_CLOSED")),
    "DATA after the end": (asked(1, "/big.Answer/200000") + data(1), fatal("STREAM_CLOSED")),
    # CONTINUATION flood (CVE-2024-28182)
    "continuations": (fr(HEADERS, 0, 1) + fr(CONT, 0, 1) * 20, CALM),
    "large continuations": (fr(HEADERS, 0, 1) + fr(CONT, 0, 1, bytes(5000)) * 5, CALM),
    "a large block in one frame": (raw(block() + bytes(20_000)), CALM),
    # HPACK bombs (CVE-2016-6581, CVE-2026-49975) and CPU
    "a list of more than 16 KiB": (raw(block() + TABLED) + raw(block() + b"\xbe" * 5), COMPRESSION),
    "101 fields": (fr(HEADERS, END | EH, 1, block("GET", *(("x", "y"),) * 100)), PROTOCOL),
    "many large lists": (
        fr(HEADERS, EH, 1, FEW_BYTES + TABLED)
        + each(
            1000,
            lambda n: fr(HEADERS, EH, n, FEW_BYTES + b"\0\1n" + bytes((4,)) + b"%04d" % n + b"\xbe"),
            first=3,
        ),
        refused(8, "metadata of this connection's calls"),
    ),
    "table size updates": (raw(b"\x20\x3f\xe1\x1f\x20" + block()), COMPRESSION),
    "16 KB of table size updates": (raw(b"\x20" * 16_000 + block()), COMPRESSION),
    # Floods (CVE-2019-9512, 9514, 9515, 9517, 9518, 9516)
    "PING": (PING8 * 3000, calm("too_many_pings")),
    "SETTINGS": (frames.settings({}) * 3000, CALM),
    "33 settings in a frame": (fr(SETTINGS, 0, 0, bytes(6) * 33), CALM),
    "windows for many streams": (each(1000, call) + (setting(4, 0) + setting(4, 1000)) * 500, CALM),
    "RST_STREAM of what is over": (call(1) + rst(1) * 3000, CALM),
    "empty DATA": (call(1) + data(1, b"", 0) * 3000, CALM),
    "padded empty DATA": (call(1) + data(1, b"\x03" + bytes(3), PAD) * 3000, CALM),
    "empty header blocks": (each(1500, lambda n: fr(HEADERS, END | EH, n)), CALM),
    "empty header names": (fr(HEADERS, END | EH, 1, block() + b"\0\0\1x"), PROTOCOL),
    "PRIORITY": (fr(PRIORITY, 0, 1, priority(3)) * 3000, CALM),
    "WINDOW_UPDATE": (window(0, 1000) * 3000, CALM),
    "WINDOW_UPDATE of 1": (window(0, 1) * 3000, CALM),
    "frames of unknown types": (fr(0x42, 0, 0) * 3000, CALM),
    "GOAWAY": (fr(GOAWAY, 0, 0, bytes(8)) * 3000, CALM),
    "GOAWAY that takes back": (
        fr(GOAWAY, 0, 0, sid(1) + bytes(4)) + fr(GOAWAY, 0, 0, sid(3) + bytes(4)),
        fatal("PROTOCOL_ERROR"),
    ),
    # What is held for a client that does not take it
    "windows at 0": (
        setting(4, 0),
        acked,
        each(200, lambda n: asked(n, "/big.Answer/200000")),
        answers_have_begun(200),
        well,
    ),
    "a byte at a time": (
        setting(4, 0),
        acked,
        asked(1, "/big.Answer/200000"),
        answers_have_begun(1),
        window(1, 1) * 500,
        well,
    ),
    "a scan for each frame": (
        setting(4, 0),
        acked,
        each(500, lambda n: asked(n, "/big.Answer/1000")),
        answers_have_begun(500),
        window(0, 64) * 1500,
        well,
    ),
    # Frames that declare more than they may
    "DATA of 16 MiB": (call(1) + b"\xff\xff\xff\0\0" + sid(1), fatal("FRAME_SIZE_ERROR")),
    "HEADERS of 16 MiB": (b"\xff\xff\xff\1\4" + sid(1), fatal("FRAME_SIZE_ERROR")),
    "an unknown frame of 16 MiB": (b"\xff\xff\xff\x42\0" + sid(0), fatal("FRAME_SIZE_ERROR")),
    # What would harm the connection to a replica, which others share (CVE-2023-32732)
    "metadata over 8 KiB": (
        call(1, "/x.Y/Z", ("x", "v" * 9000)) + data(1, EMPTY_MESSAGE),
        refused(8, "at most 8192 are taken"),
        well,
    ),
    "-bin that is not base64": (
        call(1, "/x.Y/Z", ("x-bin", "A$")) + data(1, EMPTY_MESSAGE),
        refused(13, "is not base64"),
        well,
    ),
    # Streams and windows
    "a stream's number again": (asked(3, "/x.Y/Z") + asked(3, "/x.Y/Z"), error("STREAM_CLOSED")),
    "the connection's window overflows": (window(0, 0x7FFFFFFF), fatal("FLOW_CONTROL_ERROR")),
    "more DATA than the window": (
        call(1) + data(1, bytes(300_000)),
        fatal("FLOW_CONTROL_ERROR"),
    ),
}
# What would mean something else to whoever reads it next (RFC 9113, 8.2 and 8.3).
PSEUDO = {":method": "POST", ":scheme": "http", ":path": "/smuggled.S/M", ":authority": "x"}
SMUGGLED: dict[str, list[tuple[str, str]]] = {
    "upper case": [*PSEUDO.items(), GRPC, ("X", "y")],
    "a space in a name": [*PSEUDO.items(), GRPC, ("x y", "z")],
    "a line feed": [*PSEUDO.items(), GRPC, ("x", "1\nadmin: yes")],
    "a carriage return": [*PSEUDO.items(), GRPC, ("x", "1\r")],
    "NUL": [*PSEUDO.items(), GRPC, ("x", "a\0b")],
    "a pseudo-header late": [*list(PSEUDO.items())[1:], GRPC, (":method", "POST")],
    "a pseudo-header twice": [*PSEUDO.items(), (":path", "/other"), GRPC],
    "an empty pseudo-header": [*(PSEUDO | {":scheme": ""}).items(), GRPC],
    "a connection's field": [*PSEUDO.items(), GRPC, ("connection", "close")],
    "transfer-encoding": [*PSEUDO.items(), GRPC, ("transfer-encoding", "chunked")],
    "te": [*PSEUDO.items(), GRPC, ("te", "gzip")],
    "two authorities": [*PSEUDO.items(), GRPC, ("host", "y")],
    "one authority three times": [*PSEUDO.items(), GRPC, ("host", "x"), ("host", "x")],
    "two content-lengths": [*PSEUDO.items(), GRPC, ("content-length", "5"), ("content-length", "6")],
    "a content-length that is none": [*PSEUDO.items(), GRPC, ("content-length", "+5")],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack(attack: str, target: Target) -> None:
    with Neighbour(target.channel) as neighbour:
        before, worked_s = target.rss_bytes(), target.cpu_s()
        peer = Peer(target.port)
        try:
            for step in ATTACKS[attack]:
                if isinstance(step, bytes):
                    peer.send(step)
                else:
                    step(peer)
            assert target.cpu_s() - worked_s < REACTION_S
            assert target.rss_bytes() - before < MOST_GROWTH
            neighbour.is_unharmed()
        finally:
            peer.close()


@pytest.mark.parametrize("fields", SMUGGLED)
def test_a_request_that_smuggles_reaches_no_replica(fields: str, target: Target) -> None:
    encoded = encode(tuple((name.encode(), value.encode()) for name, value in SMUGGLED[fields]))
    with Neighbour(target.channel) as neighbour:
        peer = Peer(target.port)
        try:
            peer.send(fr(HEADERS, EH, 1, encoded) + data(1, EMPTY_MESSAGE))
            PROTOCOL(peer)
        finally:
            peer.close()
        neighbour.is_unharmed()
    assert not [path for path in target.seen if "smuggled" in path]


def test_a_path_that_is_none_reaches_no_replica(target: Target) -> None:
    peer = Peer(target.port)
    try:
        peer.send(fr(HEADERS, EH, 1, block("POST", GRPC, path="smuggled")) + data(1, EMPTY_MESSAGE))
        (answer,) = [f for f in peer.read(lambda f: f.flags & END) if f.kind == HEADERS]
        assert b"\7:status\x03400" in answer.payload
    finally:
        peer.close()
    assert not [path for path in target.seen if "smuggled" in path]

"""A client of raw frames for the conformance tables: what to send, and what must come back.

An expectation is stricter than the public suite's: where an error is due, a GOAWAY or RST_STREAM must carry
one of the permitted codes; closing without a word counts only where a table says ``CLOSED``.
"""

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from tritonfleet.http2 import frames
from tritonfleet.http2.fields import encode
from tritonfleet.http2.frames import ErrorCode

END, EH, PAD, PRI = frames.END_STREAM, frames.END_HEADERS, frames.PADDED, frames.HAS_PRIORITY
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONT = range(10)
TIMEOUT_S = 5.0


def sid(number: int) -> bytes:
    return number.to_bytes(4, "big")


def fr(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frames.frame(kind, flags, sid(stream), payload)


def block(method: str = "GET", *extra: tuple[str, str], without: str = "", path: str = "/") -> bytes:
    items = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x"), *extra]
    return encode(tuple((k.encode(), v.encode()) for k, v in items if k != without))


def get(stream: int = 1, *extra: tuple[str, str]) -> bytes:
    return fr(HEADERS, END | EH, stream, block("GET", *extra))


def post(stream: int = 1, *extra: tuple[str, str]) -> bytes:
    """A request whose body is still to come."""
    return fr(HEADERS, EH, stream, block("POST", *extra))


def raw(payload: bytes) -> bytes:
    return fr(HEADERS, END | EH, 1, payload)


def data(stream: int = 1, payload: bytes = b"test", flags: int = END) -> bytes:
    return fr(DATA, flags, stream, payload)


def window(stream: int, increment: int) -> bytes:
    return fr(WINDOW, 0, stream, increment.to_bytes(4, "big"))


def rst(stream: int = 1, code: int = 8) -> bytes:
    return fr(RST, 0, stream, code.to_bytes(4, "big"))


def setting(key: int, value: int) -> bytes:
    return fr(SETTINGS, 0, 0, struct.pack(">HI", key, value))


def priority(dependency: int, weight: int = 15, *, exclusive: bool = False) -> bytes:
    return (dependency | (exclusive << 31)).to_bytes(4, "big") + bytes((weight,))


PING8 = fr(PING, 0, 0, b"h2spec\0\0")


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> ErrorCode:
        at = 4 if self.kind == GOAWAY else 0
        return ErrorCode(int.from_bytes(self.payload[at : at + 4], "big"))


class Peer:
    def __init__(self, port: int, *, greet: bool = True) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self.pending = b""
        self.settings: dict[int, int] = {}
        if greet:
            self.send(frames.PREFACE + frames.settings({}))
            self.read(lambda f: f.kind == SETTINGS and f.flags & 1)
            self.send(frames.SETTINGS_ACK)

    def send(self, payload: bytes) -> None:
        try:
            self.sock.sendall(payload)
        except OSError:
            return  # it has hung up: what it said before is still to be read

    def next(self) -> Frame | None:
        """The next frame; None when the connection is closed. TimeoutError when nothing comes."""
        while len(self.pending) < 9 or len(self.pending) < 9 + int.from_bytes(self.pending[:3], "big"):
            try:
                more = self.sock.recv(1 << 16)
            except ConnectionError:
                return None
            if not more:
                return None
            self.pending += more
        length = int.from_bytes(self.pending[:3], "big")
        head, body = self.pending[:9], self.pending[9 : 9 + length]
        self.pending = self.pending[9 + length :]
        found = Frame(head[3], head[4], int.from_bytes(head[5:9], "big"), body)
        if found.kind == SETTINGS and not found.flags & 1:
            for at in range(0, length, 6):
                key, value = struct.unpack(">HI", body[at : at + 6])
                self.settings[key] = value
        return found

    def read(self, wanted: Callable[[Frame], object]) -> list[Frame]:
        """Everything up to a frame that is ``wanted``, or to the end of the connection."""
        seen: list[Frame] = []
        while (found := self.next()) is not None:
            seen.append(found)
            if wanted(found):
                break
        return seen

    def close(self) -> None:
        self.sock.close()


Expect = Callable[[Peer], None]


def error(*codes: str) -> Expect:
    """A GOAWAY (and then the end) or an RST_STREAM with one of these codes."""

    def check(peer: Peer) -> None:
        seen = peer.read(lambda f: f.kind == GOAWAY or (f.kind == RST and f.code != ErrorCode.NO_ERROR))
        assert seen, "closed without a word"
        assert seen[-1].kind in (GOAWAY, RST), seen
        assert seen[-1].code.name in codes, seen[-1]
        if seen[-1].kind == GOAWAY:
            assert peer.read(lambda f: False) == [], "GOAWAY, and the connection goes on"

    return check


def fatal(*codes: str) -> Expect:
    """A GOAWAY with one of these codes, then the end."""

    def check(peer: Peer) -> None:
        seen = peer.read(lambda f: f.kind == GOAWAY)
        assert seen, "closed without a word"
        assert seen[-1].kind == GOAWAY, seen
        assert seen[-1].code.name in codes, seen[-1]
        assert peer.read(lambda f: False) == [], "GOAWAY, and the connection goes on"

    return check


def CLOSED(peer: Peer) -> None:  # noqa: N802 # reads as a constant in the tables
    seen = peer.read(lambda f: False)
    assert all(f.kind in (SETTINGS, WINDOW, GOAWAY) for f in seen), seen


def answered(stream: int = 1) -> Expect:
    """A response, whole."""

    def check(peer: Peer) -> None:
        seen = peer.read(lambda f: f.stream == stream and f.flags & END and f.kind in (HEADERS, DATA))
        kinds = [f.kind for f in seen if f.stream == stream]
        assert kinds[:1] == [HEADERS], seen
        assert RST not in kinds, seen

    return check


def ponged(peer: Peer) -> None:
    """The connection lives: our PING comes back as it was."""
    seen = peer.read(lambda f: f.kind == PING and f.flags & 1)
    assert seen, "closed"
    assert seen[-1].payload == b"h2spec\0\0", seen
    assert not [f for f in seen if f.kind in (GOAWAY, RST)], seen


def acked(peer: Peer) -> None:
    seen = peer.read(lambda f: f.kind == SETTINGS and f.flags & 1)
    assert seen, "closed"
    assert seen[-1].kind == SETTINGS, seen


def first_data(length: int) -> Expect:
    def check(peer: Peer) -> None:
        seen = peer.read(lambda f: f.kind == DATA)
        assert seen, "closed"
        assert (seen[-1].kind, len(seen[-1].payload)) == (DATA, length), seen

    return check


@dataclass
class Case:
    """``steps``: bytes to send and expectations to meet, in turn."""

    name: str
    steps: tuple[bytes | Expect, ...] = field(default=())
    greet: bool = True

    def run(self, port: int) -> None:
        peer = Peer(port, greet=self.greet)
        try:
            for step in self.steps:
                if isinstance(step, bytes):
                    peer.send(step)
                else:
                    step(peer)
        finally:
            peer.close()


def case(name: str, *steps: bytes | Expect, greet: bool = True) -> Case:
    return Case(name, steps, greet)

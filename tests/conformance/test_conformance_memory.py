"""What a hostile client can make the router hold: each way on a worker of its own, whose memory shows it.

Nothing here breaks a rule of HTTP/2: the client asks, and does not let the router be rid of what it asked.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from conformance_workers import SILENT, Target, grpc_server, running_worker
from h2peer import EH, END, HEADERS, RST, WINDOW, Frame, Peer, acked, block, data, fr, setting, window
from test_conformance_attacks import GRPC, MOST_GROWTH, TE, answers_have_begun, asked, call, each

from tritonfleet.http2.frames import DEFAULT_WINDOW

pytestmark = pytest.mark.processes

KIB, MIB = 1 << 10, 1 << 20
INFER = "/inference.GRPCInferenceService/ModelInfer"
# Answers: 16 KiB of each call that is open, 4 MiB of those with a wide window, and what Python adds.
MOST_GROWTH_BY_ANSWERS = 26 * MIB
# Requests that are kept to be sent again: `kept_by_connection`, and what Python adds.
MOST_GROWTH_BY_BODIES = 24 * MIB
# Such a body is in memory twice, to be sent and to be sent again, beside the frames of one read.
MOST_GROWTH_BY_PIECES = 16 * MIB


class Sender(Peer):
    """Sends DATA as the windows allow."""

    def __init__(self, port: int) -> None:
        self.room = {0: DEFAULT_WINDOW}
        super().__init__(port)

    def next(self) -> Frame | None:
        found = super().next()
        if found is not None and found.kind == WINDOW:
            self.room[found.stream] = self._room(found.stream) + int.from_bytes(found.payload, "big")
        return found

    def _room(self, stream: int) -> int:
        return self.room.setdefault(stream, self.settings.get(4, DEFAULT_WINDOW))

    def body(self, stream: int, body: bytes, piece: int = 16_384, *, end: bool = True) -> None:
        frames = bytearray()
        for at in range(0, len(body), piece):
            part = body[at : at + piece]
            while min(self._room(0), self._room(stream)) < len(part):
                self.send(frames)
                frames.clear()
                assert self.next() is not None, "closed"
            self.room[0] -= len(part)
            self.room[stream] -= len(part)
            frames += data(stream, part, END if end and at + piece >= len(body) else 0)
        self.send(frames)

    def answers(self, count: int) -> None:
        """So many answers have come, whole."""
        for _ in range(count):
            assert self.read(lambda f: f.kind == HEADERS and f.flags & END), "closed"

    def settled(self) -> None:
        """All that was sent has been looked at."""
        self.send(fr(6, 0, 0, b"settled!"))
        self.read(lambda f: f.kind == 6 and f.payload == b"settled!")


def field(number: int, value: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    length = len(value)
    size = bytes((length,)) if length < 128 else bytes((length & 127 | 128, length >> 7))
    return bytes((number << 3 | 2,)) + size + value


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def infer(model: bytes, rest: bytes = b"") -> bytes:
    return framed(field(1, model) + rest)


def streams(count: int, first: int = 1) -> range:
    return range(first, first + 2 * count, 2)


def bodies_kept_for_another_try(peer: Sender) -> None:
    for stream in streams(1000):
        peer.send(call(stream, INFER))
        peer.body(stream, infer(b"m", SILENT + bytes(60_000)))


def large_bodies_kept(peer: Sender) -> None:
    for stream in streams(64):
        peer.send(call(stream, INFER))
        peer.body(stream, infer(b"m", SILENT + bytes(900_000)))


def small_pieces_of_large_reads(peer: Sender) -> None:
    peer.send(call(1))
    peer.body(1, b"\0\x7f\0\0\0", end=False)  # more than the server takes: it is over, and what still comes
    peer.read(lambda f: f.kind == RST)  # is thrown away, but fills the reads
    peer.room[1] = 1 << 40
    for stream in streams(300, 3):
        peer.send(call(stream, INFER))
        peer.body(stream, infer(b"m", SILENT + bytes(4200)))
        peer.body(1, bytes(131_072), end=False)


def bodies_in_pieces_of_two_bytes_that_wait(peer: Sender) -> None:
    peer.send(call(1, INFER))
    peer.body(1, infer(b"busy", SILENT))
    for stream in streams(15, 3):
        peer.send(call(stream, INFER))
        peer.body(stream, b"\0\x7f\0\0\0" + field(1, b"busy") + bytes(5000), end=False)
        peer.body(stream, bytes(240_000), 2, end=False)


def bodies_in_pieces_of_two_bytes_that_are_kept(peer: Sender) -> None:
    for stream in streams(40):
        peer.send(call(stream, INFER))
        peer.body(stream, b"\0\x7f\0\0\0" + field(1, b"m") + SILENT + bytes(5000), end=False)
        peer.body(stream, bytes(55_000), 2, end=False)


def lists_that_are_not_counted(peer: Sender) -> None:
    def small(stream: int) -> bytes:
        fields = [(f"x{number}", "y") for number in range(20)]
        return fr(HEADERS, EH, stream, block("POST", GRPC, ("n", str(stream)), *fields, path="/x.Y/Z"))

    peer.send(each(1000, small))


def lists_that_are_counted(peer: Sender) -> None:
    def large(stream: int) -> bytes:
        fields = [(f"x{number}", "y") for number in range(90)]
        return fr(HEADERS, EH, stream, block("POST", GRPC, TE, ("n", str(stream)), *fields, path="/x.Y/Z"))

    peer.send(each(1000, large))


def names_of_no_model(peer: Sender) -> None:
    peer.send(window(0, 1 << 30))
    for number, stream in enumerate(streams(6000)):
        peer.send(call(stream, INFER))
        peer.body(stream, infer(b"%06d" % number + b"n" * 2000))
        if number % 500 == 499:
            peer.answers(500)


def sequences_without_an_end(peer: Sender) -> None:
    peer.send(window(0, 1 << 30))
    start = field(4, field(1, b"sequence_start") + field(2, b"\x08\x01"))
    for number, stream in enumerate(streams(6000)):
        name = field(3, b"%06d" % number + b"s" * 3000)
        peer.send(call(stream, INFER))
        peer.body(stream, infer(b"m", field(4, field(1, b"sequence_id") + field(2, name)) + start))
        if number % 500 == 499:
            peer.answers(500)


def requests_in_streams(peer: Sender) -> None:
    for stream in streams(100):
        peer.send(call(stream, "/inference.GRPCInferenceService/ModelStreamInfer"))
        peer.body(stream, infer(b"m", SILENT) * 5000, end=False)


def windows_at_0(peer: Sender) -> None:
    peer.send(setting(4, 0))
    acked(peer)
    peer.send(each(1000, lambda stream: asked(stream, "/big.Answer/200000")))
    answers_have_begun(1000)(peer)


def windows_at_0_after_a_little(peer: Sender) -> None:
    windows_at_0(peer)
    peer.send(window(0, 1 << 24) + each(40, lambda stream: window(stream, 16_000)))
    peer.settled()


WAYS = (
    small_pieces_of_large_reads,
    bodies_in_pieces_of_two_bytes_that_wait,
    lists_that_are_not_counted,
    lists_that_are_counted,
    names_of_no_model,
    sequences_without_an_end,
    requests_in_streams,
)
BEYOND = (
    (bodies_kept_for_another_try, MOST_GROWTH_BY_BODIES),
    (large_bodies_kept, MOST_GROWTH_BY_BODIES),
    (windows_at_0, MOST_GROWTH_BY_ANSWERS),
    (windows_at_0_after_a_little, MOST_GROWTH_BY_ANSWERS),
    (bodies_in_pieces_of_two_bytes_that_are_kept, MOST_GROWTH_BY_PIECES),
)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Target]:
    with (
        grpc_server({"busy": 1}) as (row, seen),
        running_worker(tmp_path, row) as (port, process),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        found = Target(port, process.pid, channel, seen)
        found.neighbour_is_well()
        yield found


def growth(target: Target, way: Callable[[Sender], None]) -> int:
    """Bytes that the worker holds more, while its neighbour is well."""
    before = target.rss_bytes()
    peer = Sender(target.port)
    try:
        way(peer)
        peer.settled()
        grown = target.rss_bytes() - before
        target.neighbour_is_well()
        return grown
    finally:
        peer.close()


@pytest.mark.parametrize("way", WAYS)
def test_what_is_held_for_one_client_is_little(way: Callable[[Sender], None], fresh: Target) -> None:
    assert growth(fresh, way) < MOST_GROWTH


@pytest.mark.parametrize(("way", "most"), BEYOND)
def test_what_may_be_more_is_what_is_documented(
    way: Callable[[Sender], None], most: int, fresh: Target
) -> None:
    assert growth(fresh, way) < most

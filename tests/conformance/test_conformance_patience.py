"""What a hostile client does by doing nothing: each meets its end when its time is over, holds little until
then, and the client beside it notices nothing. A worker with short times; they are `router.limits`."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import grpc
import pytest
from conformance_workers import Neighbour, Target, grpc_server, running_worker
from h2peer import GOAWAY, HEADERS, PING8, RST, Peer, acked, block, fr, setting, window
from test_conformance_attacks import MOST_GROWTH, asked, calm, each, ponged_after_anything

from tritonfleet.core.limits import RouterLimits
from tritonfleet.http2 import frames

pytestmark = pytest.mark.processes

KIB, MIB = 1 << 10, 1 << 20
MANY = 1_000_000
SHORT = RouterLimits(greeting_s=1.0, stalled_s=1.0, held_by_all=4 * MIB, control_frames=MANY)
LARGEST_WINDOW = (1 << 31) - 1
WAIT_S = 20.0


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with (
        grpc_server() as (row, seen),
        running_worker(tmp_path_factory.mktemp("patience"), row, limits=SHORT) as (port, process),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        found = Target(port, process.pid, channel, seen)
        found.neighbour_is_well()
        yield found


@contextmanager
def connected(port: int, kind: type[Peer] = Peer, *, greet: bool = True) -> Iterator[Peer]:
    peer = kind(port, greet=greet)
    peer.sock.settimeout(WAIT_S)
    try:
        yield peer
    finally:
        peer.close()


def says_nothing(port: int) -> None:
    for begun in (b"", frames.PREFACE[:10], frames.PREFACE):
        with connected(port, greet=False) as peer:
            peer.send(begun)
            calm("no HTTP/2 settings within 1 s")(peer)


def does_not_end_a_header_block(port: int) -> None:
    with connected(port) as peer:
        peer.send(fr(HEADERS, 0, 1, block()[:5]))
        calm("a header block was not ended within 1 s")(peer)


def keeps_windows_shut(port: int) -> None:
    """Each of its calls is reset; the connection goes on."""
    with connected(port) as peer:
        peer.send(setting(4, 0))
        acked(peer)
        peer.send(each(200, lambda stream: asked(stream, "/big.Answer/200000")))
        reset: set[int] = set()
        while len(reset) < 200:
            reset.add(peer.read(lambda f: f.kind == RST)[-1].stream)
        peer.send(PING8)
        ponged_after_anything(peer)


class Deaf(Peer):
    """Reads nothing after the greeting, however wide its windows are, and has little room for what it does
    not read."""

    def __init__(self, port: int, *, greet: bool = True) -> None:
        super().__init__(port, greet=greet)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        self.send(setting(4, LARGEST_WINDOW) + window(0, LARGEST_WINDOW - frames.DEFAULT_WINDOW))

    def pour(self, part: bytes, most: int, pause_s: float = 0) -> None:
        """Send it again and again, until the connection ends."""
        sent = 0
        with suppress(ConnectionError):
            while sent < most:
                sent += self.sock.send(part)
                time.sleep(pause_s)
            pytest.fail("it may go on for ever")


def does_not_read_its_answers(port: int) -> None:
    with connected(port, Deaf) as peer:
        peer.send(each(100, lambda stream: asked(stream, "/big.Answer/1000000")))
        peer.pour(PING8, 400 * len(PING8), WAIT_S / 400)


def does_not_read_what_its_pings_are_answered(port: int) -> None:
    """They are no flood here, so only that nothing is read from who does not read bounds them."""
    with connected(port, Deaf) as peer:
        peer.pour(PING8 * 1000, MANY * len(PING8))


def reads_nothing_by_many_connections(port: int) -> None:
    """Together they may make the router hold 4 MiB."""
    with ExitStack() as closing:
        peers = [closing.enter_context(connected(port)) for _ in range(30)]
        for peer in peers:
            peer.send(setting(4, 0) + each(30, lambda stream: asked(stream, "/big.Answer/200000")))
        told = [peer.read(lambda f: f.kind in (GOAWAY, RST))[-1] for peer in peers]
    assert any(f.kind == GOAWAY and b"bytes of answers were not read" in f.payload for f in told)


@pytest.mark.parametrize(
    "attack",
    [
        says_nothing,
        does_not_end_a_header_block,
        keeps_windows_shut,
        does_not_read_its_answers,
        does_not_read_what_its_pings_are_answered,
        reads_nothing_by_many_connections,
    ],
)
def test_who(attack: Callable[[int], None], target: Target) -> None:
    with Neighbour(target.channel) as neighbour:
        before = target.rss_bytes()
        attack(target.port)
        assert target.rss_bytes() - before < MOST_GROWTH
        neighbour.is_unharmed()

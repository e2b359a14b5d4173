"""When what a read has caused is written: at the end of the turn of the loop, or at once."""

from collections.abc import Callable
from typing import Any

import pytest

from tritonfleet.http2 import frames
from tritonfleet.router import transport
from tritonfleet.router.transport import LONELY_TURNS, TOGETHER_S, SocketConnection, Touched

PING = frames.ping(b"12345678")


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def set_write_buffer_limits(self, high: int) -> None: ...


class Turns:
    """A loop whose turns end when the test says so, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.soon: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.now = 0.0
        self.touched = Touched()
        monkeypatch.setattr(transport, "perf_counter", lambda: self.now)

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        self.soon.append((callback, arguments))

    def end(self) -> None:
        soon, self.soon = self.soon, []
        for callback, arguments in soon:
            callback(*arguments)
        self.now += 1e-3

    def connection(self) -> tuple[SocketConnection, Wire]:
        loop: Any = self
        wire: Any = Wire()
        found = SocketConnection(self.touched, loop)
        found.connection_made(wire)
        found.data_received(frames.PREFACE + frames.settings({}))
        self.end()
        wire.written.clear()
        return found, wire


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    return Turns(monkeypatch)


def test_what_is_read_in_one_turn_leaves_with_one_write(turns: Turns) -> None:
    one, wire = turns.connection()
    other, beside = turns.connection()
    for _ in range(3 * LONELY_TURNS):
        for connection in (one, other, one):
            connection.data_received(PING)
        assert (wire.written, beside.written) == ([], [])
        turns.end()
        assert [len(wire.written), len(beside.written)] == [1, 1]
        wire.written.clear()
        beside.written.clear()


def test_what_comes_alone_again_and_again_leaves_at_once(turns: Turns) -> None:
    one, wire = turns.connection()
    for _ in range(LONELY_TURNS):
        one.data_received(PING)
        turns.end()
    wire.written.clear()
    one.data_received(PING)
    assert len(wire.written) == 1
    assert turns.soon == []


def test_reads_that_come_together_again_share_a_write_again(turns: Turns) -> None:
    one, wire = turns.connection()
    other, _ = turns.connection()
    for _ in range(LONELY_TURNS + 1):
        one.data_received(PING)
        turns.end()
    wire.written.clear()
    turns.now += TOGETHER_S / 2
    other.data_received(PING)
    turns.now += TOGETHER_S / 2
    one.data_received(PING)
    one.data_received(PING)
    assert len(turns.soon) <= 1
    before = len(wire.written)
    turns.end()
    assert len(wire.written) == before + 1


def test_a_large_read_leaves_at_once(turns: Turns) -> None:
    one, wire = turns.connection()
    one.data_received(PING * (transport.LARGE_READ // len(PING) + 1))
    assert wire.written != []

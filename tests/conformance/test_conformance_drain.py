"""A worker that is told to end (RFC 9113, 6.8): nobody's call is cut off, nobody begins another."""

from pathlib import Path

import pytest
from conformance_workers import grpc_server, running_worker
from h2peer import EH, GOAWAY, HEADERS, PING, Frame, Peer, block, data, fr

pytestmark = pytest.mark.processes

CALL = block("POST", ("content-type", "application/grpc"), ("te", "trailers"), path="/x.Y/Z")
MESSAGE = b"\0\0\0\0\0"


def begun(stream: int) -> bytes:
    return fr(HEADERS, EH, stream, CALL)


def asked(stream: int) -> bytes:
    return begun(stream) + data(stream, MESSAGE)


def status_of(peer: Peer, stream: int) -> bytes:
    """The last header block of a call's answer."""
    return peer.read(lambda f: f.stream == stream and f.kind == HEADERS and f.flags & 1)[-1].payload


def last_stream(goaway: Frame) -> int:
    assert goaway.kind == GOAWAY
    assert goaway.code.name == "NO_ERROR"
    return int.from_bytes(goaway.payload[:4], "big")


def test_two_step_goaway(tmp_path: Path) -> None:
    with (
        grpc_server() as (row, _seen),
        running_worker(tmp_path, row, drain_timeout_s=30) as (port, process),
    ):
        peer, idle = Peer(port), Peer(port)
        peer.send(asked(1) + begun(3))
        assert b"grpc-status\x010" in status_of(peer, 1)
        process.terminate()
        assert last_stream(peer.read(lambda f: f.kind == GOAWAY)[-1]) == (1 << 31) - 1
        ping = peer.read(lambda f: f.kind == PING)[-1]
        peer.send(asked(5))  # as a client that has not heard of it yet
        assert b"grpc-status\x010" in status_of(peer, 5)
        peer.send(fr(PING, 1, 0, ping.payload))
        assert last_stream(peer.read(lambda f: f.kind == GOAWAY)[-1]) == 5
        peer.send(data(3, MESSAGE))  # what was open may go on
        assert b"grpc-status\x010" in status_of(peer, 3)
        assert peer.read(lambda _frame: False) == []  # it hangs up, as the client does not
        assert process.poll() is None  # the other client has not said that it knows
        idle.close()
        assert process.wait(20) == 0
        peer.close()


def test_who_is_still_there_when_the_time_is_over_is_told_so(tmp_path: Path) -> None:
    with (
        grpc_server() as (row, _seen),
        running_worker(tmp_path, row, drain_timeout_s=1) as (port, process),
    ):
        peer = Peer(port)
        peer.send(begun(1))  # a request whose message never comes
        process.terminate()
        said = status_of(peer, 1)
        assert b"grpc-status\x0214" in said
        assert b"router.drain_timeout" in said
        assert process.wait(20) == 0
        peer.close()

"""A worker that is told to end (RFC 9113, 6.8): nobody's call is cut off, nobody begins another."""

from dataclasses import replace
from pathlib import Path
from time import sleep

import pytest
from conformance_workers import SILENT, grpc_server, running_worker
from h2peer import EH, GOAWAY, HEADERS, PING, Frame, Peer, block, data, fr
from test_conformance_memory import INFER, field

pytestmark = pytest.mark.processes

CALL = block("POST", ("content-type", "application/grpc"), ("te", "trailers"), path="/x.Y/Z")
INFERENCE = block("POST", ("content-type", "application/grpc"), ("te", "trailers"), path=INFER)
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


def test_a_call_that_does_not_end_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    """With words that say why, and without another try: an inference, which a lost replica's would have."""
    with (
        grpc_server() as (row, seen),
        grpc_server() as (other, other_seen),
        running_worker(tmp_path, row, replace(other, id="m-1", instance="m-1.1")) as (port, process),
    ):
        peer = Peer(port)
        peer.sock.settimeout(20)
        message = field(1, b"m") + SILENT
        peer.send(fr(HEADERS, EH, 1, INFERENCE) + data(1, b"\0" + len(message).to_bytes(4, "big") + message))
        while not (seen or other_seen):
            sleep(0.05)
        process.terminate()
        assert last_stream(peer.read(lambda f: f.kind == GOAWAY)[-1]) == (1 << 31) - 1
        peer.send(fr(PING, 1, 0, peer.read(lambda f: f.kind == PING)[-1].payload))
        assert last_stream(peer.read(lambda f: f.kind == GOAWAY)[-1]) == 1
        told = status_of(peer, 1)
        assert b"grpc-status\x0214" in told
        assert b"the router ends, and the call was not over after 1 s" in told
        assert peer.read(lambda _frame: False) == []
        assert process.wait(20) == 0
        assert len(seen) + len(other_seen) == 1
        peer.close()

"""Ports that are free, and stay out of the way of outgoing connections."""

import socket

import pytest

from tritonfleet.drivers import ports


def test_they_are_free_different_and_below_the_ephemeral_range() -> None:
    found = ports.free_ports(3, set())
    assert len(set(found)) == 3
    assert all(20_000 <= port <= 32_700 for port in found)
    sockets = [socket.socket() for _ in found]
    try:
        for sock, port in zip(sockets, found, strict=True):
            sock.bind(("127.0.0.1", port))
    finally:
        for sock in sockets:
            sock.close()


def test_taken_ones_are_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    (free,) = ports.free_ports(1, set())
    monkeypatch.setattr(ports, "FIRST", free - 1)
    monkeypatch.setattr(ports, "LAST", free)
    assert ports.free_ports(1, {free - 1}) == [free]


def test_one_that_is_bound_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as sock:
        (port,) = ports.free_ports(1, set())
        sock.bind(("127.0.0.1", port))
        monkeypatch.setattr(ports, "FIRST", port)
        monkeypatch.setattr(ports, "LAST", port)
        with pytest.raises(OSError, match=f"no 1 free ports between {port} and {port}"):
            ports.free_ports(1, set())

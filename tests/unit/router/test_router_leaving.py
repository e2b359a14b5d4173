"""A worker that ends: what becomes of the connections that are just being made."""

import errno
import socket

from tritonfleet.router.__main__ import bound_socket
from tritonfleet.router.leaving import has_waiting, let_nobody_in


def connecting(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    assert sock.connect_ex(("127.0.0.1", port)) in (0, errno.EINPROGRESS)
    return sock


def is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def test_what_waits_in_a_closing_listener_is_kept_and_who_comes_later_finds_the_next_one() -> None:
    first = bound_socket("127.0.0.1:0")
    first.listen()
    port = first.getsockname()[1]
    early = [connecting(port) for _ in range(5)]
    let_nobody_in(first)
    late = connecting(port)
    assert all(is_connected(sock) for sock in early)
    assert not is_connected(late)
    accepted = []
    while has_waiting(first):
        accepted.append(first.accept()[0])
    assert len(accepted) == len(early)
    second = bound_socket(f"127.0.0.1:{port}")
    second.listen()
    first.close()
    second.setblocking(True)
    second.settimeout(20)
    sock, peer = second.accept()  # its first packet was dropped and is sent again
    assert peer == late.getsockname()
    for one in (sock, second, late, *early, *accepted):
        one.close()

"""Messages of any size stream through: the router holds little of them, whichever way they go."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from conformance_workers import Target, running_worker
from h2peer import DATA, EH, END, HEADERS, SETTINGS, Peer, data, fr, setting, window
from test_conformance_attacks import MOST_GROWTH, call
from test_conformance_memory import INFER, field

from tritonfleet.core.wire import TableReplica
from tritonfleet.http2 import frames
from tritonfleet.http2.fields import encode

pytestmark = [pytest.mark.processes, pytest.mark.slow]

MIB = 1 << 20
SIZES = [1, 16_384, MIB, 1 << 30]
WIDE = (1 << 31) - 1 - frames.DEFAULT_WINDOW
BEGUN = encode(((b":status", b"200"), (b"content-type", b"application/grpc")))
ENDED = encode(((b"grpc-status", b"0"),))


def swallow(sock: socket.socket, sizes: list[int]) -> None:
    """A replica's connection: takes everything, answers each call with what its path says, and notes how many
    bytes each request had."""
    sock.sendall(setting(4, (1 << 31) - 1) + window(0, WIDE) + frames.SETTINGS_ACK)
    buffer, taken, answer = b"", 0, 0
    sock.recv(len(frames.PREFACE), socket.MSG_WAITALL)
    while more := sock.recv(MIB):
        buffer += more
        while len(buffer) >= 9:
            length, kind, ends = int.from_bytes(buffer[:3], "big"), buffer[3], buffer[4] & END
            stream = int.from_bytes(buffer[5:9], "big")
            if kind != DATA and len(buffer) < 9 + length:
                break
            payload, buffer = buffer[9 : 9 + length], buffer[9 + length :]
            if kind == HEADERS:
                at = payload.find(b"/big.Answer/")
                answer = int(payload[at + 12 : payload.index(b"\0", at)]) if at > 0 else 0
            elif kind == DATA:
                rest = length - len(payload)
                while rest:
                    rest -= len(sock.recv(min(rest, MIB)))
                taken += length
                if ends:
                    sizes.append(taken)
                    taken = 0
                    sock.sendall(fr(HEADERS, EH, stream, BEGUN))
                    if answer:
                        send(sock, stream, answer)
                    sock.sendall(fr(HEADERS, EH | END, stream, ENDED))


def send(sock: socket.socket, stream: int, size: int) -> None:
    """As much as the router lets it."""
    rooms, buffer, part = {0: frames.DEFAULT_WINDOW, stream: 16_384}, b"", bytes(16_384)
    sock.sendall(b"")
    rooms[0] = 4 * MIB  # the router has opened it when it greeted
    while size:
        room = min(*rooms.values(), len(part), size)
        if room > 0:
            sock.sendall(data(stream, part[:room], 0))
            size -= room
            rooms = {number: left - room for number, left in rooms.items()}
            continue
        buffer += sock.recv(MIB)
        while len(buffer) >= 13:  # nothing else comes here
            assert buffer[3] == frames.WINDOW_UPDATE
            number = int.from_bytes(buffer[5:9], "big")
            rooms[number] = rooms.get(number, 0) + int.from_bytes(buffer[9:13], "big")
            buffer = buffer[13:]


@contextmanager
def swallowing() -> Iterator[tuple[TableReplica, list[int]]]:
    sizes: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def connected(sock: socket.socket) -> None:
            with sock, suppress(ConnectionError):
                swallow(sock, sizes)

        def serve() -> None:
            while True:
                try:
                    sock, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=connected, args=(sock,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        port = listening.getsockname()[1]
        yield TableReplica("m-0", "m-0.1", "m", "127.0.0.1", port, False, ()), sizes
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", ["request", "answer"])
def test_a_message_streams_through(way: str, size: int, tmp_path: Path) -> None:
    with swallowing() as (row, sizes), running_worker(tmp_path, row) as (port, process):
        target = Target(port, process.pid, grpc.insecure_channel(f"127.0.0.1:{port}"), [])
        peer = Peer(port)
        peer.send(setting(4, (1 << 31) - 1) + window(0, WIDE))
        peer.read(lambda f: f.kind == SETTINGS and f.flags & 1)
        before, most = target.rss_bytes(), 0
        if way == "request":
            sent = _send_request(peer, size, target)
            most = sent
            peer.read(lambda f: f.kind == HEADERS and f.flags & END)
        else:
            peer.send(call(1, f"/big.Answer/{size}") + data(1, b"\0\0\0\0\0"))
            got = 0
            while (frame := peer.next()) is not None and not (frame.kind == HEADERS and frame.flags & END):
                got += len(frame.payload) * (frame.kind == DATA)
                if got % (8 * MIB) < len(frame.payload):
                    most = max(most, target.rss_bytes())
            assert got == size
        assert max(most, target.rss_bytes()) - before < MOST_GROWTH
        if way == "request":
            assert sizes == [size + 5 + len(field(1, b"m"))]
        peer.close()
        target.channel.close()


def _send_request(peer: Peer, size: int, target: Target) -> int:
    """Send so large a message as the windows allow; the most memory that was seen meanwhile."""
    head = b"\0" + (size + len(field(1, b"m"))).to_bytes(4, "big") + field(1, b"m")
    rooms, most = {0: 4 * MIB, 1: peer.settings[4]}, 0
    peer.send(call(1, INFER) + data(1, head, 0))
    rooms = {number: left - len(head) for number, left in rooms.items()}
    part, left = bytes(65_536), size
    while left:
        room = min(*rooms.values(), len(part), left)
        if room <= 0:
            frame = peer.next()
            assert frame is not None
            if frame.kind == frames.WINDOW_UPDATE:
                rooms[frame.stream] += int.from_bytes(frame.payload, "big")
            continue
        left -= room
        peer.send(data(1, part[:room], END if not left else 0))
        rooms = {number: room_left - room for number, room_left in rooms.items()}
        if left % (16 * MIB) < room:
            most = max(most, target.rss_bytes())
    return most

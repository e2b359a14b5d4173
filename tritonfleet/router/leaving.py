"""How a worker ends without failing a call: nobody new comes in, nobody is cut off.

With SO_REUSEPORT the kernel gives every new connection to one of the listening sockets, and what waits in the
queue of one that is closed is reset: whoever connected a moment before would see a refused connection though
another worker listens. So the listening socket first takes no more connections while it still listens: a
socket filter drops the packets that would begin one. Their senders send them again, after a second, and by
then find another worker. What is in the queue is accepted; only then the socket is closed.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import select
import socket
import struct
from typing import TYPE_CHECKING

from tritonfleet.http2.frames import CONNECTION
from tritonfleet.router.grpc import Status
from tritonfleet.router.transport import flush_all

if TYPE_CHECKING:
    from tritonfleet.router.call import Call
    from tritonfleet.router.dispatch import Dispatcher

log = logging.getLogger(__name__)

SO_ATTACH_FILTER = 26  # asm-generic/socket.h
QUEUE_WAIT_S = 1.0  # for the loop to accept what is in the queue; it needs a turn or two
PING_WAIT_S = 5.0  # for a client to say that it has heard of our end
SETTLE_S = 2.0  # for a client that has just connected to begin what it came for
LINGER_S = 1.0  # for a client without calls to hang up by itself
LOOK_S = 0.05


def let_nobody_in(sock: socket.socket) -> None:
    """From now on ``sock``, which listens, takes no new connection; those that are being made it still takes.
    Where the system knows no such filter, nothing happens."""
    program = b"".join(
        struct.pack("HBBI", *instruction)  # struct sock_filter, linux/filter.h
        for instruction in (
            (0x30, 0, 0, 13),  # load the byte of the TCP header that holds the flags
            (0x45, 0, 1, 0x02),  # is SYN among them?
            (0x06, 0, 0, 0),  # yes: drop
            (0x06, 0, 0, 0xFFFFFFFF),  # no: take it, whole
        )
    )
    held = ctypes.create_string_buffer(program, len(program))
    try:
        sock.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(held))
        )
    except OSError as error:
        log.warning("connections that are made this moment may be refused: %s", error)


def has_waiting(sock: socket.socket) -> bool:
    """Whether a connection waits to be accepted."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


async def empty_queue(sock: socket.socket) -> None:
    """Let the loop accept what has connected."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + QUEUE_WAIT_S
    while True:
        await asyncio.sleep(LOOK_S)
        if not has_waiting(sock):
            return
        if loop.time() > deadline:
            log.warning("connections were still waiting to be accepted")
            return


class Drain:
    """Two-step GOAWAY to every client, then wait for their calls."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._changed = asyncio.Event()
        dispatcher.client_drained = lambda _client: self._changed.set()

    async def run(self, timeout_s: float, at_least_s: float = 0.0) -> int:
        """Returns how many calls were still running when the time was over. ``at_least_s``: for clients that
        were accepted and are not here yet, since they are about to agree on TLS."""
        dispatcher = self._dispatcher
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() < began + timeout_s:
            self._go_on(loop.time())
            if not dispatcher.clients and loop.time() >= began + at_least_s:
                return 0
            self._changed.clear()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return self._give_up(
            f"the router ends, and the call was not over after {timeout_s:g} s (router.drain_timeout)"
        )

    def _give_up(self, why: str) -> int:
        """End what still runs. Else it would end with the connections to the replicas, as if these were lost,
        and be sent again."""
        left: list[Call] = []
        for client in list(self._dispatcher.clients):
            left += client.streams.values()  # type: ignore[arg-type] # a client's streams are Calls
        for call in sorted(left, key=lambda one: not one.waiting):  # or they would take the others' places
            self._dispatcher.give_up(call, Status.UNAVAILABLE, why)
        for client in list(self._dispatcher.clients):
            client.close()
        return len(left)

    def _go_on(self, now: float) -> None:
        """Tell who does not know yet, and hang up on who has nothing left and does not hang up itself.

        Not in a connection's first moments: gRPC's C core, met by GOAWAY before its connection is set up,
        may leave the call that waits for it to its deadline (grpcio 1.85.1: 16 of 180 calls). A client that
        has begun a call is past that.
        """
        for client in list(self._dispatcher.clients):
            settled = client.last_peer_stream != CONNECTION or now - client.opened_at >= SETTLE_S
            if client.drain_began is None and settled:
                client.begin_drain()
            if client.streams or client.drain_began is None:
                continue
            if client.drained_at is not None:
                over = now - client.drained_at >= LINGER_S
            else:
                over = now - client.drain_began >= PING_WAIT_S
            if over:
                client.close()
        flush_all(self._dispatcher.touched)

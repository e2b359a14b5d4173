"""Which of a replica's connections a call takes, and how they are kept alive."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from router_parts import Request, Router, ScriptedReplica, message, raw_client, router_of, until

from tritonfleet.http2 import frames
from tritonfleet.router.dispatch import Dispatcher
from tritonfleet.router.replica import USER_TIMEOUT_MS, Replica, ReplicaConnection

LARGE = 100_000


@asynccontextmanager
async def two_connections() -> AsyncIterator[tuple[Router, ScriptedReplica]]:
    """A router with two connections to one replica, which keeps every call until it is stopped."""
    replica = ScriptedReplica(lambda _request: None, INITIAL_WINDOW_SIZE=1 << 20)
    await replica.start()
    router = Router([replica])
    router.dispatcher = Dispatcher(connections_per_replica=2)
    await router.start()
    try:
        await until(lambda: len(router.dispatcher.replicas["m-0.1"].connections) == 2)
        yield router, replica
    finally:
        await router.stop()
        await replica.stop()


def used(requests: list[Request]) -> list[int]:
    """How many of the requests each connection has got, the busiest first."""
    counts: dict[int, int] = {}
    for request in requests:
        counts[id(request.connection)] = counts.get(id(request.connection), 0) + 1
    return sorted(counts.values(), reverse=True)


async def test_calls_that_arrive_together_leave_together() -> None:
    async with two_connections() as (router, replica), raw_client(router.port) as client:
        flush, client.flush = client.flush, lambda: None
        for _ in range(4):
            client.request()
        flush()
        client.flush = flush
        await until(lambda: len(replica.requests) == 4)
        assert used(replica.requests) == [4]


async def test_calls_that_come_later_take_the_connection_with_fewer() -> None:
    async with two_connections() as (router, replica), raw_client(router.port) as client:
        for number in range(1, 5):
            client.request()
            await until(lambda number=number: len(replica.requests) == number)
        assert used(replica.requests) == [2, 2]


async def test_none_joins_a_large_message() -> None:
    async with two_connections() as (router, replica), raw_client(router.port) as client:
        await until(lambda: client.h2.max_outbound_frame_size > LARGE)
        flush, client.flush = client.flush, lambda: None
        stream = client.request(None)
        client.h2.send_data(stream, message(bytes(LARGE))[:60_000])
        client.request()
        flush()
        client.flush = flush
        await until(lambda: len(replica.requests) == 1 and len(replica.connections[0].requests) == 1)
        assert [len(connection.requests) for connection in replica.connections] == [1, 1]
        client.h2.reset_stream(stream)
        client.flush()


async def test_calls_wait_while_the_first_connection_is_made_those_for_what_nobody_has_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Triton has the words for what there is not, and a router that has just started refuses nothing."""
    connected, gate = Replica._connected, asyncio.Event()

    async def later(replica: Replica) -> ReplicaConnection:
        await gate.wait()
        return await connected(replica)

    replica = ScriptedReplica()
    async with router_of(replica) as router, raw_client(router.port) as client:
        dispatcher = router.dispatcher
        dispatcher.apply(router.table(without=(0,)))
        monkeypatch.setattr(Replica, "_connected", later)
        dispatcher.apply(router.table())
        for model in (b"model", b"nobody's"):
            client.request(bytes((0x0A, len(model))) + model, "/inference.GRPCInferenceService/ModelInfer")
        await until(lambda: len(dispatcher._waiting) == 2)
        gate.set()
        await until(lambda: len(replica.requests) == 2)


async def test_who_accepts_and_hangs_up_is_not_reachable() -> None:
    """As a container engine's proxy does before its container listens: no call is sent there."""
    accepted = 0

    def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    replica = ScriptedReplica()
    await replica.start()
    router = Router([replica])
    deaf = ScriptedReplica()
    deaf.port = server.sockets[0].getsockname()[1]
    try:
        await router.start()
        router.scripted.append(deaf)
        router.dispatcher.apply(router.table())
        found = router.dispatcher.replicas["m-1.1"]
        await until(lambda: accepted >= 2)
        assert (found.available, found.reachable, found.untried) == (False, False, False)
        assert found.last_error == "it hung up before it said anything"
        assert found.failures_in_row == 0
        async with raw_client(router.port) as client:
            for _ in range(4):
                client.request()
            await until(lambda: len(replica.requests) == 4)
    finally:
        await router.stop()
        await replica.stop()
        server.close()
        await server.wait_closed()


async def test_who_greets_and_breaks_the_protocol_leaves_no_dead_connection_behind() -> None:
    greeted = 0

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal greeted
        greeted += 1
        writer.write(frames.settings({}) + frames.frame(frames.DATA, 0, frames.CONNECTION, b"x"))
        await reader.read()  # until the router hangs up
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    rude = ScriptedReplica()
    rude.port = server.sockets[0].getsockname()[1]
    router = Router([rude])
    router.dispatcher.apply(router.table())
    found = router.dispatcher.replicas["m-0.1"]
    try:
        await until(lambda: greeted >= 3)
        assert found.connections == []
        assert not found.available
    finally:
        await found.close()
        server.close()
        await server.wait_closed()


async def test_a_replica_whose_host_is_gone_is_not_waited_for() -> None:
    """Triton allows one PING in five minutes, so the kernel watches what it has not confirmed."""
    async with router_of(ScriptedReplica()) as router:
        (connection,) = router.dispatcher.replicas["m-0.1"].connections
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == USER_TIMEOUT_MS

"""Flow control over many calls: a replica that takes nothing, and what is left of the windows after anything
may have happened to hundreds of calls."""

import asyncio
import random
from contextlib import AsyncExitStack, suppress

import h2.events
import h2.exceptions
import pytest
from router_parts import (
    OK,
    RawClient,
    Request,
    Router,
    ScriptedReplica,
    message,
    raw_client,
    router_of,
    until,
)
from test_router_duties import windows_are_whole
from test_router_failures import INFER
from test_router_peek import infer

from tritonfleet.http2.frames import ErrorCode

SIZES = (0, 1, 1000, 16_384, 70_000, 300_000)


@pytest.mark.parametrize("uploads", [1, 12])
async def test_a_replica_that_takes_nothing_stalls_neither_its_clients_other_calls_nor_others(
    uploads: int,
) -> None:
    """12 times a stream's window is less than their connection's."""
    slow, quick = ScriptedReplica(), ScriptedReplica()
    slow.credits = False
    async with (
        router_of(slow, quick, policy="least_requests") as router,
        raw_client(router.port) as client,
        raw_client(router.port) as other,
    ):
        router.dispatcher.apply(router.table(draining=(1,)))  # so that all these go to the slow one
        stuck = [client.request(None) for _ in range(uploads)]
        for stream in stuck:
            client.send_all(stream, bytes(2_000_000))
        (connection, _) = connections_of(router)
        await until(lambda: len(connection.blocked) == uploads)
        (asking,) = (one for one in router.dispatcher.clients if one.streams)
        await until(lambda: all(one.receive_room == 0 for one in asking.streams.values()))
        assert connection.queued_bytes <= uploads * 256 * 1024
        router.dispatcher.apply(router.table())
        for one in (client, other):
            for _ in range(20):
                stream = one.request(None)
                one.send_all(stream, message(bytes(200_000)))
                assert await one.finished(stream) == (0, "")
        assert len(quick.requests) == 40
        for stream in stuck:
            client.unsent.pop(stream, None)
            client.h2.reset_stream(stream, ErrorCode.CANCEL)
        client.flush()


def connections_of(router: Router) -> list:
    return [one for replica in router.dispatcher.replicas.values() for one in replica.connections]


class Whims:
    """A replica's answers: any of what replicas do."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def begun(self, request: Request) -> None:
        if self.rng.random() < 0.1:  # an answer before the request's end
            with suppress(h2.exceptions.ProtocolError):  # it was taken back in the same read
                self._refuse(request)

    def _refuse(self, request: Request) -> None:
        request.connection.h2.send_headers(request.stream, [*OK, ("grpc-status", "3")], end_stream=True)
        if self.rng.random() < 0.5:
            request.connection.h2.reset_stream(request.stream, ErrorCode.NO_ERROR)

    def asked(self, request: Request) -> None:
        whim = self.rng.random()
        with suppress(h2.exceptions.ProtocolError):  # see above, or it was answered before
            if whim < 0.1:
                request.reset(self.rng.choice((ErrorCode.INTERNAL_ERROR, ErrorCode.REFUSED_STREAM)))
            elif whim < 0.85:  # else never
                request.answer(bytes(self.rng.choice(SIZES)))


async def a_call(rng: random.Random, client: RawClient) -> None:
    """One that ends well, badly, or is taken back at some time."""
    stream = client.request(None, path=rng.choice((INFER, "/x.Y/Z")))
    client.send_all(stream, infer(size=rng.choice(SIZES)))
    patience = rng.randint(0, 6)
    for _ in range(patience):
        await until(lambda: True)
    if rng.random() < 0.3 or not await ends(client, stream):
        client.unsent.pop(stream, None)
        try:
            client.h2.reset_stream(stream, ErrorCode.CANCEL)
        except h2.exceptions.StreamClosedError:
            return
        client.flush()


async def ends(client: RawClient, stream: int) -> bool:
    try:
        await until(
            lambda: client.status(stream) is not None or bool(client.of(h2.events.StreamReset, stream)), 0.2
        )
    except TimeoutError:
        return False
    client.unsent.pop(stream, None)
    return True


@pytest.mark.parametrize("seed", range(3))
async def test_after_anything_the_windows_are_whole(seed: int) -> None:
    rng = random.Random(seed)
    whims = Whims(rng)
    replicas = [ScriptedReplica(whims.asked) for _ in range(2)]
    async with router_of(*replicas, slots={"m": 1}) as router, AsyncExitStack() as closing:
        clients = [await closing.enter_async_context(raw_client(router.port)) for _ in range(2)]
        for replica in replicas:
            replica.on_start = whims.begun
        for _ in range(40):
            await asyncio.gather(*(a_call(rng, rng.choice(clients)) for _ in range(5)))
            if rng.random() < 0.05:  # a replica's connections are lost; it takes new ones
                for connection in list(rng.choice(replicas).connections):
                    connection.transport.abort()
        for replica in replicas:
            replica.on_start, replica.on_request = (lambda _r: None), (lambda r: r.answer(b"yes"))
        await until(lambda: all(one.connections for one in router.dispatcher.replicas.values()))
        for client in clients:
            stream = client.request(infer()[5:], path=INFER)
            assert await client.finished(stream) == (0, "")
            await windows_are_whole(router, client)

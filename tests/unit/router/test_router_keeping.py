"""What is kept of requests: it counts, has bounds, and is given back however a call ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import h2.events
import pytest
from router_parts import RawClient, Request, Router, ScriptedReplica, message, raw_client, router_of, until
from test_router_failures import INFER
from test_router_own import SERVICE, controller_at, fleet_of
from test_router_peek import infer

from tritonfleet.core.limits import RouterLimits
from tritonfleet.core.wire import RpcAnswer
from tritonfleet.http2.frames import ErrorCode
from tritonfleet.router import own
from tritonfleet.router.management import Management
from tritonfleet.router.replica import MOST_STRANGERS

LIMITS = RouterLimits(kept_by_connection=1 << 16)
LOAD = SERVICE + "RepositoryModelLoad"
LOG = SERVICE + "LogSettings"


def nothing(_request: Request) -> None:
    """A replica that works on and on."""


def body_of(size: int) -> bytes:
    return infer(size=size)


async def room_is_whole(router: Router, client: RawClient) -> None:
    """The client's connection may have as much on its way as at first: no more, no less."""
    (connection,) = router.dispatcher.clients
    await until(lambda: not connection.streams)
    assert connection.receive_room + connection.drained == connection.connection_window
    assert client.h2.outbound_flow_control_window == connection.receive_room


@asynccontextmanager
async def kept_by_two(size: int) -> AsyncIterator[tuple[Router, RawClient, ScriptedReplica, list[int]]]:
    dying = ScriptedReplica(nothing)
    async with (
        router_of(dying, ScriptedReplica(), limits=LIMITS) as router,
        raw_client(router.port) as client,
    ):
        streams = []
        for number in range(4):
            streams.append(client.request(None, path=INFER))
            client.send_all(streams[-1], body_of(size))
            await until(lambda n=number: len(dying.requests) + len(router.scripted[1].requests) == n + 1)
        assert len(dying.requests) == 2
        yield router, client, dying, streams


async def test_what_is_kept_is_bounded_and_the_rest_is_not_sent_again() -> None:
    async with kept_by_two(40_000) as (router, client, dying, streams):
        assert 40_000 < router.dispatcher.kept_bytes <= LIMITS.kept_by_connection
        dying.hang_up()
        statuses = sorted([(await client.finished(stream))[0] for stream in streams])
        assert statuses[:2] == [0, 0]
        assert router.dispatcher.retries_total == statuses.count(0) - 2 <= 1
        assert router.dispatcher.kept_bytes == 0


@pytest.mark.parametrize("size", [500, 3000, 20_000])
async def test_it_is_given_back_when_calls_are_taken_back_or_lost(size: int) -> None:
    async with kept_by_two(size) as (router, client, _dying, streams):
        assert (router.dispatcher.kept_bytes > 0) == (size > 1000)
        for stream in streams:
            if client.status(stream) is None:
                client.h2.reset_stream(stream, ErrorCode.CANCEL)
        client.flush()
        await until(lambda: router.in_flight() == 0)
        assert router.dispatcher.kept_bytes == 0
        assert [one.kept_bytes for one in router.dispatcher.clients] == [0]
        await room_is_whole(router, client)


async def test_requests_that_are_refused_are_credited_once() -> None:
    """What is no gRPC, or ours to answer: else a client could widen its window, or lose it."""
    async with router_of(ScriptedReplica()) as router, raw_client(router.port) as client:
        for _ in range(20):
            stream = client.request(None, **{"content-type": "text/plain"})
            client.send_all(stream, bytes(50_000))
            await until(lambda s=stream: bool(client.of(h2.events.ResponseReceived, s)))
        await room_is_whole(router, client)


# ---------------------------------------------------------------- requests that the router answers itself


async def test_a_fleet_wide_request_that_is_taken_back_is_credited_once(tmp_path: Path) -> None:
    async with (
        fleet_of(tmp_path, ScriptedReplica()) as (router, _own),
        raw_client(router.port) as client,
    ):
        for _ in range(20):
            stream = client.request(None, path=LOG)
            client.h2.send_data(stream, b"\0\0\0\x20\0" + bytes(5000))
            client.flush()
            await until(lambda: router.dispatcher.kept_bytes == 5005)
            client.h2.reset_stream(stream, ErrorCode.CANCEL)
            client.flush()
            await until(lambda: router.dispatcher.kept_bytes == 0)
        await room_is_whole(router, client)


async def test_a_fleet_wide_request_is_small_unless_it_brings_a_models_files(tmp_path: Path) -> None:
    async with (
        controller_at(tmp_path / "control.sock") as controller,
        fleet_of(tmp_path, ScriptedReplica()) as (router, _own),
        raw_client(router.port) as client,
    ):
        controller.answer = lambda _request: RpcAnswer(0, "", b"")
        for path, size, status in ((LOG, own.MOST, 0), (LOG, own.MOST + 1, 8), (LOAD, 300_000, 0)):
            stream = client.request(None, path=path)
            client.send_all(stream, message(bytes(size)))
            assert (await client.finished(stream))[0] == status
        assert router.dispatcher.kept_bytes == 0
        await room_is_whole(router, client)


async def test_who_may_not_load_is_refused_before_the_files_come(tmp_path: Path) -> None:
    async with (
        fleet_of(tmp_path, ScriptedReplica()) as (router, answers),
        raw_client(router.port) as client,
    ):
        answers._management = Management(["10.0.0.0/8"])
        stream = client.request(None, path=LOAD)
        client.h2.send_data(stream, b"\0\3\0\0\0")
        client.flush()
        status, words = await client.finished(stream)
        assert (status, "router.management" in words) == (7, True)


async def test_few_models_are_loaded_with_their_files_at_a_time(tmp_path: Path) -> None:
    async with (
        fleet_of(tmp_path, ScriptedReplica()) as (router, _own),
        raw_client(router.port) as client,
    ):
        streams = []
        await until(lambda: client.h2.outbound_flow_control_window > 1 << 20)
        for _ in range(own.MOST_WITH_FILES + 1):
            streams.append(client.request(None, path=LOAD))
            client.h2.send_data(streams[-1], b"\0\3\0\0\0" + bytes(16_000))
            client.h2.send_data(streams[-1], bytes(16_000))
            client.flush()
        status, words = await client.finished(streams[-1])
        assert (status, "models are being loaded with their files" in words) == (8, True)
        client.h2.reset_stream(streams[0], ErrorCode.CANCEL)  # there is room for another one
        again = client.request(None, path=LOAD)
        client.h2.send_data(again, b"\0\3\0\0\0" + bytes(16_000))
        client.h2.send_data(again, bytes(1000))
        client.flush()
        await asyncio.sleep(0.05)
        assert client.status(again) is None


# ---------------------------------------------------------------- names


async def test_names_of_no_model_are_not_counted_apart_for_ever() -> None:
    async with router_of(ScriptedReplica()) as router, raw_client(router.port) as client:
        replica = router.dispatcher.replicas["m-0.1"]
        for number in range(3 * MOST_STRANGERS):
            name = b"stranger%d" % number
            body = b"\x0a" + bytes((len(name),)) + name
            assert (await client.finished(client.request(body, path=INFER)))[0] == 0
        known = len(replica.row.models)
        assert len(replica.stats) <= known + MOST_STRANGERS + 1
        assert len(router.dispatcher.work.models) <= known + MOST_STRANGERS
        body = b"\x0a\x05model"
        await client.finished(client.request(body, path=INFER))
        assert replica.stats["model"].served == 1
        assert sum(one.served for one in replica.stats.values()) == 3 * MOST_STRANGERS + 1

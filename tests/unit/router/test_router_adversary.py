"""Interactions: of limits, retries, waits, long lives, and clients who leave things half done."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import h2.events
import h2.settings
import pytest
from router_parts import RawClient, Request, Router, ScriptedReplica, message, raw_client, router_of, until
from test_router_own import fleet_of
from tritonclient.grpc import service_pb2

from tritonfleet.core.wire import RouterSettings
from tritonfleet.router import watchdog
from tritonfleet.router.call import Leg

INFER = "/inference.GRPCInferenceService/ModelInfer"


def body(version: str = "", *, size: int = 8, priority: int = 0) -> bytes:
    request = service_pb2.ModelInferRequest(model_name="model", model_version=version)
    if priority:
        request.parameters["priority"].uint64_param = priority
    request.raw_input_contents.append(bytes(size))
    return request.SerializeToString()


def nothing(_request: Request) -> None:
    """A replica that works on and on."""


def begun(*replicas: ScriptedReplica) -> ScriptedReplica | None:
    """Which of them has a request, ended or not."""
    return next((one for one in replicas if any(c.requests for c in one.connections)), None)


async def first_of(*replicas: ScriptedReplica) -> tuple[ScriptedReplica, ScriptedReplica]:
    """Of two, the one that got the first request, and the other."""
    await until(lambda: begun(*replicas) is not None)
    one = begun(*replicas)
    assert one is not None
    return one, next(other for other in replicas if other is not one)


def legs(router: Router) -> list[Leg]:
    everyone = router.dispatcher.replicas.values()
    return [leg for one in everyone for connection in one.connections for leg in connection.streams.values()]


def with_settings(router: Router, **settings: object) -> None:
    router.settings = RouterSettings(**settings)
    router.dispatcher.apply(router.table())


def with_versions(router: Router, *versions: str) -> None:
    """The table tells that the replicas have these; without any it tells nothing."""
    table = router.table()
    rows = (replace(row, versions={"model": versions} if versions else {}) for row in table.replicas)
    router.dispatcher.apply(replace(table, replicas=tuple(rows)))


# ---------------------------------------------------------------- the watchdog


async def test_requests_for_one_version_that_expire_together_are_all_told() -> None:
    replica = ScriptedReplica(nothing)
    async with router_of(replica, slots={"model": 1}) as router, raw_client(router.port) as client:
        with_versions(router, "1")
        first = client.request(body("1"), path=INFER)
        await until(lambda: len(replica.requests) == 1)
        waiting = [client.request(body("1"), path=INFER) for _ in range(3)]
        await until(lambda: router.dispatcher.waiting_count == 3)
        watchdog.look(router.dispatcher, router.dispatcher.loop.time() + 100)
        assert [(await client.finished(stream))[0] for stream in waiting] == [14, 14, 14]
        assert not router.dispatcher.work.models["model"].queues
        client.h2.reset_stream(first, 8)
        client.flush()


@pytest.mark.parametrize(
    ("versions", "expected"), [(("1", "2"), {"", "1", "2"}), ((), {""})], ids=["told", "not told"]
)
async def test_versions_that_clients_make_up_wait_in_one_queue(
    versions: tuple[str, ...], expected: set[str]
) -> None:
    """Each queue is asked at every turn: a thousand of them took 3 ms of it."""
    replica = ScriptedReplica(nothing)
    async with router_of(replica, slots={"model": 1}) as router, raw_client(router.port) as client:
        with_versions(router, *versions)
        client.request(body(), path=INFER)
        await until(lambda: len(replica.requests) == 1)
        for number in range(50):
            client.request(body(str(number)), path=INFER)
        await until(lambda: router.dispatcher.waiting_count == 50)
        queues = router.dispatcher.work.models["model"].queues
        assert {needs.version if needs else "" for needs in queues} == expected
        assert sum(map(len, queues.values())) == 50


async def test_what_is_refused_at_once_leaves_no_queue_behind() -> None:
    """Versions come from clients."""
    replica = ScriptedReplica(nothing)
    async with router_of(replica, slots={"model": 1}) as router, raw_client(router.port) as client:
        with_settings(router, max_requests=0)
        with_versions(router, *map(str, range(20)))
        first = client.request(body(), path=INFER)
        await until(lambda: len(replica.requests) == 1)
        for number in range(20):
            status, _ = await client.finished(client.request(body(str(number)), path=INFER))
            assert status == 8
        assert len(router.dispatcher.work.models["model"].queues) <= 1
        client.h2.reset_stream(first, 8)
        client.flush()


async def test_a_fault_ends_one_look_and_not_the_watch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watchdog, "INTERVAL_S", 0.01)
    async with router_of(ScriptedReplica()) as router:
        looks = []

        def tick(total: int) -> None:
            looks.append(total)
            raise KeyError("a fault")

        monkeypatch.setattr(router.dispatcher.budget, "tick", tick)
        watching = asyncio.create_task(watchdog.watch(router.dispatcher))
        await until(lambda: len(looks) > 2)
        watching.cancel()
    assert "a fault" in caplog.text


# ---------------------------------------------------------------- flow control


@asynccontextmanager
async def second_try_waits(
    whole: bytes,
) -> AsyncIterator[tuple[Router, RawClient, ScriptedReplica, int, int]]:
    """The first 10,000 bytes of a request were lost with their replica, and wait for the other one, which has
    no room. Yields the latter, the stream of the request and of what keeps it waiting."""
    replicas = ScriptedReplica(nothing), ScriptedReplica(nothing)
    async with (
        router_of(*replicas, slots={"model": 1}) as router,
        raw_client(router.port) as client,
    ):
        large = client.request(None, path=INFER)
        client.h2.send_data(large, whole[:10_000])
        client.flush()
        dying, other = await first_of(*replicas)
        busy = client.request(body(), path=INFER)
        await until(lambda: len(other.requests) == 1)
        dying.hang_up()
        await until(lambda: router.dispatcher.waiting_count == 1)
        yield router, client, other, large, busy


async def test_what_comes_while_a_second_try_waits_is_credited() -> None:
    """The client's connection must not run out of window by it."""
    whole = message(body(size=300_000))
    async with second_try_waits(whole) as (router, client, other, large, busy):
        client.send_all(large, whole[10_000:])
        await until(lambda: router.dispatcher.work.queued == 1)
        call = next(iter(next(iter(router.dispatcher.clients)).streams.values()))
        await until(lambda: call.held_bytes > 200_000)
        other.on_request = lambda r: r.answer(b"")
        other.requests[0].answer(b"")
        assert await client.finished(busy) == (0, "")
        assert await client.finished(large) == (0, "")
        (connection,) = router.dispatcher.clients
        assert connection.receive_room + connection.drained == connection.connection_window


async def test_what_came_while_a_second_try_waited_is_credited_when_it_is_taken_back() -> None:
    whole = message(body(size=100_000))
    async with second_try_waits(whole) as (router, client, _other, large, busy):
        (connection,) = router.dispatcher.clients
        client.h2.send_data(large, whole[10_000:20_000])
        client.flush()
        await until(lambda: next(iter(connection.streams.values())).held_bytes == 20_000)
        for stream in (large, busy):
            client.h2.reset_stream(stream, 8)
        client.flush()
        await until(lambda: not connection.streams)
        assert connection.receive_room + connection.drained == connection.connection_window


async def test_a_message_cut_in_its_prefix_is_measured_all_the_same() -> None:
    replica = ScriptedReplica(nothing)
    async with router_of(replica, slots={"model": 1}) as router, raw_client(router.port) as client:
        streams = []
        for _ in range(2):
            stream = client.request(None, path=INFER)
            whole = message(body(priority=1))
            client.h2.send_data(stream, whole[:3])
            client.h2.send_data(stream, whole[3:], end_stream=True)
            client.flush()
            streams.append(stream)
        await until(lambda: len(replica.requests) + router.dispatcher.waiting_count == 2)
        assert router.dispatcher.waiting_count == 1
        (entry,) = [
            call.entry for c in router.dispatcher.clients for call in c.streams.values() if call.entry
        ]
        assert entry.rank == 1
        for stream in streams:
            client.h2.reset_stream(stream, 8)
        client.flush()


# ---------------------------------------------------------------- whose fault it is


async def test_a_client_that_does_not_end_its_request_makes_no_replica_look_stuck() -> None:
    replicas = ScriptedReplica(), ScriptedReplica()
    async with router_of(*replicas) as router, raw_client(router.port) as client:
        stream = client.request(None, path=INFER)
        client.h2.send_data(stream, message(body(size=10_000))[:8000])
        client.flush()
        await first_of(*replicas)
        (leg,) = legs(router)
        now = router.dispatcher.loop.time()
        for second in range(1, 100):
            leg.started -= 1
            watchdog.look(router.dispatcher, now + second)
        assert router.dispatcher.ejections_total == 0
        client.h2.reset_stream(stream, 8)
        client.flush()


async def test_a_client_that_does_not_take_its_answer_makes_no_replica_look_stuck() -> None:
    replicas = [ScriptedReplica(lambda r: r.answer(bytes(2_000_000))) for _ in range(2)]
    async with router_of(*replicas) as router, raw_client(router.port) as client:
        client.credits = False
        stream = client.request(body(), path=INFER)
        await until(lambda: len(client.body(stream)) == 65535)
        (leg,) = legs(router)
        now = router.dispatcher.loop.time()
        for second in range(1, 59):  # then the client is hung up on
            leg.started -= 1
            watchdog.look(router.dispatcher, now + second)
        assert router.dispatcher.ejections_total == 0
        client.h2.reset_stream(stream, 8)
        client.flush()


async def test_a_replica_that_says_goodbye_in_order_is_no_failing_one() -> None:
    """As one whose connections may only become so old (gRPC's max_connection_age)."""
    polite = ScriptedReplica()
    async with router_of(polite, ScriptedReplica()) as router:
        replica = router.dispatcher.replicas["m-0.1"]
        for _ in range(6):
            await until(lambda: bool(polite.connections) and bool(replica.connections))
            (peer,) = polite.connections
            peer.h2.close_connection()
            peer.flush()
            await until(lambda p=peer: p not in polite.connections)
        assert replica.ejected_until is None


# ---------------------------------------------------------------- long lives


async def test_a_connection_whose_stream_numbers_are_used_up_is_replaced() -> None:
    replica = ScriptedReplica()
    async with router_of(replica) as router, raw_client(router.port) as client:
        (old,) = router.dispatcher.replicas["m-0.1"].connections
        old.next_stream = 0x7F000001
        for _ in range(6):
            assert await client.finished(client.request(b"x")) == (0, "")
        await until(lambda: old not in router.dispatcher.replicas["m-0.1"].connections)
        assert router.dispatcher.replicas["m-0.1"].failures_in_row == 0


async def test_calls_that_give_up_while_answers_are_not_taken_are_forgotten() -> None:
    replica = ScriptedReplica(lambda r: r.answer(bytes(16_000)))
    async with router_of(replica) as router, raw_client(router.port) as client:
        (connection,) = router.dispatcher.clients
        connection.queue_limit = 100_000
        client.credits = False
        for _ in range(20):
            client.request(b"x")
        await until(lambda: connection._postponed is not None)
        for _ in range(30):
            streams = [client.request(b"x", **{"grpc-timeout": "10m"}) for _ in range(100)]
            await asyncio.sleep(0.012)
            for stream in streams:
                client.h2.reset_stream(stream, 8)
            client.flush()
        await asyncio.sleep(0.05)
        assert len(connection._postponed or ()) <= 2 * connection.max_streams


async def test_a_fleet_wide_request_without_a_message(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, ScriptedReplica()) as (router, _own), raw_client(router.port) as client:
        for rpc in ("TraceSetting", "LogSettings", "ServerReady", "ModelReady", "RepositoryModelLoad"):
            stream = client.request(None, path=f"/inference.GRPCInferenceService/{rpc}")
            client.h2.end_stream(stream)
            client.flush()
            status, _ = await client.finished(stream)
            assert status == 13, rpc


async def test_a_client_without_a_table_for_header_fields_is_told_so_in_the_first_block() -> None:
    """RFC 7541, 4.2: whoever is asked for a smaller table says that it has made it smaller."""
    replica = ScriptedReplica()
    async with router_of(replica) as router, raw_client(router.port) as client:
        client.h2.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 0})
        client.flush()
        for _ in range(3):
            assert await client.finished(client.request(b"x")) == (0, "")

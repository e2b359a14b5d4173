"""What is sent again, what is not, who is not chosen any more, and where sequences go."""

import asyncio
from collections import Counter
from dataclasses import replace

import grpc
import h2.events
import pytest
from router_parts import Request, ScriptedReplica, raw_client, router_of, until
from test_router_peek import infer

from tritonfleet.core.wire import RouterSettings
from tritonfleet.http2.frames import ErrorCode
from tritonfleet.router import watchdog
from tritonfleet.router.telemetry import telemetry

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
METADATA = "/inference.GRPCInferenceService/ModelMetadata"
LOAD = "/inference.GRPCInferenceService/RepositoryModelLoad"


def nothing(_request: Request) -> None:
    """A replica that works on and on."""


def failing(status: str) -> ScriptedReplica:
    return ScriptedReplica(lambda r: r.answer(b"", trailers=[("grpc-status", status)]))


# ---------------------------------------------------------------- sent again


@pytest.mark.parametrize("path", [INFER, METADATA])
@pytest.mark.parametrize("size", [10, 60_000, 500_000])
async def test_a_question_lost_with_its_replica_is_asked_again(path: str, size: int) -> None:
    dying = ScriptedReplica(nothing)
    async with router_of(dying, ScriptedReplica()) as router, raw_client(router.port) as client:
        body = infer(size=size)[5:]
        streams = []
        for _ in range(2):
            streams.append(client.request(None, path=path))
            client.send_all(streams[-1], b"\0" + len(body).to_bytes(4, "big") + body)
            await until(lambda: True)
        await until(lambda: len(dying.requests) == 1)
        dying.hang_up()
        for stream in streams:
            assert await client.finished(stream) == (0, "")
            assert client.body(stream)[5:] == body
        assert router.dispatcher.retries_total == 1


@pytest.mark.parametrize("retry", ["unsent", "off"])
async def test_whoever_wants_no_second_try_gets_none(retry: str) -> None:
    dying = ScriptedReplica(nothing)
    async with router_of(dying, ScriptedReplica()) as router, raw_client(router.port) as client:
        router.settings = RouterSettings(retry=retry)
        router.dispatcher.apply(router.table())
        streams = [client.request(infer()[5:], path=INFER) for _ in range(2)]
        await until(lambda: len(dying.requests) == 1)
        dying.hang_up()
        assert Counter([(await client.finished(stream))[0] for stream in streams]) == {0: 1, 14: 1}


@pytest.mark.parametrize(("retry", "statuses"), [("unsent", {0}), ("off", {0, 14})])
async def test_what_no_replica_looked_at(retry: str, statuses: set[int]) -> None:
    refusing = ScriptedReplica(lambda r: r.reset(ErrorCode.REFUSED_STREAM))
    async with router_of(refusing, ScriptedReplica()) as router, raw_client(router.port) as client:
        router.settings = RouterSettings(retry=retry)
        router.dispatcher.apply(router.table())
        streams = [client.request(infer()[5:], path=INFER) for _ in range(4)]
        assert {(await client.finished(stream))[0] for stream in streams} == statuses


async def test_what_changes_a_server_is_not_sent_again() -> None:
    dying = ScriptedReplica(nothing)
    async with router_of(dying, ScriptedReplica()) as router, raw_client(router.port) as client:
        streams = [client.request(b"", path=LOAD) for _ in range(2)]
        await until(lambda: len(dying.requests) == 1)
        dying.hang_up()
        assert Counter([(await client.finished(stream))[0] for stream in streams]) == {0: 1, 14: 1}


async def test_a_call_that_was_lost_twice_is_given_up() -> None:
    first, second = ScriptedReplica(nothing), ScriptedReplica(nothing)
    async with router_of(first, second, ScriptedReplica()) as router, raw_client(router.port) as client:
        first.on_request = second.on_request = lambda r: r.connection.replica.hang_up()
        statuses = []
        for _ in range(3):
            stream = client.request(infer()[5:], path=INFER)
            statuses.append((await client.finished(stream))[0])
        assert set(statuses) <= {0, 14}
        assert router.dispatcher.retries_total <= 2


async def test_an_answer_that_has_begun_is_not_started_again() -> None:
    def begin(request: Request) -> None:
        request.connection.h2.send_headers(request.stream, [(":status", "200")])
        request.connection.flush()

    dying = ScriptedReplica(begin)
    async with router_of(dying, ScriptedReplica()) as router, raw_client(router.port) as client:
        stream = client.request(infer()[5:], path=INFER)
        other = client.request(infer()[5:], path=INFER)
        await until(lambda: len(dying.requests) == 1 and len(client.of(h2.events.ResponseReceived)) >= 1)
        dying.hang_up()
        statuses = {(await client.finished(s))[0] for s in (stream, other)}
        assert statuses == {0, 14}
        assert router.dispatcher.retries_total == 0


async def test_the_budget_bounds_what_is_sent_again() -> None:
    dying = ScriptedReplica(nothing)
    async with router_of(dying, ScriptedReplica()) as router, raw_client(router.port) as client:
        router.dispatcher.budget._floor = 3.0
        router.dispatcher.budget._share = 0.0
        streams = [client.request(infer()[5:], path=INFER) for _ in range(20)]
        await until(lambda: len(dying.requests) == 10)
        dying.hang_up()
        statuses = Counter([(await client.finished(stream))[0] for stream in streams])
        assert statuses == {0: 13, 14: 7}


async def test_the_loss_of_one_of_four_replicas_with_hundreds_of_calls_fails_none() -> None:
    """The budget's base is for this: a fifth of the last ten seconds' calls is less than the fourth that is
    lost at once."""
    dying = ScriptedReplica(nothing, MAX_CONCURRENT_STREAMS=1000)
    others = [ScriptedReplica() for _ in range(3)]
    async with router_of(dying, *others) as router, raw_client(router.port) as client:
        streams: list[int] = []
        for lost in range(20, 201, 20):
            streams += [client.request(infer()[5:], path=INFER) for _ in range(80)]
            await until(lambda count=lost: len(dying.requests) == count)
        dying.hang_up()
        assert Counter([(await client.finished(stream))[0] for stream in streams]) == {0: 800}
        told = telemetry(router.dispatcher, worker=0, pid=1, started_at=0)
        assert (told.retries_total, told.retries_denied_total) == (200, 0)


async def test_the_time_left_goes_upstream_with_a_second_try() -> None:
    slow = ScriptedReplica(nothing)
    async with router_of(slow, ScriptedReplica()) as router, raw_client(router.port) as client:
        streams = [client.request(infer()[5:], path=INFER, **{"grpc-timeout": "5S"}) for _ in range(2)]
        await until(lambda: len(slow.requests) == 1)
        await asyncio.sleep(0.1)
        slow.hang_up()
        for stream in streams:
            assert (await client.finished(stream))[0] == 0
        given = [request.headers["grpc-timeout"] for request in router.scripted[1].requests]
        assert given[0] == "5S"
        assert given[1].endswith("u")
        assert 1_000_000 < int(given[1][:-1]) < 5_000_000


async def test_a_deadline_is_enforced_for_a_client_that_forgets_it() -> None:
    async with router_of(ScriptedReplica(nothing)) as router, raw_client(router.port) as client:
        stream = client.request(infer()[5:], path=INFER, **{"grpc-timeout": "10m"})
        await until(lambda: bool(router.scripted[0].requests))
        watchdog.look(router.dispatcher, router.dispatcher.loop.time() + 5)
        status, text = await client.finished(stream)
        assert (status, "deadline" in text) == (4, True)
        await until(
            lambda: any(
                isinstance(e, h2.events.StreamReset) and e.error_code == ErrorCode.CANCEL
                for e in router.scripted[0].seen
            )
        )


# ---------------------------------------------------------------- ejection


@pytest.mark.parametrize("status", ["13", "2"])
async def test_a_replica_that_fails_fast_is_not_chosen_for_a_while(status: str) -> None:
    """The trap: it answers at once, so it always looks least loaded."""
    broken = failing(status)
    async with (
        router_of(broken, ScriptedReplica(), policy="least_requests") as router,
        raw_client(router.port) as client,
    ):
        for _ in range(40):
            await client.finished(client.request(infer()[5:], path=INFER))
        assert len(broken.requests) == 5
        (seen, _) = telemetry(router.dispatcher, worker=0, pid=1, started_at=0).replicas
        assert (seen.ejected, seen.ejections) == (True, 1)
        assert "5 failures in a row" in seen.last_error
        watchdog.look(router.dispatcher, router.dispatcher.loop.time() + 31)
        broken.on_request = lambda r: r.answer(b"")
        for _ in range(10):
            assert (await client.finished(client.request(infer()[5:], path=INFER)))[0] == 0
        assert len(broken.requests) > 5


@pytest.mark.parametrize("status", ["3", "14", "1", "8", "5"])
async def test_what_the_request_is_to_blame_for_ejects_nobody(status: str) -> None:
    async with router_of(failing(status), ScriptedReplica()) as router, raw_client(router.port) as client:
        for _ in range(20):
            await client.finished(client.request(infer()[5:], path=INFER))
        assert len(router.scripted[0].requests) == 10


@pytest.mark.parametrize(
    ("status", "words"), [("13", "Unable to parse request"), ("2", "Missing :te header")]
)
async def test_what_cannot_be_read_ejects_nobody_though_its_status_is_a_broken_servers(
    status: str, words: str
) -> None:
    trailers = [("grpc-status", status), ("grpc-message", words)]
    refusing = ScriptedReplica(lambda r: r.answer(b"", trailers=trailers))
    async with router_of(refusing, ScriptedReplica()) as router, raw_client(router.port) as client:
        for _ in range(20):
            await client.finished(client.request(infer()[5:], path=INFER))
        assert len(refusing.requests) == 10


@pytest.mark.parametrize(("size", "left"), [(16_300, 16_300), (20_000, 20_000), (50_000, 4096)])
async def test_an_error_with_many_words_ends_its_own_call_only(size: int, left: int) -> None:
    """Triton repeats names of the request in its errors, so a client chooses how long they are."""
    trailers = [("grpc-status", "5"), ("grpc-message", "m" * size)]
    replica = ScriptedReplica(lambda r: r.body[5:] == b"wait" or r.answer(b"", trailers=trailers))
    async with router_of(replica) as router, raw_client(router.port) as client:
        waiting = client.request(b"wait", path=INFER)
        status, text = await client.finished(client.request(b"x", path=INFER))
        assert (status, len(text)) == (5, left)
        assert len(replica.connections) == 1
        replica.requests[0].answer(b"done")
        assert await client.finished(waiting) == (0, "")
        assert router.dispatcher.retries_total == 0


async def test_the_last_replica_is_never_ejected() -> None:
    async with router_of(failing("13")) as router, raw_client(router.port) as client:
        for _ in range(20):
            assert (await client.finished(client.request(infer()[5:], path=INFER)))[0] == 13


async def test_a_broken_pool_keeps_none_of_another_pool_from_being_ejected() -> None:
    """Of four that all fail, two are left out; one of another pool's two fails as well, and is, too."""
    ours = [failing("13"), ScriptedReplica()]
    async with (
        router_of(*(failing("13") for _ in range(4)), *ours) as router,
        raw_client(router.port) as client,
    ):
        table = router.table()
        rows = [
            replace(row, pool="other" if index < 4 else "main", models=("other" if index < 4 else "m",))
            for index, row in enumerate(table.replicas)
        ]
        router.dispatcher.apply(replace(table, replicas=tuple(rows)))
        elsewhere = infer()[5:].replace(b"\x01m", b"\x05other", 1)
        for _ in range(40):
            await client.finished(client.request(elsewhere, path=INFER))
        for _ in range(40):
            await client.finished(client.request(infer()[5:], path=INFER))
        ejected = [one.ejected_until is not None for one in router.dispatcher.replicas.values()]
        assert sum(ejected[:4]) == 2
        assert ejected[4:] == [True, False]
        assert len(ours[0].requests) == 5


async def test_a_replica_that_hangs_is_not_chosen_for_a_while() -> None:
    stuck = ScriptedReplica(nothing)
    async with router_of(stuck, ScriptedReplica()) as router, raw_client(router.port) as client:
        for _ in range(2):
            client.request(infer()[5:], path=INFER)
        await until(lambda: len(stuck.requests) == 1)
        (leg,) = router.dispatcher.replicas["m-0.1"].connections[0].streams.values()
        leg.started -= 31
        watchdog.look(router.dispatcher, router.dispatcher.loop.time())
        for _ in range(10):
            await client.finished(client.request(infer()[5:], path=INFER))
        assert len(stuck.requests) == 1
        assert router.dispatcher.ejections_total == 1


# ---------------------------------------------------------------- sequences


async def test_a_sequence_stays_where_it_began() -> None:
    async with (
        router_of(ScriptedReplica(), ScriptedReplica(), ScriptedReplica()) as router,
        raw_client(router.port) as client,
    ):
        for name in range(1, 7):
            for step in range(5):
                body = infer(name, start=step == 0, end=step == 4)[5:]
                assert (await client.finished(client.request(body, path=INFER)))[0] == 0
        homes = [{bytes(r.body) for r in replica.requests} for replica in router.scripted]
        for name in range(1, 7):
            bodies = {infer(name, start=step == 0, end=step == 4) for step in range(5)}
            assert sum(bool(bodies & home) for home in homes) == 1
        assert len(router.dispatcher.sequences) == 0
        assert [replica.sequences for replica in router.dispatcher.replicas.values()] == [0, 0, 0]


async def test_a_draining_replica_keeps_its_sequences_until_they_end() -> None:
    async with router_of(ScriptedReplica(), ScriptedReplica()) as router, raw_client(router.port) as client:
        await client.finished(client.request(infer(7, start=True)[5:], path=INFER))
        home = next(i for i, replica in enumerate(router.scripted) if replica.requests)
        router.dispatcher.apply(router.table(draining=(home,)))
        report = telemetry(router.dispatcher, worker=0, pid=1, started_at=0)
        assert [row.sequences for row in report.replicas if row.instance == f"m-{home}.1"] == [1]
        await client.finished(client.request(infer(7)[5:], path=INFER))
        await client.finished(client.request(infer(8, start=True, end=True)[5:], path=INFER))
        await client.finished(client.request(infer(7, end=True)[5:], path=INFER))
        assert len(router.scripted[home].requests) == 3
        assert len(router.dispatcher.sequences) == 0


async def test_a_sequence_that_begins_again_leaves_a_draining_replica() -> None:
    """What was there counts for nothing any more; whoever reuses an id must not keep the replica for ever."""
    async with router_of(ScriptedReplica(), ScriptedReplica()) as router, raw_client(router.port) as client:
        await client.finished(client.request(infer(7, start=True)[5:], path=INFER))
        home = next(i for i, replica in enumerate(router.scripted) if replica.requests)
        router.dispatcher.apply(router.table(draining=(home,)))
        await client.finished(client.request(infer(7, start=True)[5:], path=INFER))
        await client.finished(client.request(infer(7)[5:], path=INFER))
        assert len(router.scripted[home].requests) == 1
        assert len(router.scripted[1 - home].requests) == 2
        report = telemetry(router.dispatcher, worker=0, pid=1, started_at=0)
        assert {row.instance: row.sequences for row in report.replicas} == {
            f"m-{home}.1": 0, f"m-{1 - home}.1": 1,
        }  # fmt: skip
        router.dispatcher.apply(router.table(draining=(0, 1)))
        await client.finished(client.request(infer(7, start=True)[5:], path=INFER))
        assert len(router.scripted[1 - home].requests) == 3  # there is no other


async def test_a_sequence_is_never_sent_again_elsewhere() -> None:
    dying = ScriptedReplica(nothing)
    async with router_of(dying, ScriptedReplica(nothing)) as router, raw_client(router.port) as client:
        streams = [client.request(infer(n, start=True)[5:], path=INFER) for n in (1, 2)]
        await until(lambda: len(dying.requests) == 1)
        dying.hang_up()
        router.scripted[1].requests[0].answer(b"")
        assert Counter([(await client.finished(stream))[0] for stream in streams]) == {0: 1, 14: 1}
        assert router.dispatcher.retries_total == 0


async def test_an_idle_sequence_is_let_go() -> None:
    async with router_of(ScriptedReplica()) as router, raw_client(router.port) as client:
        await client.finished(client.request(infer(7, start=True)[5:], path=INFER))
        watchdog.look(router.dispatcher, router.dispatcher.loop.time() + 59)
        assert len(router.dispatcher.sequences) == 1
        watchdog.look(router.dispatcher, router.dispatcher.loop.time() + 61)
        assert len(router.dispatcher.sequences) == 0


async def test_a_sequence_begun_in_a_stream_is_known_to_unary_calls() -> None:
    async with router_of(ScriptedReplica(), ScriptedReplica()) as router, raw_client(router.port) as client:
        stream = client.request(None, path=STREAM)
        first, second = infer(1, start=True), infer(2, start=True)
        client.h2.send_data(stream, first + second[:20])
        client.h2.send_data(stream, second[20:])
        client.flush()
        await until(lambda: len(router.dispatcher.sequences) == 2)
        for name in (1, 2) * 3:
            await client.finished(client.request(infer(name)[5:], path=INFER))
        counts = sorted(len(replica.requests) for replica in router.scripted)
        assert counts == [0, 6]
        client.h2.send_data(stream, infer(1, end=True) + infer(2, end=True), end_stream=True)
        client.flush()
        await until(lambda: len(router.dispatcher.sequences) == 0)


async def test_several_workers_agree_on_where_a_sequence_begins() -> None:
    async with (
        router_of(ScriptedReplica(), ScriptedReplica(), ScriptedReplica()) as router,
        raw_client(router.port) as client,
    ):
        router.dispatcher.workers = 2
        for name in range(1, 13):
            await client.finished(client.request(infer(name, start=True)[5:], path=INFER))
        before = [{bytes(r.body) for r in replica.requests} for replica in router.scripted]
        assert sum(bool(home) for home in before) > 1
        for name in range(1, 13):  # as the other worker, which saw none of the starts
            router.dispatcher.sequences.release(("m", "int", name))
            await client.finished(client.request(infer(name)[5:], path=INFER))
        for replica, home in zip(router.scripted, before, strict=True):
            later = {bytes(r.body) for r in replica.requests} - home
            assert len(later) == len(home)


async def test_streams_are_not_sent_again() -> None:
    dying = ScriptedReplica(nothing)
    async with router_of(dying, ScriptedReplica(nothing)) as router:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{router.port}") as channel:
            call = channel.stream_stream(STREAM)()
            await call.write(infer()[5:])
            await until(lambda: any(replica.seen for replica in router.scripted))
            await until(lambda: router.in_flight() > 0)
            for replica in router.scripted:
                replica.hang_up()
            with pytest.raises(grpc.aio.AioRpcError, match="was lost during the request"):
                await call.read()
        assert router.dispatcher.retries_total == 0

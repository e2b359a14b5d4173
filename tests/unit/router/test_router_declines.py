"""A replica that was told to exit answers for a while that it has not the model: then another is asked."""

from dataclasses import replace

import pytest
from router_parts import Request, ScriptedReplica, message, raw_client, router_of, until
from test_router_needs import INFER, infer, versions_of
from test_router_peek import infer as sequence

from tritonfleet.core.wire import RouterSettings
from tritonfleet.router import watchdog

GONE = "Request for unknown model: 'model' has no available versions"
STOPPING = "[request id: 5] Server is stopping, scheduler for model has stopped"


def decline(request: Request, status: str = "5", words: str = GONE) -> None:
    """As gRPC's C++ server ends a call that has no message: in one header block."""
    headers = [(":status", "200"), ("content-type", "application/grpc")]
    request.connection.h2.send_headers(
        request.stream, [*headers, ("grpc-status", status), ("grpc-message", words)], end_stream=True
    )
    request.connection.flush()


@pytest.mark.parametrize(("status", "words"), [("5", GONE), ("14", STOPPING), ("14", "Server exiting")])
async def test_what_one_has_not_executed_is_asked_of_another(status: str, words: str) -> None:
    leaving = ScriptedReplica(lambda request: decline(request, status, words))
    async with router_of(leaving, ScriptedReplica()) as router, raw_client(router.port) as client:
        for _ in range(10):
            assert (await client.finished(client.request(infer(), path=INFER)))[0] == 0
        assert len(leaving.requests) == router.dispatcher.retries_total == 1  # not asked again so soon
        watchdog.look(router.dispatcher, router.dispatcher.loop.time())
        for _ in range(10):
            assert (await client.finished(client.request(infer(), path=INFER)))[0] == 0
        assert len(leaving.requests) == 2


async def test_where_nobody_has_it_the_client_reads_tritons_words() -> None:
    async with (
        router_of(ScriptedReplica(decline), ScriptedReplica(decline)) as router,
        raw_client(router.port) as client,
    ):
        assert await client.finished(client.request(infer(), path=INFER)) == (5, GONE)
        assert sum(len(replica.requests) for replica in router.scripted) == 2
        table = router.table()
        rows = tuple(replace(row, models=()) for row in table.replicas)
        router.dispatcher.apply(replace(table, replicas=rows))  # it was unloaded
        assert await client.finished(client.request(infer(), path=INFER)) == (5, GONE)
        assert sum(len(replica.requests) for replica in router.scripted) == 3


async def test_a_version_that_nobody_has_is_asked_for_once() -> None:
    async with (
        router_of(ScriptedReplica(decline), ScriptedReplica(decline)) as router,
        raw_client(router.port) as client,
    ):
        versions_of(router, ("1",), ("1",))
        assert await client.finished(client.request(infer("7"), path=INFER)) == (5, GONE)
        assert sum(len(replica.requests) for replica in router.scripted) == 1


async def test_nothing_of_a_sequence_nor_where_retries_are_off() -> None:
    async with (
        router_of(ScriptedReplica(decline), ScriptedReplica(decline)) as router,
        raw_client(router.port) as client,
    ):
        router.dispatcher.apply(
            replace(
                table := router.table(), replicas=tuple(replace(r, models=("m",)) for r in table.replicas)
            )
        )
        body = sequence(7, start=True)[5:]
        assert (await client.finished(client.request(body, path=INFER)))[0] == 5
        assert sum(len(replica.requests) for replica in router.scripted) == 1
        router.settings = RouterSettings(retry="off")
        router.dispatcher.apply(router.table())
        assert (await client.finished(client.request(infer(), path=INFER)))[0] == 5
        assert router.dispatcher.retries_total == 0


async def test_an_answer_before_the_end_of_the_request_sends_all_of_it_to_the_other() -> None:
    early, other = ScriptedReplica(), ScriptedReplica()
    early.on_start = decline
    early.on_request = lambda _request: None
    async with router_of(early, other) as router, raw_client(router.port) as client:
        whole = message(infer(size=50_000))
        streams = []
        for _ in range(2):  # one of them meets the replica that declines
            stream = client.request(None, path=INFER)
            client.h2.send_data(stream, whole[:6_000])
            client.flush()
            streams.append(stream)
            await until(lambda: _begun(router) >= len(streams))
        await until(lambda: router.dispatcher.retries_total == 1)
        for stream in streams:
            client.send_all(stream, whole[6_000:])
        for stream in streams:
            assert (await client.finished(stream))[0] == 0
        assert [bytes(request.body) for request in other.requests] == [whole, whole]


def _begun(router) -> int:  # type: ignore[no-untyped-def] # a Router
    return sum(len(protocol.requests) for replica in router.scripted for protocol in replica.connections)

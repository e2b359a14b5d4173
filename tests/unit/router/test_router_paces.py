"""Panic, slow start, and what the controller's table says of costs and paces."""

from collections import Counter
from dataclasses import replace

import pytest
from router_parts import Request, ScriptedReplica, raw_client, router_of, until
from test_router_failures import INFER, failing
from test_router_peek import infer

from tritonfleet.core.cost import SLOW_START
from tritonfleet.core.ejection import BASE_S, FAILURES, Ejection
from tritonfleet.router import watchdog
from tritonfleet.router.dispatch import SETTLED_S
from tritonfleet.router.telemetry import telemetry
from tritonfleet.router.work import PRIOR_S


def nothing(_request: Request) -> None:
    """A replica that works on and on."""


async def test_fewer_than_half_healthy_is_a_panic_and_the_ejected_are_used_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Four replicas: two fail fast, one is dead. The last one alone would be flooded."""
    async with (
        router_of(failing("13"), failing("13"), ScriptedReplica(), ScriptedReplica()) as router,
        raw_client(router.port) as client,
    ):
        dispatcher, (first, second, dying, healthy) = router.dispatcher, router.scripted
        while dispatcher.ejections_total < 2:
            await client.finished(client.request(infer()[5:], path=INFER))
        seen = [len(first.requests), len(second.requests)]
        for _ in range(12):
            assert (await client.finished(client.request(infer()[5:], path=INFER)))[0] == 0
        assert (seen, dispatcher.panics_total) == ([len(first.requests), len(second.requests)], 0)
        dying.hang_up()
        await until(lambda: not dispatcher.replicas["m-2.1"].available)
        for broken in (first, second):
            broken.on_request = lambda r: r.answer(b"")
        before = Counter({name: len(one.requests) for name, one in enumerate(router.scripted)})
        for _ in range(12):
            assert (await client.finished(client.request(infer()[5:], path=INFER)))[0] == 0
        after = Counter({name: len(one.requests) for name, one in enumerate(router.scripted)})
        assert after - before == {0: 4, 1: 4, 3: 4}
        assert healthy.requests
        assert dispatcher.panics_total == 1
        assert telemetry(dispatcher, worker=0, pid=1, started_at=0).panics_total == 1
        said = "'m': 1 of 4 replicas are healthy, so these are used, left out or not: m-0.1, m-1.1, m-3.1"
        assert said in caplog.messages


async def test_what_a_replica_answers_in_a_panic_does_not_count_when_it_is_tried_again() -> None:
    broken, dying = failing("13"), ScriptedReplica()
    async with router_of(broken, dying) as router, raw_client(router.port) as client:
        dispatcher = router.dispatcher
        it, other = dispatcher.replicas.values()

        async def ask(times: int) -> None:
            for _ in range(times):
                await client.finished(client.request(infer()[5:], path=INFER))

        await ask(12)
        assert (it.ejections, len(broken.requests)) == (1, 5)
        dying.hang_up()
        await until(lambda: not other.available)
        await ask(20)
        assert len(broken.requests) == 25, "better a bad answer than none"
        await dying.start(dying.port)
        await until(lambda: other.available)
        watchdog.look(dispatcher, dispatcher.loop.time() + BASE_S + 1)
        await ask(2 * (FAILURES - 1))
        assert it.ejected_until is None
        await ask(4)
        assert (it.ejections, len(broken.requests)) == (2, 25 + FAILURES)
        assert it.last_error.startswith(f"{FAILURES} failures in a row")


async def test_a_replica_that_comes_to_peers_at_work_starts_slowly() -> None:
    async with router_of(ScriptedReplica(), ScriptedReplica(), policy="least_work") as router:
        dispatcher = router.dispatcher
        assert [r.pace for r in dispatcher.replicas.values()] == [1.0, 1.0]  # all began together
        dispatcher.apply(router.table(without=(1,)))
        dispatcher.replicas["m-0.1"].since -= SETTLED_S + 1
        dispatcher.apply(router.table())
        assert {name: r.pace for name, r in dispatcher.replicas.items()} == {
            "m-0.1": 1.0,
            "m-1.1": SLOW_START,
        }
        told = telemetry(dispatcher, worker=0, pid=1, started_at=0).replicas
        assert [(row.instance, row.slow_starts) for row in told][:2] == [("m-0.1", 0), ("m-1.1", 1)]


async def test_a_replica_whose_table_row_says_it_is_slow_gets_less() -> None:
    """What only Triton's statistics know: others load it, past the router."""
    peer, loaded = ScriptedReplica(nothing), ScriptedReplica(nothing)
    async with router_of(peer, loaded, policy="least_work") as router, raw_client(router.port) as client:
        table = router.table()
        rows = tuple(replace(row, pace=pace) for row, pace in zip(table.replicas, (1.0, 3.0), strict=True))
        router.dispatcher.apply(replace(table, replicas=rows))
        streams = [client.request(infer()[5:], path=INFER) for _ in range(20)]
        await until(lambda: len(peer.requests) + len(loaded.requests) == 20)
        assert 4 <= len(loaded.requests) <= 6
        for replica in (peer, loaded):
            for request in replica.requests:
                request.answer(b"")
        for stream in streams:
            await client.finished(stream)
        assert router.dispatcher.replicas["m-1.1"].pace == 3.0
        router.dispatcher.apply(replace(table, revision=table.revision + 1))
        assert router.dispatcher.replicas["m-1.1"].pace == 1.0


async def test_a_prior_is_used_until_something_was_learned() -> None:
    async with router_of(ScriptedReplica()) as router, raw_client(router.port) as client:
        work = router.dispatcher.work
        known = work.of("m").cost
        assert (known.estimate(100), work.of("other").cost.estimate(100)) == (PRIOR_S, PRIOR_S)
        router.dispatcher.apply(replace(router.table(), priors={"m": 0.25, "later": 2.0}))
        assert known.estimate(100) == 0.25
        assert work.of("later").cost.estimate(100) == 2.0
        for _ in range(3):  # a request is learned from when the next one is answered
            await client.finished(client.request(infer()[5:], path=INFER))
            await until(lambda: router.in_flight() == 0)
        assert known.estimate(100) < 0.25
        (call,) = telemetry(router.dispatcher, worker=0, pid=1, started_at=0).calls
        assert (call.model, call.served) == ("m", 3)
        assert call.expected_s >= 0.25


async def test_refusals_and_denied_retries_are_counted() -> None:
    dying = ScriptedReplica(nothing)
    async with router_of(dying, ScriptedReplica(nothing)) as router, raw_client(router.port) as client:
        router.dispatcher.budget.take = lambda _total: False  # type: ignore[method-assign] # it is used up
        streams = [client.request(infer()[5:], path=INFER) for _ in range(2)]
        await until(lambda: len(dying.requests) == 1)
        dying.hang_up()
        router.scripted[1].requests[0].answer(b"")
        assert sorted([(await client.finished(stream))[0] for stream in streams]) == [0, 14]
        told = telemetry(router.dispatcher, worker=0, pid=1, started_at=0)
        assert (told.retries_total, told.retries_denied_total) == (0, 1)
        assert told.refused_by_status == {"14": 1}


async def test_an_ejected_replica_shows_its_slow_start_afterwards() -> None:
    async with router_of(ScriptedReplica(), ScriptedReplica(), policy="least_work") as router:
        replica = router.dispatcher.replicas["m-0.1"]
        router.dispatcher.eject(replica, Ejection(30.0, "it failed"))
        replica.start_slow()
        told = telemetry(router.dispatcher, worker=0, pid=1, started_at=0).replicas[0]
        assert (told.ejections, told.slow_starts, told.pace) == (1, 1, SLOW_START)

"""Late binding: what the replicas cannot usefully hold waits in the router, in order and bounded."""

import asyncio
from collections import Counter
from dataclasses import replace

import h2.events
from router_parts import Request, ScriptedReplica, message, raw_client, router_of, until
from tritonclient.grpc import service_pb2

from tritonfleet.core.cost import SLOW_START
from tritonfleet.core.ejection import Ejection
from tritonfleet.core.wire import RouterSettings
from tritonfleet.http2.frames import ErrorCode
from tritonfleet.router import watchdog
from tritonfleet.router.telemetry import telemetry
from tritonfleet.router.transport import flush_all

INFER = "/inference.GRPCInferenceService/ModelInfer"


def body(tag: int, *, priority: int = 0, size: int = 8) -> bytes:
    request = service_pb2.ModelInferRequest(model_name="model", id=str(tag))
    if priority:
        request.parameters["priority"].uint64_param = priority
    request.raw_input_contents.append(bytes(size))
    return request.SerializeToString()


def tag_of(request: Request) -> int:
    return int(service_pb2.ModelInferRequest.FromString(bytes(request.body[5:])).id)


def nothing(_request: Request) -> None:
    """A replica that works on and on."""


class Held(ScriptedReplica):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(nothing)

    def finish(self, index: int) -> None:
        self.requests[index].answer(b"")


async def test_what_has_no_slot_waits_and_goes_to_whoever_is_free_first() -> None:
    first, second = Held(), Held()
    async with router_of(first, second, slots={"model": 1}) as router, raw_client(router.port) as client:
        streams = [client.request(body(tag), path=INFER) for tag in range(5)]
        await until(lambda: len(first.requests) == len(second.requests) == 1)
        told = telemetry(router.dispatcher, worker=0, pid=1, started_at=0)
        assert (told.waiting, told.waiting_by_model) == (3, {"model": 3})
        for index in range(4):  # the second one does all the work
            await until(lambda n=index: len(second.requests) == n + 1)
            second.finish(index)
        first.finish(0)
        assert Counter([(await client.finished(stream))[0] for stream in streams]) == {0: 5}
        counts, seconds = telemetry(router.dispatcher, worker=0, pid=1, started_at=0).waits["model"]
        assert (sum(counts.values()), seconds > 0) == (3, True)
        assert [tag_of(r) for r in second.requests] == sorted(tag_of(r) for r in second.requests)
        assert len(first.requests) == 1


async def test_short_requests_do_not_wait_for_a_number_that_was_only_found() -> None:
    """While a replica's expected work is less than is gained by waiting, it may have more than its slots."""
    replica = Held()
    async with router_of(replica, slots={"model": 1}, strict=False, policy="least_work") as router:
        router.dispatcher.work.take_priors({"model": 0.004})  # seconds
        async with raw_client(router.port) as client:
            streams = [client.request(body(tag), path=INFER) for tag in range(5)]
            await until(lambda: len(replica.requests) == 3)  # 4 ms and 4 ms are less than 10 ms
            await until(lambda: router.dispatcher.work.queued == 2)
            for index in range(5):
                await until(lambda n=index: len(replica.requests) > n)
                replica.finish(index)
            assert Counter([(await client.finished(stream))[0] for stream in streams]) == {0: 5}


async def test_requests_that_are_expected_to_cost_nothing_are_learned_by_their_size() -> None:
    replica = Held()
    async with router_of(replica, policy="least_work") as router, raw_client(router.port) as client:
        router.dispatcher.work.take_priors({"model": 0.0})
        for index in range(3):
            stream = client.request(body(index), path=INFER)
            await until(lambda n=index: len(replica.requests) > n)
            replica.finish(index)
            await client.finished(stream)
            await asyncio.sleep(0.01)  # answers closer together would be one batch
        [(size, _seconds)] = router.dispatcher.work.of("model").cost.points()
        assert size == len(body(0))


async def test_a_higher_priority_goes_first() -> None:
    replica = Held()
    async with router_of(replica, slots={"model": 1}) as router, raw_client(router.port) as client:
        streams = [client.request(body(0), path=INFER)]
        await until(lambda: len(replica.requests) == 1)
        for tag, priority in ((1, 0), (2, 3), (3, 1), (4, 2)):
            streams.append(client.request(body(tag, priority=priority), path=INFER))
        await until(lambda: router.dispatcher.waiting_count == 4)
        for index in range(5):
            await until(lambda n=index: len(replica.requests) == n + 1)
            replica.finish(index)
        for stream in streams:
            await client.finished(stream)
        assert [tag_of(request) for request in replica.requests] == [0, 3, 4, 2, 1]


async def test_a_nearer_deadline_goes_first() -> None:
    replica = Held()
    async with router_of(replica, slots={"model": 1}) as router, raw_client(router.port) as client:
        streams = [client.request(body(0), path=INFER)]
        await until(lambda: len(replica.requests) == 1)
        for tag, timeout in ((1, "30S"), (2, "20S"), (3, "25S")):
            streams.append(client.request(body(tag), path=INFER, **{"grpc-timeout": timeout}))
        await until(lambda: router.dispatcher.waiting_count == 3)
        for index in range(4):
            await until(lambda n=index: len(replica.requests) == n + 1)
            replica.finish(index)
        for stream in streams:
            await client.finished(stream)
        assert [tag_of(request) for request in replica.requests] == [0, 2, 3, 1]
        assert all(request.headers["grpc-timeout"].endswith("u") for request in replica.requests[1:])


async def test_a_full_queue_refuses_at_once_with_the_numbers() -> None:
    replica = Held()
    async with router_of(replica, slots={"model": 1}) as router, raw_client(router.port) as client:
        router.settings = RouterSettings(max_requests=2)
        router.dispatcher.apply(router.table())
        streams = [client.request(body(tag), path=INFER) for tag in range(4)]
        status, text = await client.finished(streams[3])
        assert status == 8
        assert "the router's queue is full, 2 requests wait for 1 replica" in text
        (answer,) = client.of(h2.events.ResponseReceived, streams[3])
        assert int(dict(answer.headers)["grpc-retry-pushback-ms"]) >= 1
        for index in range(3):
            await until(lambda n=index: len(replica.requests) == n + 1)
            replica.finish(index)
        assert [(await client.finished(stream))[0] for stream in streams[:3]] == [0, 0, 0]


async def test_a_hopeless_deadline_is_refused_at_once() -> None:
    replica = Held()
    async with router_of(replica, slots={"model": 1}) as router, raw_client(router.port) as client:
        for _ in range(50):
            router.dispatcher.work.of("model").cost.learn(len(body(0)), 2.0)
        streams = [client.request(body(tag), path=INFER) for tag in range(3)]
        await until(lambda: router.dispatcher.waiting_count == 2)
        hopeless = client.request(body(9), path=INFER, **{"grpc-timeout": "1S"})
        status, text = await client.finished(hopeless)
        assert status == 8
        assert "the expected wait is" in text
        for index in range(3):
            await until(lambda n=index: len(replica.requests) == n + 1)
            replica.finish(index)
        for stream in streams:
            await client.finished(stream)


async def test_nobody_is_refused_for_a_wait_that_is_only_guessed() -> None:
    """A burst that meets a router which has seen nothing of its model: 1500 calls of 1 ms, taken for 10 ms
    each, would be 15 s of work."""
    replica = Held()
    async with router_of(replica, slots={"model": 1}) as router, raw_client(router.port) as client:
        calls = [client.request(body(tag % 256), path=INFER, **{"grpc-timeout": "2S"}) for tag in range(400)]
        await until(lambda: router.dispatcher.waiting_count == 399)
        replica.finish(0)
        await client.finished(calls[0])
        late = client.request(body(9), path=INFER, **{"grpc-timeout": "2S"})
        await until(lambda: router.dispatcher.waiting_count == 399)
        assert router.dispatcher.refused_by_status == {}
        assert late


async def test_who_waited_too_long_is_told() -> None:
    replica = Held()
    async with router_of(replica, slots={"model": 1}) as router, raw_client(router.port) as client:
        streams = [client.request(body(tag), path=INFER) for tag in range(2)]
        await until(lambda: router.dispatcher.waiting_count == 1)
        watchdog.look(router.dispatcher, router.dispatcher.loop.time() + 31)
        status, text = await client.finished(streams[1])
        assert (status, "no replica had room within 30 s" in text) == (14, True)
        replica.finish(0)
        await client.finished(streams[0])


async def test_a_cancelled_call_leaves_the_queue() -> None:
    replica = Held()
    async with router_of(replica, slots={"model": 1}) as router, raw_client(router.port) as client:
        streams = [client.request(body(tag), path=INFER) for tag in range(3)]
        await until(lambda: router.dispatcher.waiting_count == 2)
        client.h2.reset_stream(streams[1], ErrorCode.CANCEL)
        client.flush()
        await until(lambda: router.dispatcher.waiting_count == 1)
        replica.finish(0)
        await until(lambda: len(replica.requests) == 2)
        replica.finish(1)
        assert [(await client.finished(streams[i]))[0] for i in (0, 2)] == [0, 0]
        assert [tag_of(request) for request in replica.requests] == [0, 2]


async def test_a_new_replica_takes_what_waits() -> None:
    busy, fresh = Held(), Held()
    async with router_of(busy, fresh, slots={"model": 1}) as router, raw_client(router.port) as client:
        router.dispatcher.apply(router.table(without=(1,)))
        streams = [client.request(body(tag), path=INFER) for tag in range(2)]
        await until(lambda: router.dispatcher.waiting_count == 1)
        router.dispatcher.apply(router.table())
        await until(lambda: len(fresh.requests) == 1)
        busy.finish(0)
        fresh.finish(0)
        for stream in streams:
            assert (await client.finished(stream))[0] == 0


async def test_what_waits_survives_the_loss_of_its_replica() -> None:
    dying, other = Held(), Held()
    async with router_of(dying, other, slots={"model": 1}) as router, raw_client(router.port) as client:
        streams = [client.request(body(tag), path=INFER) for tag in range(4)]
        await until(lambda: router.dispatcher.waiting_count == 2)
        dying.hang_up()
        for index in range(4):
            await until(lambda n=index: len(other.requests) == n + 1)
            other.finish(index)
        assert [(await client.finished(stream))[0] for stream in streams] == [0] * 4


async def test_large_bodies_can_wait_too() -> None:
    replica = Held()
    async with router_of(replica, slots={"model": 1}) as router, raw_client(router.port) as client:
        first = client.request(body(0), path=INFER)
        await until(lambda: len(replica.requests) == 1)
        large = body(1, size=3_000_000)
        second = client.request(None, path=INFER)
        client.send_all(second, message(large))
        await until(lambda: router.dispatcher.waiting_count == 1)
        replica.finish(0)
        await until(lambda: len(replica.requests) == 2)
        assert bytes(replica.requests[1].body) == message(large)
        replica.finish(1)
        assert [(await client.finished(stream))[0] for stream in (first, second)] == [0, 0]


async def test_least_work_learns_which_requests_are_dear() -> None:
    """Two replicas, one busy with something long: short requests go to the other, however many they are."""
    busy, other = Held(), Held()
    async with router_of(busy, other, policy="least_work") as router, raw_client(router.port) as client:
        cost = router.dispatcher.work.of("model").cost
        for _ in range(50):
            cost.learn(len(body(0)), 0.001)
            cost.learn(len(body(0, size=100_000)), 1.0)
        long = client.request(None, path=INFER)
        client.send_all(long, message(body(0, size=100_000)))
        await until(lambda: len(busy.requests) + len(other.requests) == 1)
        home = busy if busy.requests else other
        away = other if busy.requests else busy
        streams = [client.request(body(tag), path=INFER) for tag in range(1, 30)]
        await until(lambda: len(away.requests) == 29)
        for index in range(29):
            away.finish(index)
        home.finish(0)
        for stream in (long, *streams):
            await client.finished(stream)
        assert [round(r.work_s, 9) for r in router.dispatcher.replicas.values()] == [0, 0]


async def test_a_replica_that_is_back_is_not_flooded() -> None:
    """Beside a busy peer it takes its share, but not everything at once."""
    peer, back = Held(), Held()
    async with router_of(peer, back, policy="least_work") as router, raw_client(router.port) as client:
        await until(lambda: any(client.greeted for client in router.dispatcher.clients))
        replica = router.dispatcher.replicas["m-1.1"]
        router.dispatcher.eject(replica, Ejection(30.0, "it failed"))
        watchdog.look(router.dispatcher, router.dispatcher.loop.time() + 31)
        assert [r.pace for r in router.dispatcher.replicas.values()] == [1.0, SLOW_START]
        for _ in range(50):
            router.dispatcher.work.of("model").cost.learn(len(body(0)), 0.01)
        streams = [client.request(body(tag), path=INFER) for tag in range(20)]
        await until(lambda: len(peer.requests) + len(back.requests) == 20)
        assert 4 <= len(back.requests) <= 8
        for second in range(60):
            watchdog.look(router.dispatcher, router.dispatcher.loop.time() + second)
        assert [r.pace for r in router.dispatcher.replicas.values()] == [1.0, 1.0]
        for held in (peer, back):
            for index in range(len(held.requests)):
                held.finish(index)
        for stream in streams:
            await client.finished(stream)


async def test_a_request_for_a_model_that_sleeps_waits_for_the_first_replica() -> None:
    replica = Held()
    async with router_of(replica) as router, raw_client(router.port) as client:
        awake = router.table()
        settings = RouterSettings(max_requests=1, max_wait_s=0.05)
        asleep = replace(
            awake, revision=awake.revision + 1, replicas=(), asleep={"model": 30.0}, settings=settings
        )
        router.dispatcher.apply(asleep)
        held = client.request(body(1), path=INFER)
        await until(lambda: router.dispatcher.work.queued == 1)
        told = telemetry(router.dispatcher, worker=0, pid=1, started_at=0)
        assert told.waiting_by_model == {"model": 1}
        status, text = await client.finished(client.request(body(2), path=INFER))
        assert (status, "queue is full" in text) == (8, True)  # router.queue.max_requests holds here, too
        await asyncio.sleep(0.1)
        router.dispatcher.work.expire(router.dispatcher.loop.time())
        assert router.dispatcher.work.queued == 1  # a cold start is no part of max_wait
        router.dispatcher.apply(replace(awake, revision=awake.revision + 2))
        await until(lambda: len(replica.requests) == 1)
        replica.finish(0)
        assert (await client.finished(held))[0] == 0


async def test_a_model_that_no_sleeping_pool_has_is_refused_at_once() -> None:
    async with router_of(Held()) as router, raw_client(router.port) as client:
        table = router.table()
        router.dispatcher.apply(replace(table, revision=9, replicas=(), asleep={"other": 30.0}))
        assert (await client.finished(client.request(body(1), path=INFER)))[0] == 14


async def test_a_sleeping_model_is_not_sent_to_another_pools_replica_nor_waited_for_past_its_deadline() -> (
    None
):
    other = Held()
    async with router_of(other) as router, raw_client(router.port) as client:
        table = router.table()
        rows = tuple(replace(row, models=("other",)) for row in table.replicas)
        router.dispatcher.apply(replace(table, revision=9, replicas=rows, asleep={"model": 30.0}))
        held = client.request(body(1), path=INFER, **{"grpc-timeout": "50m"})
        await until(lambda: router.dispatcher.work.queued == 1)
        await asyncio.sleep(0.1)
        router.dispatcher.work.expire(router.dispatcher.loop.time())
        flush_all(router.dispatcher.touched)
        assert other.requests == []
        assert (await client.finished(held))[0] == 4
        assert router.dispatcher.work.queued == 0


STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


async def test_a_stream_for_a_model_that_sleeps_waits_with_all_it_has_sent() -> None:
    replica = Held()
    async with router_of(replica) as router, raw_client(router.port) as client:
        awake = router.table()
        router.dispatcher.apply(replace(awake, revision=8, replicas=(), asleep={"model": 30.0}))
        stream = client.request(None, path=STREAM)
        client.h2.send_data(stream, message(body(1)))
        client.flush()
        await until(lambda: router.dispatcher.work.queued == 1)
        client.h2.send_data(stream, message(body(2)))
        client.flush()
        assert telemetry(router.dispatcher, worker=0, pid=1, started_at=0).waiting_by_model == {"model": 1}
        await asyncio.sleep(0.05)
        router.dispatcher.apply(replace(awake, revision=9))
        client.h2.send_data(stream, message(body(3)), end_stream=True)
        client.flush()
        expected = b"".join(message(body(tag)) for tag in (1, 2, 3))
        await until(lambda: len(replica.requests) == 1 and bytes(replica.requests[0].body) == expected)
        replica.finish(0)
        assert (await client.finished(stream))[0] == 0

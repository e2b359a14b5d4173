"""A call's life through the router: spread, streamed, cancelled, refused, retried, lost."""

import asyncio
from collections import Counter

import grpc
import h2.events
import pytest
from router_parts import RawClient, Request, Router, ScriptedReplica, raw_client, router_of, until
from tritonclient.grpc import service_pb2

from tritonfleet.http2.frames import ErrorCode
from tritonfleet.router.telemetry import telemetry

Reset = h2.events.StreamReset


def nothing(_request: Request) -> None:
    """A replica that works on and on."""


async def call(port: int, body: bytes = b"hello", path: str = "/x.Y/Z") -> bytes:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=UNLIMITED) as channel:
        return await channel.unary_unary(path)(body)


UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


# ---------------------------------------------------------------- the usual


@pytest.mark.parametrize(
    "size", [0, 1, 16_378, 16_379, 16_380, 65_529, 65_530, 65_531, 262_144, 1_000_000, 8 << 20]
)
async def test_messages_of_any_size_come_back_whole(size: int) -> None:
    """The odd sizes make a frame or a window end exactly at, before and after the message's end."""
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with router_of(ScriptedReplica()) as router:
        assert await call(router.port, body) == body


async def test_headers_and_trailers_pass_unchanged() -> None:
    def answer(request: Request) -> None:
        request.answer(b"x", trailers=[("grpc-status", "9"), ("grpc-message", "no%21"), ("x-bin", "AAEC")])

    async with router_of(ScriptedReplica(answer)) as router, raw_client(router.port) as client:
        stream = client.request(b"", **{"x-custom": "yes", "grpc-timeout": "5S", "k-bin": "AAEC"})
        assert await client.finished(stream) == (9, "no%21")
        seen = router.scripted[0].requests[0].headers
        assert (seen["x-custom"], seen["grpc-timeout"], seen["k-bin"], seen["te"]) == (
            "yes",
            "5S",
            "AAEC",
            "trailers",
        )
        trailers = dict(client.of(h2.events.TrailersReceived, stream)[0].headers)
        assert trailers["x-bin"] == "AAEC"


async def test_calls_are_spread_over_replicas() -> None:
    async with router_of(ScriptedReplica(), ScriptedReplica(), ScriptedReplica()) as router:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{router.port}") as channel:
            for _ in range(30):
                await channel.unary_unary("/x.Y/Z")(b"")
        assert [len(replica.requests) for replica in router.scripted] == [10, 10, 10]


async def test_least_requests_avoids_the_busy_replica() -> None:
    busy, idle = ScriptedReplica(nothing), ScriptedReplica()
    async with (
        router_of(busy, idle, policy="least_requests") as router,
        raw_client(router.port) as client,
    ):
        for _ in range(2):  # one on each: the first replica's never ends
            client.request(b"")
        await until(lambda: (len(busy.requests), len(idle.requests)) == (1, 1))
        for _ in range(20):
            await client.finished(client.request(b""))
        assert (len(busy.requests), len(idle.requests)) == (1, 21)


async def test_a_model_goes_where_it_is_ready() -> None:
    async with router_of(ScriptedReplica(), ScriptedReplica()) as router:
        table = router.table()
        rows = tuple(
            type(row)(row.id, row.instance, row.pool, row.host, row.port, False, (f"only-{i}",))
            for i, row in enumerate(table.replicas)
        )
        router.dispatcher.apply(type(table)(table.fleet, table.revision, table.policy, rows))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{router.port}") as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            for _ in range(4):
                await infer(service_pb2.ModelInferRequest(model_name="only-1").SerializeToString())
            assert [len(replica.requests) for replica in router.scripted] == [0, 4]
            await infer(service_pb2.ModelInferRequest(model_name="unknown").SerializeToString())
        assert (
            sum(len(replica.requests) for replica in router.scripted) == 5
        )  # Triton's own error is the right one


async def test_a_stream_is_a_conversation() -> None:
    """Each message goes through before the next is sent: nothing waits for the end of the stream."""

    def start(request: Request) -> None:
        request.connection.h2.send_headers(
            request.stream, [(":status", "200"), ("content-type", "application/grpc")]
        )

    async with router_of(ScriptedReplica(nothing)) as router, raw_client(router.port) as client:
        replica = router.scripted[0]
        replica.on_start = start
        stream = client.request(None, path="/inference.GRPCInferenceService/ModelStreamInfer")
        client.h2.send_data(stream, b"\0\0\0\0\3\x0a\1m")  # names model "m"
        client.flush()
        await until(lambda: bool(client.of(h2.events.ResponseReceived, stream)))
        protocol = replica.connections[0]
        request = next(iter(protocol.requests.values()))
        for number in range(5):
            client.h2.send_data(stream, b"ping%d" % number)
            client.flush()
            await until(lambda n=number: bytes(request.body).endswith(b"ping%d" % n))
            protocol.h2.send_data(request.stream, b"pong%d" % number)
            protocol.flush()
            await until(lambda n=number: client.body(stream).endswith(b"pong%d" % n))
        client.h2.end_stream(stream)
        client.flush()
        await until(lambda: bool(replica.requests))
        protocol.h2.send_headers(request.stream, [("grpc-status", "0")], end_stream=True)
        protocol.flush()
        assert await client.finished(stream) == (0, "")


# ---------------------------------------------------------------- flow control end to end


async def test_a_client_that_does_not_read_holds_back_its_replica_but_nobody_else() -> None:
    big = b"x" * (4 << 20)
    async with (
        router_of(ScriptedReplica(lambda r: r.answer(big if r.body[5:] == b"big" else b"ok"))) as router,
        raw_client(router.port) as slow,
        raw_client(router.port) as quick,
    ):
        slow.credits = False
        stalled = slow.request(b"big")
        await until(lambda: len(slow.body(stalled)) >= 65_535)
        for _ in range(20):
            await quick.finished(quick.request(b"small"))
        protocol = router.scripted[0].connections[0]
        await until(lambda: bool(protocol.unsent))
        held = sum(s.queued_bytes for c in router.dispatcher.clients for s in c.streams.values())
        assert held <= 256 * 1024
        slow.credits = True
        slow.h2.acknowledge_received_data(len(slow.body(stalled)), stalled)
        slow.flush()
        assert await slow.finished(stalled) == (0, "")
        assert len(slow.body(stalled)) == len(big) + 5


async def test_a_replica_that_does_not_read_holds_back_its_client() -> None:
    async with router_of(ScriptedReplica()) as router, raw_client(router.port) as client:
        replica = router.scripted[0]
        replica.credits = False
        stream = client.request(None)
        sent = 0
        while sent < 8 << 20:
            room = min(client.h2.local_flow_control_window(stream), client.h2.max_outbound_frame_size)
            if room <= 0:
                before = sent
                await asyncio.sleep(0.05)
                if client.h2.local_flow_control_window(stream) <= 0 and before == sent:
                    break
                continue
            client.h2.send_data(stream, b"x" * room)
            client.flush()
            sent += room
        assert sent < 1 << 20
        client.h2.reset_stream(stream, ErrorCode.CANCEL)
        client.flush()


# ---------------------------------------------------------------- cancelling


async def test_a_clients_cancel_reaches_the_replica() -> None:
    async with router_of(ScriptedReplica(nothing)) as router, raw_client(router.port) as client:
        replica = router.scripted[0]
        stream = client.request(b"")
        await until(lambda: bool(replica.requests))
        client.h2.reset_stream(stream, ErrorCode.CANCEL)
        client.flush()
        await until(
            lambda: any(isinstance(e, Reset) and e.error_code == ErrorCode.CANCEL for e in replica.seen)
        )
        await until(lambda: router.in_flight() == 0)


async def test_a_lost_client_is_a_cancel() -> None:
    async with router_of(ScriptedReplica(nothing)) as router:
        replica = router.scripted[0]
        async with raw_client(router.port) as client:
            for _ in range(3):
                client.request(b"")
            await until(lambda: len(replica.requests) == 3)
        await until(lambda: sum(isinstance(e, Reset) for e in replica.seen) == 3)
        assert router.in_flight() == 0


async def test_a_deadline_of_a_real_client_cancels_upstream() -> None:
    async with router_of(ScriptedReplica(nothing)) as router:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{router.port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/x.Y/Z")(b"", timeout=0.2)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: any(isinstance(e, Reset) for e in router.scripted[0].seen))


async def test_a_replicas_reset_keeps_its_meaning() -> None:
    async with router_of(ScriptedReplica(lambda r: r.reset(ErrorCode.ENHANCE_YOUR_CALM))) as router:
        async with raw_client(router.port) as client:
            stream = client.request(b"")
            await until(lambda: bool(client.of(Reset, stream)))
            assert client.of(Reset, stream)[0].error_code == ErrorCode.ENHANCE_YOUR_CALM
        assert len(router.scripted[0].requests) == 1


@pytest.mark.parametrize("resets", [False, True])
async def test_an_early_answer_ends_the_request(resets: bool) -> None:
    """Trailers before the request's end: the client gets its status, its stream is closed without error, also
    if the replica says by a reset that it wants no more of it; that is no cancel."""
    async with router_of(ScriptedReplica()) as router, raw_client(router.port) as client:
        replica = router.scripted[0]

        def refuse(request: Request) -> None:
            request.connection.h2.send_headers(
                request.stream,
                [(":status", "200"), ("grpc-status", "8"), ("grpc-message", "full")],
                end_stream=True,
            )
            if resets:
                request.connection.h2.reset_stream(request.stream, ErrorCode.NO_ERROR)

        replica.on_start = refuse
        stream = client.request(None)
        client.h2.send_data(stream, b"\0\0\0\0\5")
        client.flush()
        assert await client.finished(stream) == (8, "full")
        await until(lambda: bool(client.of(Reset, stream)))
        assert client.of(Reset, stream)[0].error_code == ErrorCode.NO_ERROR
        await until(lambda: router.in_flight() == 0)


# ---------------------------------------------------------------- retry, refusal, loss


async def test_a_refused_stream_is_tried_on_another_replica() -> None:
    refusing = ScriptedReplica(lambda r: r.reset(ErrorCode.REFUSED_STREAM))
    async with router_of(refusing, ScriptedReplica()) as router:
        for body in (b"a", b"b" * 1000, b"c", b"d"):
            assert await call(router.port, body) == body
        assert len(refusing.requests) == 2
        assert [bytes(r.body[5:]) for r in router.scripted[1].requests] == [b"a", b"b" * 1000, b"c", b"d"]
        assert router.dispatcher.retries_total == 2


async def test_a_stream_everybody_refuses_is_unavailable_and_says_who() -> None:
    refusing = ScriptedReplica(lambda r: r.reset(ErrorCode.REFUSED_STREAM))
    async with router_of(refusing) as router:
        with pytest.raises(grpc.aio.AioRpcError, match=r"replica m-0 refused the request") as caught:
            await call(router.port)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert len(refusing.requests) == 3


async def test_what_a_goaway_leaves_out_goes_elsewhere_and_the_rest_finishes() -> None:
    leaving = ScriptedReplica(nothing)
    async with router_of(leaving, ScriptedReplica()) as router, raw_client(router.port) as client:
        streams = [client.request(b"%d" % i) for i in range(4)]  # two on each, by turns
        await until(lambda: len(leaving.requests) == 2)
        kept, left_out = leaving.requests
        connection = leaving.connections[0]
        connection.h2.close_connection(last_stream_id=kept.stream)
        connection.flush()
        await until(lambda: len(router.scripted[1].requests) == 3)
        assert bytes(router.scripted[1].requests[-1].body) == bytes(left_out.body)
        # h2 refuses to answer after its own GOAWAY: by hand, an answer to what it kept
        block = b"\x88" + b"\0\x0bgrpc-status\x010"
        connection.transport.write(
            len(block).to_bytes(3, "big") + b"\1\5" + kept.stream.to_bytes(4, "big") + block
        )
        assert Counter([(await client.finished(stream))[0] for stream in streams]) == {0: 4}


async def test_a_lost_replica_fails_its_calls_clearly_and_takes_no_more() -> None:
    dying = ScriptedReplica(nothing)
    async with router_of(dying, ScriptedReplica()) as router, raw_client(router.port) as client:
        streams = [client.request(b"") for _ in range(4)]
        await until(lambda: len(dying.requests) == 2)
        dying.hang_up()
        statuses = [await client.finished(stream) for stream in streams]
        assert Counter(status for status, _ in statuses) == {0: 2, 14: 2}
        assert any("replica m-0 was lost during the request" in text for _, text in statuses)
        for _ in range(10):
            assert (await client.finished(client.request(b"")))[0] == 0


async def test_a_replica_that_comes_back_is_used_again() -> None:
    replica = ScriptedReplica()
    async with router_of(replica) as router:
        replica.hang_up()
        await until(lambda: not router.dispatcher.replicas["m-0.1"].available)
        with pytest.raises(grpc.aio.AioRpcError, match="no replica can take this request") as caught:
            await call(router.port)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        await replica.start(replica.port)
        await until(lambda: router.dispatcher.replicas["m-0.1"].available)
        assert await call(router.port) == b"hello"


async def test_an_empty_table_is_unavailable_and_says_what_to_do() -> None:
    async with router_of(ScriptedReplica()) as router:
        router.dispatcher.apply(router.table(without=(0,)))
        with pytest.raises(grpc.aio.AioRpcError, match="`tritonfleet ps` says why"):
            await call(router.port)


async def test_what_is_not_grpc_is_answered_in_http() -> None:
    async with router_of(ScriptedReplica()) as router, raw_client(router.port) as client:
        stream = client.request(b"", **{"content-type": "text/html"})
        await until(lambda: bool(client.of(h2.events.ResponseReceived, stream)))
        assert dict(client.of(h2.events.ResponseReceived, stream)[0].headers)[":status"] == "415"
        assert router.scripted[0].requests == []


async def test_calls_wait_for_room_under_the_replicas_stream_limit() -> None:
    waiting: list[Request] = []
    replica = ScriptedReplica(waiting.append, MAX_CONCURRENT_STREAMS=2)
    async with router_of(replica) as router, raw_client(router.port) as client:
        await until(lambda: router.dispatcher.replicas["m-0.1"].connections[0].peer_max_streams == 2)
        streams = [client.request(b"%d" % i) for i in range(5)]
        for answered in range(5):
            await until(lambda n=answered: len(waiting) > n)
            assert len(replica.connections[0].h2.streams) <= 5
            assert sum(not s.closed for s in replica.connections[0].h2.streams.values()) <= 2
            waiting[answered].answer(b"")
        assert [(await client.finished(stream))[0] for stream in streams] == [0] * 5
        assert [bytes(r.body[5:]) for r in waiting] == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_waiting_call_can_be_cancelled() -> None:
    replica = ScriptedReplica(nothing, MAX_CONCURRENT_STREAMS=1)
    async with router_of(replica) as router, raw_client(router.port) as client:
        await until(lambda: router.dispatcher.replicas["m-0.1"].connections[0].peer_max_streams == 1)
        first, second = client.request(b"1"), client.request(b"2")
        await until(lambda: len(replica.requests) == 1)
        for stream in (second, first):
            client.h2.reset_stream(stream, ErrorCode.CANCEL)
        client.flush()
        await until(lambda: router.in_flight() == 0)
        assert [bytes(r.body[5:]) for r in replica.requests] == [b"1"]


# ---------------------------------------------------------------- the table


async def test_a_draining_replica_gets_nothing_new_and_finishes_what_it_has() -> None:
    slow = ScriptedReplica(nothing)
    async with router_of(slow, ScriptedReplica()) as router, raw_client(router.port) as client:
        streams = [client.request(b"") for _ in range(2)]
        await until(lambda: len(slow.requests) == 1)
        router.dispatcher.apply(router.table(draining=(0,)))
        for _ in range(6):
            assert (await client.finished(client.request(b"")))[0] == 0
        assert len(slow.requests) == 1
        slow.requests[0].answer(b"late")
        assert [(await client.finished(stream))[0] for stream in streams] == [0, 0]


async def test_a_replica_that_left_the_table_goes_when_its_last_call_ends() -> None:
    slow = ScriptedReplica(nothing)
    async with router_of(slow, ScriptedReplica()) as router, raw_client(router.port) as client:
        streams = [client.request(b"") for _ in range(2)]
        await until(lambda: len(slow.requests) == 1)
        router.dispatcher.apply(router.table(without=(0,)))
        assert list(router.dispatcher.retired) == ["m-0.1"]
        slow.requests[0].answer(b"late")
        assert [(await client.finished(stream))[0] for stream in streams] == [0, 0]
        await until(lambda: slow.connections == [])
        router.dispatcher.apply(router.table(without=(0,)))
        assert router.dispatcher.retired == {}


async def test_calls_wait_for_a_first_connection_instead_of_failing() -> None:
    replica = ScriptedReplica()
    await replica.start()
    router = Router([replica])
    loop = asyncio.get_running_loop()
    from tritonfleet.router.client import ClientConnection

    router.dispatcher.awaits_table = True
    router.server = await loop.create_server(lambda: ClientConnection(router.dispatcher), "127.0.0.1", 0)
    router.port = router.server.sockets[0].getsockname()[1]
    try:
        pending = asyncio.create_task(call(router.port))
        await until(lambda: router.dispatcher.requests_total == 1)
        assert not pending.done()
        router.dispatcher.apply(router.table())
        assert await pending == b"hello"
    finally:
        await router.stop()
        await replica.stop()


async def test_without_a_controller_a_fresh_router_says_so() -> None:
    async with router_of(ScriptedReplica()) as router:
        router.dispatcher.table = None
        router.dispatcher.replicas.clear()
        router.dispatcher._candidates.clear()
        with pytest.raises(grpc.aio.AioRpcError, match="not yet heard from its controller"):
            await call(router.port)


# ---------------------------------------------------------------- counting


async def test_telemetry_tells_what_happened() -> None:
    replica = ScriptedReplica(lambda r: r.answer(b"") if r.body[5:] != b"hang" else None)
    async with router_of(replica) as router, raw_client(router.port) as client:
        for _ in range(5):
            await client.finished(client.request(b""))
        hanging = client.request(b"hang")
        await until(lambda: len(replica.requests) == 6)
        report = telemetry(router.dispatcher, worker=3, pid=42, started_at=1.0)
        assert (report.worker, report.pid, report.requests_total, report.client_connections) == (3, 42, 6, 1)
        (seen,) = report.replicas
        assert (seen.instance, seen.in_flight, seen.streams, seen.connections, seen.reachable) == (
            "m-0.1",
            1,
            0,
            1,
            True,
        )
        assert seen.oldest_in_flight_s > 0
        (calls,) = report.calls
        assert (calls.codes, sum(calls.latency.values()), calls.in_flight) == ({"0": 5}, 5, 1)
        assert calls.latency_sum_s > 0
        client.h2.reset_stream(hanging, ErrorCode.CANCEL)
        client.flush()


async def test_a_client_that_breaks_the_protocol_is_told_and_only_it_is_cut_off() -> None:
    async with router_of(ScriptedReplica()) as router, raw_client(router.port) as other:
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        assert b"this is not HTTP/2" in answer
        writer.close()
        await writer.wait_closed()
        assert (await other.finished(other.request(b"")))[0] == 0


def test_the_raw_client_is_what_it_says() -> None:
    assert RawClient().h2.config.client_side

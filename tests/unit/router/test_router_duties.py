"""What gRPC asks of a proxy, duty by duty: docs/conformance.md lists them with these tests."""

import gzip
import zlib
from functools import partial

import grpc
import h2.events
import h2.settings
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
from test_router_failures import INFER
from test_router_peek import infer

from tritonfleet.core.limits import RouterLimits
from tritonfleet.http2.fields import Fields
from tritonfleet.http2.frames import ErrorCode
from tritonfleet.router import watchdog
from tritonfleet.router.grpc import parse_timeout, request_info, with_timeout

Reset = h2.events.StreamReset


def nothing(_request: Request) -> None:
    """A replica that works on and on."""


def begin(request: Request) -> None:
    """Only the response's headers."""
    request.connection.h2.send_headers(request.stream, OK)
    request.connection.flush()


def resets_of(replica: ScriptedReplica) -> list[int]:
    return [event.error_code for event in replica.seen if isinstance(event, Reset)]


async def windows_are_whole(router: Router, client: RawClient) -> None:
    """Nothing is held, and both sides of the router may receive as much as at first."""
    clients = router.dispatcher.clients
    await until(lambda: router.in_flight() == 0 and not any(one.streams for one in clients))
    replicas = [c for r in router.dispatcher.replicas.values() for c in r.connections]
    for one in (*clients, *replicas):
        assert one.receive_room + one.drained == one.connection_window, one
        assert one.queued_bytes == 0
        assert not one.blocked
    await until(lambda: client.h2.outbound_flow_control_window in {one.receive_room for one in clients})
    assert router.dispatcher.held.total == 0
    assert router.dispatcher.kept_bytes == 0


# ---------------------------------------------------------------- trailers


@pytest.mark.parametrize(
    "total", [k * 16_384 + d for k in (1, 2, 3, 4) for d in (-1, 0, 1)] + [65_534, 65_535]
)
async def test_trailers_follow_an_answer_of_any_size(total: int) -> None:
    """Frames of 16384 bytes and a window of 65535 end exactly at, before and after the answer's end."""
    async with (
        router_of(ScriptedReplica(lambda r: r.answer(bytes(total - 5)))) as router,
        raw_client(router.port) as client,
    ):
        stream = client.request(b"")
        assert await client.finished(stream) == (0, "")
        assert len(client.body(stream)) == total
        await until(lambda: bool(client.of(h2.events.StreamEnded, stream)))
        await windows_are_whole(router, client)


async def test_trailers_leave_at_a_window_of_exactly_0() -> None:
    async with (
        router_of(ScriptedReplica(lambda r: r.answer(bytes(65_530)))) as router,
        raw_client(router.port) as client,
    ):
        client.credits = False  # the answer takes all of the stream's and the connection's window
        stream = client.request(b"")
        assert await client.finished(stream) == (0, "")
        assert len(client.body(stream)) == 65_535
        assert client.h2.inbound_flow_control_window == 0


@pytest.mark.parametrize("code", [code for code in ErrorCode if code is not ErrorCode.REFUSED_STREAM])
async def test_a_reset_of_the_replicas_keeps_its_code(code: ErrorCode) -> None:
    async with (
        router_of(ScriptedReplica(lambda r: r.reset(code))) as router,
        raw_client(router.port) as client,
    ):
        stream = client.request(b"")
        await until(lambda: bool(client.of(Reset, stream)))
        assert client.of(Reset, stream)[0].error_code == code
        await windows_are_whole(router, client)


# ---------------------------------------------------------------- deadlines


async def _asked(router: Router, client: RawClient) -> int:
    stream = client.request(infer()[5:], path=INFER)
    await until(lambda: len(router.scripted[0].requests) == 1)
    return stream


async def _in_the_models_queue(router: Router, client: RawClient) -> int:
    router.slots = {"m": 1}
    router.dispatcher.apply(router.table())
    await _asked(router, client)
    stream = client.request(infer(size=10_000)[5:], path=INFER)
    await until(lambda: router.dispatcher.work.queued == 1)
    return stream


async def _for_room_on_a_connection(router: Router, client: RawClient) -> int:
    (connection,) = router.dispatcher.replicas["m-0.1"].connections
    connection.peer_max_streams = 0
    stream = client.request(infer(size=10_000)[5:], path=INFER)
    await until(lambda: router.dispatcher.waiting_count == 1)
    return stream


async def _answering(router: Router, client: RawClient) -> int:
    router.scripted[0].on_request = begin
    stream = client.request(infer()[5:], path=INFER)
    await until(lambda: bool(client.of(h2.events.ResponseReceived, stream)))
    return stream


@pytest.mark.parametrize(
    "given",
    [b"99999999H", b"1H", b"99999999M", b"2M", b"99999999S", b"5S", b"99999999m", b"100m", b"7u", b"9n"],
)
@pytest.mark.parametrize("share", [1.0, 0.5, 0.001])
def test_the_time_that_is_left_can_be_said(given: bytes, share: float) -> None:
    """At most 8 digits, never more than the client gave (but for the smallest unit that is used)."""
    fields = Fields(((b":path", b"/x.Y/Z"), (b"grpc-timeout", given), (b"x", b"y")))
    whole = request_info(fields).timeout_s
    assert whole is not None
    block = with_timeout(fields, whole * share)
    said = block[block.index(b"grpc-timeout") + 13 :]
    said = said[: block[block.index(b"grpc-timeout") + 12]]
    assert len(said) <= 9
    left = parse_timeout(said)
    assert left is not None
    assert left <= max(whole * share, 1e-6)
    assert left >= min(whole * share * 0.99, 99_999_999) or share * whole < 1e-4


@pytest.mark.parametrize("state", [_asked, _answering, _in_the_models_queue, _for_room_on_a_connection])
async def test_a_deadline_is_enforced_in_any_state(state, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a client that does not enforce it; whoever waits is told by the queue's own clock."""
    async with router_of(ScriptedReplica(nothing)) as router, raw_client(router.port) as client:
        monkeypatch.setattr(client, "request", partial(client.request, **{"grpc-timeout": "5S"}))
        stream = await state(router, client)
        watchdog.look(router.dispatcher, router.dispatcher.loop.time() + 4)
        assert client.status(stream) is None
        watchdog.look(router.dispatcher, router.dispatcher.loop.time() + 7)
        status, words = await client.finished(stream)
        assert (status, "deadline" in words) == (4, True)
        await until(lambda: router.in_flight() == 0)


# ---------------------------------------------------------------- executed once


async def test_a_burst_during_which_replicas_refuse_and_leave_is_executed_once() -> None:
    """200 calls; one replica refuses every third, another says GOAWAY in the middle of them."""
    executed: list[bytes] = []
    seen = {"refusing": 0, "leaving": 0}

    def execute(request: Request) -> None:
        executed.append(bytes(request.body))
        request.answer(b"")

    def refusing(request: Request) -> None:
        seen["refusing"] += 1
        request.reset(ErrorCode.REFUSED_STREAM) if seen["refusing"] % 3 == 0 else execute(request)

    def leaving(request: Request) -> None:
        seen["leaving"] += 1
        if seen["leaving"] == 20:  # of this connection: what came before was answered, this and later is not
            request.connection.h2.close_connection(last_stream_id=request.stream - 2)
            request.connection.flush()
        elif seen["leaving"] < 20:
            execute(request)

    replicas = ScriptedReplica(refusing), ScriptedReplica(leaving), ScriptedReplica(execute)
    async with router_of(*replicas) as router, raw_client(router.port) as client:
        bodies = [infer(number + 1, start=True, end=True) for number in range(200)]
        streams = [client.request(body[5:], path="/x.Y/Z") for body in bodies]
        for stream in streams:
            assert (await client.finished(stream))[0] == 0
        assert sorted(executed) == sorted(bodies)
        assert router.dispatcher.retries_total > 10
        assert seen["leaving"] >= 20


# ---------------------------------------------------------------- verbatim


@pytest.mark.parametrize(
    ("http", "code"),
    [
        (400, grpc.StatusCode.INTERNAL), (401, grpc.StatusCode.UNAUTHENTICATED),
        (403, grpc.StatusCode.PERMISSION_DENIED), (404, grpc.StatusCode.UNIMPLEMENTED),
        (429, grpc.StatusCode.UNAVAILABLE), (502, grpc.StatusCode.UNAVAILABLE),
        (503, grpc.StatusCode.UNAVAILABLE), (504, grpc.StatusCode.UNAVAILABLE),
        (500, grpc.StatusCode.UNKNOWN), (418, grpc.StatusCode.UNKNOWN),
    ],
)  # fmt: skip
async def test_a_response_without_a_grpc_status(http: int, code: grpc.StatusCode) -> None:
    """It passes as it is, so a gRPC client makes of it what it always does; the router counts the same."""

    def answer(request: Request) -> None:
        fields = [(":status", str(http)), ("content-type", "text/plain")]
        request.connection.h2.send_headers(request.stream, fields, end_stream=True)
        request.connection.flush()

    async with router_of(ScriptedReplica(answer)) as router:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{router.port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/x.Y/Z")(b"")
        assert caught.value.code() is code
        (stats,) = router.dispatcher.replicas["m-0.1"].stats.values()
        assert stats.codes == {code.value[0]: 1}


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("snappy", bytes)]
)
@pytest.mark.parametrize("size", [10, 200_000])
async def test_compressed_messages_pass_byte_by_byte(encoding: str, compress, size: int) -> None:
    packed = compress(infer(size=size)[5:])
    sent = b"\1" + len(packed).to_bytes(4, "big") + packed

    def echo(request: Request) -> None:
        request.connection.h2.send_headers(request.stream, [*OK, ("grpc-encoding", encoding)])
        request.connection.send_body(request.stream, bytes(request.body), [("grpc-status", "0")])

    async with router_of(ScriptedReplica(echo)) as router, raw_client(router.port) as client:
        stream = client.request(
            None, path=INFER, **{"grpc-encoding": encoding, "grpc-accept-encoding": "gzip"}
        )
        client.send_all(stream, sent)
        assert await client.finished(stream) == (0, "")
        (request,) = router.scripted[0].requests
        assert bytes(request.body) == sent
        assert client.body(stream) == sent
        assert {name: request.headers[name] for name in ("te", "grpc-encoding", "grpc-accept-encoding")} == {
            "te": "trailers", "grpc-encoding": encoding, "grpc-accept-encoding": "gzip",
        }  # fmt: skip
        answered = dict(client.of(h2.events.ResponseReceived, stream)[0].headers)
        assert answered["grpc-encoding"] == encoding


# ---------------------------------------------------------------- keepalive


@pytest.mark.parametrize(
    ("pings", "calls", "passed_s", "lives"),
    [(9, 0, 0, True), (12, 0, 0, False), (9 + 18, 2, 0, True), (12 + 20, 2, 0, False), (9 + 9, 0, 5, True)],
)
async def test_pings_are_counted_and_calls_and_time_earn_more(
    pings: int, calls: int, passed_s: int, lives: bool
) -> None:
    few = RouterLimits(control_frames=10, control_frames_per_second=2)
    async with router_of(ScriptedReplica(), limits=few) as router, raw_client(router.port) as client:
        await until(lambda: bool(client.of(h2.events.SettingsAcknowledged)))
        (connection,) = router.dispatcher.clients
        bucket = connection._control_frames
        bucket._tokens, bucket._burst, bucket._per_s = 10.0, 1000.0, 0.0  # the clock stands still
        for _ in range(calls):
            await client.finished(client.request(b""))
        bucket._tokens += 2.0 * passed_s
        for number in range(pings):
            client.h2.ping(number.to_bytes(8, "big"))
        client.flush()
        if lives:
            await until(lambda: len(client.of(h2.events.PingAckReceived)) == pings)
            assert not client.of(h2.events.ConnectionTerminated)
        else:
            await until(lambda: bool(client.of(h2.events.ConnectionTerminated)))
            (end,) = client.of(h2.events.ConnectionTerminated)
            assert (end.error_code, end.additional_data) == (ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")


@pytest.mark.parametrize("replicas", [1, 2])
async def test_an_inference_that_is_silent_for_ten_minutes_survives(replicas: int) -> None:
    """By the router's clock. It pings no replica: Triton hangs up on more than one in five minutes."""
    quiet = [ScriptedReplica(nothing) for _ in range(replicas)]
    async with router_of(*quiet) as router, raw_client(router.port) as client:
        streams = [client.request(infer()[5:], path=INFER) for _ in range(replicas)]
        await until(lambda: all(len(one.requests) == 1 for one in quiet))
        now = router.dispatcher.loop.time()
        for replica in router.dispatcher.replicas.values():
            for connection in replica.connections:
                for leg in connection.streams.values():
                    leg.started -= 600
        for second in range(600):
            watchdog.look(router.dispatcher, now + second)
        for one in quiet:
            one.requests[0].answer(b"late")
        for stream in streams:
            assert await client.finished(stream) == (0, "")
        for one in quiet:
            assert not [e for e in one.seen if isinstance(e, h2.events.PingReceived | Reset)]
        assert not client.of(Reset)


# ---------------------------------------------------------------- streams and windows


async def test_a_replica_that_takes_one_stream_from_now_on() -> None:
    """MAX_CONCURRENT_STREAMS falls to 1 while 10 run: they go on, the others wait, nobody fails."""
    running: list[Request] = []
    most = 0

    def start(request: Request) -> None:
        nonlocal most
        running.append(request)
        if len(running) > 10 or request.stream > 20:
            most = max(most, len(running))

    replica = ScriptedReplica(nothing)
    replica.on_start = start
    async with router_of(replica) as router, raw_client(router.port) as client:
        first = [client.request(b"") for _ in range(10)]
        await until(lambda: len(replica.requests) == 10)
        (protocol,) = replica.connections
        protocol.h2.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        protocol.flush()
        (connection,) = router.dispatcher.replicas["m-0.1"].connections
        await until(lambda: connection.peer_max_streams == 1)
        later = [client.request(b"") for _ in range(20)]
        await until(lambda: router.dispatcher.waiting_count == 20)
        assert len(running) == 10

        def answer(request: Request) -> None:
            running.remove(request)
            request.answer(b"")

        replica.on_request = answer
        for request in list(replica.requests):
            answer(request)
        for stream in (*first, *later):
            assert await client.finished(stream) == (0, "")
        assert most == 1
        await windows_are_whole(router, client)


async def test_one_stalled_stream_among_a_hundred_stalls_no_other() -> None:
    size = 100_000  # more than a stream's window
    replica = ScriptedReplica(lambda r: r.answer(bytes(size)))
    async with router_of(replica) as router, raw_client(router.port) as client:
        client.credits = False
        client.h2.increment_flow_control_window(1 << 28)  # the connection's: it is the stream that stalls
        stalled = client.request(b"")
        await until(lambda: len(client.body(stalled)) == 65_535)
        client.credits = True
        streams = [client.request(b"") for _ in range(99)]
        for stream in streams:
            assert await client.finished(stream) == (0, "")
        assert client.status(stalled) is None
        client.h2.increment_flow_control_window(size, stalled)
        client.flush()
        assert await client.finished(stalled) == (0, "")
        assert len(client.body(stalled)) == size + 5
        await windows_are_whole(router, client)


async def test_data_of_calls_that_are_over_is_credited() -> None:
    """A client that goes on sending what nobody wants any more keeps its window for what somebody does."""
    async with router_of(ScriptedReplica()) as router, raw_client(router.port) as client:

        def refuse(request: Request) -> None:
            request.connection.h2.send_headers(request.stream, [*OK, ("grpc-status", "3")], end_stream=True)

        router.scripted[0].on_start = refuse
        for _ in range(40):
            stream = client.request(None, path=INFER)
            client.send_all(stream, infer(size=200_000))
            await client.finished(stream)
            client.unsent.pop(stream, None)
        await until(lambda: router.in_flight() == 0)
        router.scripted[0].on_start = lambda _request: None
        stream = client.request(None, path=INFER)
        body = message(infer(size=3_000_000)[5:])
        client.send_all(stream, body)
        assert await client.finished(stream) == (0, "")
        assert client.body(stream) == body

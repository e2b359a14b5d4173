"""RPCs that speak of the whole fleet, at the router: what it answers itself, what it hands on."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import msgspec
import pytest
from router_parts import Router, ScriptedReplica, raw_client, router_of, until
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tritonclient.grpc import service_pb2

from tritonfleet.controller.api import ControlServer
from tritonfleet.core.wire import RpcAnswer, RpcRequest
from tritonfleet.router.grpc import parse_timeout
from tritonfleet.router.management import Management
from tritonfleet.router.own import (
    MESSAGE_LIMIT,
    MOST_ASKED,
    FleetAnswers,
    MessageError,
    lone_string,
    message_of,
)

SERVICE = "/inference.GRPCInferenceService/"


def headers_of(path: str) -> list[tuple[str, str]]:
    """A gRPC request's."""
    pseudo = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]
    return [*pseudo, ("content-type", "application/grpc"), ("te", "trailers")]


class Controller:
    """The control socket's one route; ``answer`` is a test's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[RpcRequest] = []
        self.answer: Callable[[RpcRequest], RpcAnswer] = lambda _request: RpcAnswer(0, "", b"from the fleet")
        self.held = ""  # RPC whose answers wait ...
        self.released = asyncio.Event()  # ... for this

    async def rpc(self, request: Request) -> Response:
        asked = msgspec.json.decode(await request.body(), type=RpcRequest)
        self.asked.append(asked)
        if asked.path.endswith(self.held or "?"):
            await self.released.wait()
        return Response(msgspec.json.encode(self.answer(asked)))


@asynccontextmanager
async def controller_at(path: Path) -> AsyncIterator[Controller]:
    controller = Controller(path)
    app = Starlette(routes=[Route("/v1/router/rpc", controller.rpc, methods=["POST"])])
    server = ControlServer(app, path)
    serving = asyncio.create_task(server.serve())
    await until(path.exists)
    try:
        yield controller
    finally:
        server.stop()
        await serving
        server.close()


@asynccontextmanager
async def fleet_of(tmp_path: Path, *replicas: ScriptedReplica) -> AsyncIterator[tuple[Router, FleetAnswers]]:
    async with router_of(*replicas) as router:
        router.dispatcher.own = own = FleetAnswers(router.dispatcher, str(tmp_path / "control.sock"))
        try:
            yield router, own
        finally:
            await own.close()


async def unary(router: Router, rpc: str, message: bytes = b"", **more: object) -> bytes:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{router.port}") as channel:
        path = rpc if rpc.startswith("/") else SERVICE + rpc
        answer: bytes = await channel.unary_unary(path)(message, **more)  # type: ignore[arg-type]
        return answer


async def test_live_and_ready_are_known_here(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, ScriptedReplica()) as (router, _):
        assert service_pb2.ServerLiveResponse.FromString(await unary(router, "ServerLive")).live
        assert service_pb2.ServerReadyResponse.FromString(await unary(router, "ServerReady")).ready
        assert await unary(router, "/grpc.health.v1.Health/Check", b"\x0a\x04some") == b"\x08\x01"
        assert router.scripted[0].requests == []


async def test_without_a_replica_it_lives_and_is_not_ready(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, ScriptedReplica()) as (router, _):
        router.dispatcher.apply(router.table(without=(0,)))
        assert service_pb2.ServerLiveResponse.FromString(await unary(router, "ServerLive")).live
        assert not service_pb2.ServerReadyResponse.FromString(await unary(router, "ServerReady")).ready
        assert await unary(router, "/grpc.health.v1.Health/Check") == b"\x08\x02"


async def test_a_model_is_ready_if_it_is_anywhere(tmp_path: Path) -> None:
    asked = service_pb2.ModelReadyRequest(name="model").SerializeToString()
    async with fleet_of(tmp_path, ScriptedReplica(), ScriptedReplica()) as (router, _):
        router.dispatcher.apply(router.table(draining=(0,)))
        assert await unary(router, "ModelReady", asked) == b"\x08\x01"
        router.dispatcher.apply(router.table(draining=(0, 1)))
        assert await unary(router, "ModelReady", asked) == b""
        asleep = replace(router.table(draining=(0, 1)), asleep={"model": 30.0})  # a request would wake it
        router.dispatcher.apply(asleep)
        assert await unary(router, "ModelReady", asked) == b"\x08\x01"


@pytest.mark.parametrize(
    "asked",
    [
        service_pb2.ModelReadyRequest(name="model", version="1"),
        service_pb2.ModelReadyRequest(name="unknown"),
        service_pb2.ModelReadyRequest(),
    ],
)
async def test_what_the_table_does_not_say_is_the_controllers(
    tmp_path: Path, asked: service_pb2.ModelReadyRequest
) -> None:
    async with controller_at(tmp_path / "control.sock") as controller:
        controller.answer = lambda _request: RpcAnswer(3, "Triton's word: ä %")
        async with fleet_of(tmp_path, ScriptedReplica()) as (router, _):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await unary(router, "ModelReady", asked.SerializeToString())
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert refused.value.details() == "Triton's word: ä %"
        assert [request.message for request in controller.asked] == [asked.SerializeToString()]


@pytest.mark.parametrize(
    "compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate]
)
async def test_the_controller_gets_the_plain_message_and_what_replicas_insist_on(
    tmp_path: Path, compression: grpc.Compression
) -> None:
    message = b"\x0a\x00" + b"x" * 500
    metadata = (("triton-grpc-protocol-key", "secret"), ("authorization", "Bearer a"), ("x-other", "no"))
    async with (
        controller_at(tmp_path / "control.sock") as controller,
        fleet_of(tmp_path, ScriptedReplica()) as (router, _),
    ):
        answer = await unary(
            router, "RepositoryIndex", message, metadata=metadata, compression=compression, timeout=30
        )
        assert answer == b"from the fleet"
        (asked,) = controller.asked
        assert asked.path == SERVICE + "RepositoryIndex"
        assert asked.message == message
        assert asked.metadata == {"triton-grpc-protocol-key": "secret", "authorization": "Bearer a"}
        assert asked.timeout_s is not None
        assert 20 < asked.timeout_s <= 31  # gRPC's clients round up what is left


@pytest.mark.parametrize("rpc", ["RepositoryModelLoad", "SystemSharedMemoryUnregister", "LogSettings"])
async def test_who_may_not_change_the_servers_is_told_which_key_says_so(tmp_path: Path, rpc: str) -> None:
    async with (
        controller_at(tmp_path / "control.sock") as controller,
        fleet_of(tmp_path, ScriptedReplica()) as (router, own),
    ):
        own._management = Management(["10.0.0.0/8"])
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await unary(router, rpc, b"\x0a\x01m")
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert f"{rpc} changes the servers, which 127.0.0.1 may not: router.management" in str(
            refused.value.details()
        )
        assert controller.asked == []
        assert await unary(router, "RepositoryIndex") == b"from the fleet"
        own._management = Management()
        assert await unary(router, rpc, b"\x0a\x01m") == b"from the fleet"


async def test_without_a_controller_it_says_what_is_needed_and_comes_back_with_one(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, ScriptedReplica()) as (router, _):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await unary(router, "RepositoryModelLoad")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "RepositoryModelLoad speaks of the whole fleet and needs its controller" in str(
            refused.value.details()
        )
        assert "tritonfleet up" in str(refused.value.details())
        async with controller_at(tmp_path / "control.sock"):
            assert await unary(router, "RepositoryModelLoad") == b"from the fleet"
        with pytest.raises(grpc.aio.AioRpcError):
            await unary(router, "RepositoryModelLoad")


async def test_a_cancelled_call_is_left_alone(tmp_path: Path) -> None:
    async with (
        controller_at(tmp_path / "control.sock") as controller,
        fleet_of(tmp_path, ScriptedReplica()) as (router, own),
        raw_client(router.port) as client,
    ):
        stream = client.request(b"", path=SERVICE + "RepositoryIndex")
        await until(lambda: bool(own._asking))
        client.h2.reset_stream(stream, 8)
        client.flush()
        await until(lambda: bool(controller.asked) and not own._asking)
        other = client.request(b"", path=SERVICE + "ServerLive")
        assert await client.finished(other) == (0, "")
        assert client.body(stream) == b""


async def test_who_asks_much_at_once_waits_for_its_own_answers_only(tmp_path: Path) -> None:
    """A client whose questions a replica is slow to answer, more of them than the router asks at a time."""
    async with (
        fleet_of(tmp_path, ScriptedReplica()) as (router, own),
        controller_at(tmp_path / "control.sock") as there,
    ):
        there.held = "ModelStatistics"
        alone = [("grpc.use_local_subchannel_pool", 1)]  # a connection that nobody shares
        async with grpc.aio.insecure_channel(f"127.0.0.1:{router.port}", alone) as channel:
            asking = [channel.unary_unary(SERVICE + "ModelStatistics")(b"%d" % at) for at in range(200)]
            slow = [asyncio.ensure_future(_answer_of(one)) for one in asking]
            await until(lambda: len(there.asked) == MOST_ASKED)
            first = {int(one.message) for one in there.asked}
            for _ in range(3):
                assert await unary(router, "RepositoryIndex", timeout=30) == b"from the fleet"
            for one in asking[150:]:
                one.cancel()
            await until(lambda: sum(call.done for call in own._asking.values()) == 50)
            there.released.set()
            assert await asyncio.gather(*slow[:150]) == [b"from the fleet"] * 150
            await asyncio.gather(*slow[150:], return_exceptions=True)
    asked = {int(one.message) for one in there.asked if one.message}
    assert asked == first | set(range(150))  # none that was taken back while it waited


async def _answer_of(call: "grpc.aio.UnaryUnaryCall[bytes, bytes]") -> bytes:
    answer: bytes = await call
    return answer


def test_messages() -> None:
    def framed(flag: int, message: bytes) -> bytes:
        return bytes([flag]) + len(message).to_bytes(4, "big") + message

    assert message_of(framed(0, b"abc"), b"gzip") == b"abc"
    assert message_of(framed(1, gzip.compress(b"abc")), b"gzip") == b"abc"
    assert message_of(framed(1, zlib.compress(b"abc")), b"deflate") == b"abc"


@pytest.mark.parametrize(
    ("body", "encoding", "words"),
    [
        (b"", b"identity", "one message"),
        (b"\0\0\0\0\2x", b"identity", "one message"),
        (b"\1\0\0\0\1x", b"snappy", "'snappy' is not supported"),
        (b"\1\0\0\0\1x", b"gzip", "cut off"),
        (b"\1\0\0\0\3xyz", b"deflate", "cannot be decompressed"),
    ],
)
def test_messages_that_cannot_be_read(body: bytes, encoding: bytes, words: str) -> None:
    with pytest.raises(MessageError, match=words):
        message_of(body, encoding)


def test_a_message_that_unpacks_without_end_is_refused() -> None:
    packed = gzip.compress(bytes(MESSAGE_LIMIT + 1), 1)
    with pytest.raises(MessageError, match="decompressed"):
        message_of(b"\1" + len(packed).to_bytes(4, "big") + packed, b"gzip")


@pytest.mark.parametrize(
    ("text", "expected"),
    [(b"5S", 5.0), (b"100m", 0.1), (b"2H", 7200.0), (b"7u", 7e-6), (b"x", None), (b"", None), (b"5", None)],
)
def test_timeouts(text: bytes, expected: float | None) -> None:
    assert parse_timeout(text) == (pytest.approx(expected) if expected is not None else None)


def test_a_lone_name() -> None:
    assert lone_string(service_pb2.ModelReadyRequest(name="digits").SerializeToString()) == "digits"
    assert lone_string(service_pb2.ModelReadyRequest(name="d", version="1").SerializeToString()) == ""
    assert lone_string(service_pb2.ModelReadyRequest(version="1").SerializeToString()) == ""
    assert lone_string(b"\x0a\x02\xff\xff") == ""
    assert lone_string(b"") == ""


async def test_a_secret_in_the_metadata_allows_changes_and_is_not_passed_on(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("open sesame\n")
    async with (
        controller_at(tmp_path / "control.sock") as controller,
        fleet_of(tmp_path, ScriptedReplica()) as (router, own),
    ):
        own._management = Management([f"token:{secret}"])

        async def load(**metadata: str) -> bytes:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{router.port}") as channel:
                rpc = channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")
                answer: bytes = await rpc(b"\x12\x01m", metadata=tuple(metadata.items()))
                return answer

        for wrong in ({}, {"authorization": "Bearer sesame"}, {"authorization": "open sesame"}):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await load(**wrong)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert ("127.0.0.1 with that token may not" in str(refused.value.details())) is bool(wrong)
            assert ("127.0.0.1 with that token may not" in str(refused.value.details())) is bool(wrong)
        assert await load(authorization="Bearer open sesame") == b"from the fleet"
        assert controller.asked[-1].metadata == {}
        secret.write_text("")
        with pytest.raises(grpc.aio.AioRpcError):
            await load(authorization="Bearer ")
        secret.unlink()
        with pytest.raises(grpc.aio.AioRpcError):
            await load(authorization="Bearer open sesame")
        own._management = Management()
        await load(authorization="Bearer the servers' own")
        assert controller.asked[-1].metadata == {"authorization": "Bearer the servers' own"}


@pytest.mark.parametrize("rpc", ["TraceSetting", "LogSettings", "RepositoryModelLoad", "ModelReady"])
@pytest.mark.parametrize("body", [None, b"", b"\0", b"\0\0\0\0\1", b"\1\0\0\0\0\0"])
async def test_a_request_that_is_no_message_is_refused_in_words(
    tmp_path: Path, rpc: str, body: bytes | None
) -> None:
    """``None``: its headers are all of it."""
    async with fleet_of(tmp_path, ScriptedReplica()) as (router, _), raw_client(router.port) as client:
        if body is None:
            stream = client.h2.get_next_available_stream_id()
            client.h2.send_headers(stream, headers_of(SERVICE + rpc), end_stream=True)
        else:
            stream = client.request(None, path=SERVICE + rpc)
            client.h2.send_data(stream, body, end_stream=True)
        client.flush()
        status, words = await client.finished(stream)
        assert (status, "a unary request has one message" in words) == (13, True)
        assert len(router.dispatcher.clients) == 1
        assert router.scripted[0].requests == []

"""Requests that not every replica of their model can serve: of a version, or with shared-memory regions."""

import gzip
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from router_parts import Request, Router, ScriptedReplica, raw_client, router_of, until
from tritonclient.grpc import service_pb2

from tritonfleet.core.wire import RouterSettings
from tritonfleet.router import peek
from tritonfleet.router.grpc import peek_model

SERVICE = "/inference.GRPCInferenceService/"
INFER = SERVICE + "ModelInfer"
KNOWN = ("cuda", "sys")


def framed(message: Any) -> bytes:
    body = message.SerializeToString()
    return b"\0" + len(body).to_bytes(4, "big") + body


def infer(
    version: str = "", *, inputs: Sequence[str] = (), outputs: Sequence[str] = (), size: int = 8, tag: int = 0
) -> bytes:
    """A ModelInferRequest, without its prefix; ``inputs`` and ``outputs`` name regions."""
    request = service_pb2.ModelInferRequest(model_name="model", model_version=version, id=str(tag))
    for tensors, regions in ((request.inputs, inputs), (request.outputs, outputs)):
        for region in regions:
            parameters = tensors.add(name="tensor").parameters
            parameters["shared_memory_byte_size"].int64_param = 100
            parameters["shared_memory_region"].string_param = region
    request.inputs.add(name="INPUT", datatype="UINT8", shape=[size])
    request.raw_input_contents.append(bytes(size))
    return request.SerializeToString()


def nothing(_request: Request) -> None:
    """A replica that works on and on."""


# ---------------------------------------------------------------- what is peeked


@pytest.mark.parametrize(
    "build",
    [
        service_pb2.ModelMetadataRequest,
        service_pb2.ModelConfigRequest,
        service_pb2.ModelReadyRequest,
        service_pb2.ModelStatisticsRequest,
        lambda name, version: service_pb2.ModelInferRequest(model_name=name, model_version=version, id="x"),
    ],
)
@pytest.mark.parametrize("name", ["m", "é" * 20, "m" * 127, "m" * 128, "m" * 255])
@pytest.mark.parametrize("version", ["", "1", "12345678901234567890", "x"])
def test_the_version_is_peeked_from_real_messages(build: Callable[..., Any], name: str, version: str) -> None:
    data = framed(build(name=name, version=version))
    assert (peek_model(data), peek.peek_version(data)) == (name, version)
    assert peek.peek_version(memoryview(data)) == version


@given(st.binary(max_size=40))
def test_bytes_that_are_no_message_name_no_version_beyond_them(data: bytes) -> None:
    assert len(peek.peek_version(data)) <= len(data)
    assert peek.peek_regions(data, KNOWN) == ()


@pytest.mark.parametrize("cut", range(5, 12))
def test_what_is_cut_off_or_belongs_to_the_next_message_is_no_version(cut: int) -> None:
    whole = framed(service_pb2.ModelMetadataRequest(name="m", version="12"))
    assert peek.peek_version(whole[:cut]) == ""
    alone = framed(service_pb2.ModelMetadataRequest(name="m"))
    assert peek.peek_version(alone + b"\x12\x011") == ""


def test_regions_are_found_in_inputs_and_outputs_and_only_those_that_matter() -> None:
    def found(*inputs: str, outputs: Sequence[str] = ()) -> tuple[str, ...]:
        message = infer("1", inputs=inputs, outputs=outputs)
        return peek.peek_regions(b"\0" + len(message).to_bytes(4, "big") + message, KNOWN)

    assert found("cuda") == ("cuda",)
    assert found("other", outputs=["cuda"]) == ("cuda",)
    assert found("sys", outputs=["cuda", "cuda"]) == ("cuda", "sys")
    assert found("other") == found() == ()


def test_a_compressed_message_names_its_regions_too() -> None:
    message = gzip.compress(infer(inputs=["cuda"], size=100_000))
    data = peek.plain(b"\1" + len(message).to_bytes(4, "big") + message)
    assert peek.peek_regions(data, KNOWN) == ("cuda",)


# ---------------------------------------------------------------- where they go


def versions_of(router: Router, *versions: tuple[str, ...]) -> None:
    table = router.table()
    rows = tuple(
        replace(row, versions={"model": known}) for row, known in zip(table.replicas, versions, strict=True)
    )
    router.dispatcher.apply(replace(table, replicas=rows))


async def test_a_request_goes_where_its_version_is_ready() -> None:
    async with router_of(ScriptedReplica(), ScriptedReplica()) as router, raw_client(router.port) as client:
        old, new = router.scripted
        versions_of(router, ("1",), ("1", "2"))
        for _ in range(6):
            await client.finished(client.request(infer("2"), path=INFER))
        assert (len(old.requests), len(new.requests)) == (0, 6)
        for version in ("", "1"):
            for _ in range(6):
                await client.finished(client.request(infer(version), path=INFER))
        assert (len(old.requests), len(new.requests)) == (6, 12)
        about = service_pb2.ModelMetadataRequest(name="model", version="2").SerializeToString()
        for _ in range(4):
            await client.finished(client.request(about, path=SERVICE + "ModelMetadata"))
        assert (len(old.requests), len(new.requests)) == (6, 16)


async def test_a_version_nobody_has_goes_to_any_for_tritons_own_error() -> None:
    async with router_of(ScriptedReplica(), ScriptedReplica()) as router, raw_client(router.port) as client:
        versions_of(router, ("1",), ("1",))
        for _ in range(6):
            await client.finished(client.request(infer("9"), path=INFER))
        assert sum(len(replica.requests) for replica in router.scripted) == 6


async def test_a_version_whose_only_replica_is_away_is_not_asked_of_another() -> None:
    async with router_of(ScriptedReplica(), ScriptedReplica()) as router, raw_client(router.port) as client:
        versions_of(router, ("1",), ("1", "2"))
        router.scripted[1].hang_up()
        await until(lambda: not router.dispatcher.replicas["m-1.1"].available)
        status, text = await client.finished(client.request(infer("2"), path=INFER))
        assert (status, "no replica can take model 'model' version '2'" in text) == (14, True)
        assert router.scripted[0].requests == []


async def test_a_waiting_version_holds_up_nobody_and_is_not_passed_by() -> None:
    """The one replica that has version 2 is full: whoever wants any version goes on with the other one."""
    old, new = ScriptedReplica(nothing), ScriptedReplica(nothing)
    async with router_of(old, new, slots={"model": 1}) as router, raw_client(router.port) as client:
        versions_of(router, ("1",), ("1", "2"))
        streams = [client.request(infer("2", tag=0), path=INFER)]
        await until(lambda: len(new.requests) == 1)
        streams += [client.request(infer("2", tag=1), path=INFER), client.request(infer(tag=2), path=INFER)]
        await until(lambda: len(old.requests) == 1 and router.dispatcher.waiting_count == 1)
        streams += [client.request(infer(tag=3), path=INFER)]
        await until(lambda: router.dispatcher.waiting_count == 2)
        new.requests[0].answer(b"")  # both could go there: the one that came first does
        await until(lambda: len(new.requests) == 2)
        old.requests[0].answer(b"")
        await until(lambda: len(old.requests) == 2)
        assert router.dispatcher.work.of("model").queues.keys() <= {None}
        for request in (new.requests[1], old.requests[1]):
            request.answer(b"")
        assert Counter([(await client.finished(stream))[0] for stream in streams]) == {0: 4}
        tags = [
            service_pb2.ModelInferRequest.FromString(bytes(request.body[5:])).id
            for request in (*new.requests, *old.requests)
        ]
        assert tags == ["0", "1", "2", "3"]


async def test_a_full_queue_tells_of_all_that_wait_for_the_model() -> None:
    """Two wait for any version: there is no room for one that wants version 2, in a queue of its own."""
    old, new = ScriptedReplica(nothing), ScriptedReplica(nothing)
    async with router_of(old, new, slots={"model": 1}) as router, raw_client(router.port) as client:
        router.settings = RouterSettings(max_requests=2)
        versions_of(router, ("1",), ("1", "2"))
        streams = [client.request(infer(tag=tag), path=INFER) for tag in range(4)]
        await until(lambda: router.dispatcher.waiting_count == 2)
        status, text = await client.finished(client.request(infer("2"), path=INFER))
        assert (status, "the router's queue is full, 2 requests wait" in text) == (8, True), text
        for replica in (old, new):
            replica.on_request = lambda request: request.answer(b"")
        for replica in (old, new):
            replica.requests[0].answer(b"")
        for stream in streams:
            assert await client.finished(stream) == (0, "")


async def test_a_region_s_requests_go_where_it_is_registered() -> None:
    async with (
        router_of(ScriptedReplica(), ScriptedReplica(), ScriptedReplica()) as router,
        raw_client(router.port) as client,
    ):
        router.dispatcher.apply(
            replace(router.table(), regions={"cuda": ("m-2.1",), "sys": ("m-1.1", "m-2.1")})
        )
        first, second, third = router.scripted
        for _ in range(4):
            await client.finished(client.request(infer(outputs=["cuda"]), path=INFER))
        assert (len(first.requests), len(second.requests), len(third.requests)) == (0, 0, 4)
        for _ in range(4):
            await client.finished(client.request(infer(inputs=["sys"]), path=INFER))
        assert (len(first.requests), len(second.requests), len(third.requests)) == (0, 2, 6)
        for _ in range(4):
            await client.finished(client.request(infer(inputs=["sys"], outputs=["cuda"]), path=INFER))
        assert len(third.requests) == 10
        for _ in range(6):
            await client.finished(client.request(infer(inputs=["everywhere"]), path=INFER))
        assert len(first.requests) == 2


async def test_a_stream_goes_where_its_first_message_s_region_is() -> None:
    async with router_of(ScriptedReplica(), ScriptedReplica()) as router, raw_client(router.port) as client:
        router.dispatcher.apply(replace(router.table(), regions={"cuda": ("m-1.1",)}))
        for _ in range(4):
            await client.finished(client.request(infer(inputs=["cuda"]), path=SERVICE + "ModelStreamInfer"))
        assert [len(replica.requests) for replica in router.scripted] == [0, 4]

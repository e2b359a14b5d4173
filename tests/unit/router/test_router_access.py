"""The access log: a line for every way a call can end, and a disk that does not keep up."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from otlp_collector import Collector
from router_parts import RawClient, Request, Router, ScriptedReplica, raw_client, router_of, until
from tritonclient.grpc import service_pb2 as pb

from tritonfleet.core.limits import RouterLimits
from tritonfleet.http2.frames import ErrorCode
from tritonfleet.router import access
from tritonfleet.router.access import AccessLog, Line, dispatcher_with, inference_id
from tritonfleet.router.dispatch import Dispatcher
from tritonfleet.router.replica import ReplicaConnection
from tritonfleet.router.traces import TraceExport, continued

INFER = "/inference.GRPCInferenceService/ModelInfer"


def inference(**more: Any) -> bytes:
    return bytes(
        pb.ModelInferRequest(model_name="model", raw_input_contents=[b"x" * 50], **more).SerializeToString()
    )


@asynccontextmanager
async def logged(
    path: Path,
    *replicas: ScriptedReplica,
    sample: float = 1.0,
    traces: TraceExport | None = None,
    monkeypatch: pytest.MonkeyPatch,
    **more: Any,
) -> AsyncIterator[tuple[Router, RawClient]]:
    """A router with an access log in ``path``, which is written in full afterwards."""
    log = AccessLog(str(path), sample)

    def dispatcher(connections_per_replica: int, limits: RouterLimits) -> Dispatcher:
        return dispatcher_with(log, traces)(connections_per_replica, 1, limits)

    monkeypatch.setattr("router_parts.Dispatcher", dispatcher)
    try:
        async with router_of(*replicas, **more) as router, raw_client(router.port) as client:
            yield router, client
            assert router.dispatcher.entries == {}, "calls that have ended are forgotten"  # type: ignore[attr-defined] # a LoggedDispatcher
    finally:
        log.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_without_a_log_everything_is_plain() -> None:
    assert Dispatcher.replica_connection is ReplicaConnection
    assert dispatcher_with(None) is Dispatcher


async def test_an_answered_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with logged(tmp_path / "log", ScriptedReplica(), monkeypatch=monkeypatch) as (_, client):
        body = inference(id="mine")
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        headers = {"traceparent": trace, "x-request-id": "abc"}
        assert (await client.finished(client.request(body, INFER, **headers)))[0] == 0
    [line] = lines(tmp_path / "log")
    assert line.pop("duration_s") >= line.pop("queue_s", 0.0) >= 0
    assert line.pop("time").endswith("+00:00")
    assert line.pop("client").startswith("127.0.0.1:")
    assert line == {
        "method": "ModelInfer", "status": "OK", "model": "model", "replica": "m-0.1",
        "request_bytes": len(body), "response_bytes": len(body) + 5, "id": "mine", "request_id": "abc",
        "traceparent": trace,
    }  # fmt: skip


def reset(request: Request) -> None:
    request.reset(ErrorCode.INTERNAL_ERROR)


def fail(request: Request) -> None:
    request.answer(b"", trailers=[("grpc-status", "3"), ("grpc-message", "no")])


@pytest.mark.parametrize(("script", "status"), [(reset, "INTERNAL"), (fail, "INVALID_ARGUMENT")])
async def test_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Callable[[Request], None], status: str
) -> None:
    async with logged(tmp_path / "log", ScriptedReplica(script), monkeypatch=monkeypatch) as (router, client):
        client.request(inference(), INFER)
        await until(lambda: router.dispatcher.access._lines or (tmp_path / "log").stat().st_size > 0)  # type: ignore[attr-defined] # a LoggedDispatcher
    [line] = lines(tmp_path / "log")
    assert (line["status"], line["replica"]) == (status, "m-0.1")


async def test_a_call_that_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ScriptedReplica(lambda request: request.reset(ErrorCode.REFUSED_STREAM))
    second = ScriptedReplica()
    async with logged(tmp_path / "log", first, second, monkeypatch=monkeypatch) as (_, client):
        for _ in range(2):
            assert (await client.finished(client.request(inference(), INFER)))[0] == 0
    found = lines(tmp_path / "log")
    assert [line["replica"] for line in found] == ["m-1.1", "m-1.1"]
    assert sorted(line.get("retries", 0) for line in found) == [0, 1]


async def test_what_the_client_takes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = ScriptedReplica(lambda _request: None)
    async with logged(tmp_path / "log", silent, monkeypatch=monkeypatch) as (_, client):
        stream = client.request(inference(), INFER)
        await until(lambda: len(silent.requests) == 1)
        client.h2.reset_stream(stream, ErrorCode.CANCEL)
        client.flush()
        await until(lambda: any(type(event).__name__ == "StreamReset" for event in silent.seen))
    [line] = lines(tmp_path / "log")
    assert (line["status"], line["replica"]) == ("CANCELLED", "m-0.1")


async def test_what_the_router_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with logged(tmp_path / "log", ScriptedReplica(), monkeypatch=monkeypatch) as (router, client):
        router.dispatcher.apply(router.table(draining=(0,)))
        assert (await client.finished(client.request(inference(), INFER)))[0] == 14
    [line] = lines(tmp_path / "log")
    assert (line["status"], "replica" in line) == ("UNAVAILABLE", False)
    assert "no replica can take model 'model'" in line["message"]


async def test_time_in_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Request] = []
    replica = ScriptedReplica(held.append)
    async with logged(tmp_path / "log", replica, slots={"model": 1}, monkeypatch=monkeypatch) as (_, client):
        streams = [client.request(inference(), INFER) for _ in range(2)]
        await until(lambda: len(held) == 1)
        await asyncio.sleep(0.05)
        for index, stream in enumerate(streams):
            await until(lambda index=index: len(held) > index)  # type: ignore[misc] # a default binds the loop's value
            held[index].answer(b"")
            held[index].connection.flush()
            assert (await client.finished(stream))[0] == 0
    first, second = lines(tmp_path / "log")
    assert second["queue_s"] >= 0.05 > first.get("queue_s", 0.0)


async def test_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([0.1, 0.9, 0.2, 0.8])
    monkeypatch.setattr(access.random, "random", lambda: next(draws))
    async with logged(tmp_path / "log", ScriptedReplica(), sample=0.5, monkeypatch=monkeypatch) as (
        _,
        client,
    ):
        for number in range(4):
            await client.finished(client.request(inference(id=str(number)), INFER))
    assert [line["id"] for line in lines(tmp_path / "log")] == ["0", "2"]


def a_line(**more: Any) -> Line:
    return Line(time=0.0, method="ModelInfer", status="OK", duration_s=0.1, **more)


def test_the_file_is_followed_when_it_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "WRITE_EVERY_S", 60.0)
    path = tmp_path / "log"
    log = AccessLog(str(path), 1.0)
    try:
        log.add(a_line(id="before"))
        log._write()
        path.rename(tmp_path / "log.1")
        log.add(a_line(id="after"))
    finally:
        log.close()
    assert [line["id"] for line in lines(tmp_path / "log.1")] == ["before"]
    assert [line["id"] for line in lines(path)] == ["after"]


def test_a_disk_that_does_not_keep_up_costs_lines_and_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "MOST_WAITING", 2)
    monkeypatch.setattr(access, "WRITE_EVERY_S", 60.0)
    log = AccessLog(str(tmp_path / "log"), 1.0)
    try:
        for number in range(5):
            log.add(a_line(id=str(number)))
        log._write()
        log.add(a_line(id="last"))
    finally:
        log.close()
    found = lines(tmp_path / "log")
    assert [line["id"] for line in found] == ["0", "1", "last"]
    assert found[-1]["dropped"] == 3


def test_a_disk_that_is_full_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(access, "WRITE_EVERY_S", 60.0)
    log = AccessLog(str(tmp_path / "log"), 1.0)

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for _ in range(3):
            log.add(a_line())
            log._write()
    log.add(a_line(id="again"))
    log.close()
    assert caplog.text.count("cannot be written") == 1
    assert lines(tmp_path / "log")[-1]["dropped"] == 3


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"id": "a"}, "a"), ({}, ""), ({"id": "é", "model_version": "3"}, "é"), ({"id": "x" * 200}, "")],
)
def test_the_request_s_own_id(fields: dict[str, str], expected: str) -> None:
    body = inference(**fields)
    assert inference_id(b"\0" + len(body).to_bytes(4, "big") + body) == expected


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0\0", b"\0\0\0\0\1\x0a", b"\0\0\0\0\3\x1a\x05\xff"])
def test_what_is_cut_off_has_no_id(data: bytes) -> None:
    assert inference_id(data) == ""


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    yield server
    server.stop()


TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def test_a_trace_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    """The client's span is the parent of the router's, which is the parent of what the replica does."""
    traces = TraceExport(collector.endpoint, 0.0, "mine")
    replica = ScriptedReplica()
    async with logged(tmp_path / "log", replica, traces=traces, monkeypatch=monkeypatch) as (_, client):
        for flag in ("01", "00"):
            given = f"00-{TRACE}-{PARENT}-{flag}"
            stream = client.request(inference(), INFER, traceparent=given, **{"x-other": "kept"})
            assert (await client.finished(stream))[0] == 0
        assert (await client.finished(client.request(inference(), INFER)))[0] == 0
    traces.close()
    [(path, body)] = collector.bodies
    assert path == "/v1/traces"
    [resource] = body["resourceSpans"]
    names = {part["key"]: part["value"] for part in resource["resource"]["attributes"]}
    assert names["service.name"] == {"stringValue": "tritonfleet-router"}
    [span] = resource["scopeSpans"][0]["spans"]
    assert (span["traceId"], span["parentSpanId"], span["kind"]) == (TRACE, PARENT, 2)
    assert span["name"] == "inference.GRPCInferenceService/ModelInfer"
    assert int(span["startTimeUnixNano"]) < int(span["endTimeUnixNano"])
    attributes = {part["key"]: part["value"] for part in span["attributes"]}
    assert attributes["rpc.grpc.status_code"] == {"intValue": "0"}
    assert attributes["tritonfleet.replica"] == {"stringValue": "m-0.1"}
    sampled, not_sampled, without = (request.headers for request in replica.requests)
    assert sampled["traceparent"] == f"00-{TRACE}-{span['spanId']}-01"
    assert sampled["x-other"] == "kept"
    assert not_sampled["traceparent"] == f"00-{TRACE}-{PARENT}-00"
    assert "traceparent" not in without
    assert [line.get("traceparent") for line in lines(tmp_path / "log")] == [
        f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00", None
    ]  # fmt: skip


async def test_a_failed_call_is_a_failed_span(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    traces = TraceExport(collector.endpoint, 1.0, "mine")
    async with logged(tmp_path / "log", ScriptedReplica(), traces=traces, monkeypatch=monkeypatch) as (
        router,
        client,
    ):
        router.dispatcher.apply(router.table(draining=(0,)))
        assert (await client.finished(client.request(inference(), INFER)))[0] == 14
    traces.close()
    [span] = collector.bodies[0][1]["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert span["status"]["code"] == 2
    assert "no replica can take" in span["status"]["message"]
    assert "parentSpanId" not in span


def test_a_collector_that_takes_nothing_is_said_once(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 503
    traces = TraceExport(collector.endpoint, 1.0, "mine")
    traces.add({"name": "a"})
    assert traces._send() is False
    traces.add({"name": "b"})
    assert traces._send() is False
    traces.close()
    assert caplog.text.count("does not take spans") == 1


@pytest.mark.parametrize(
    "given",
    [
        None, b"", b"00-x", f"ff-{TRACE}-{PARENT}-01".encode(), f"00-{'0' * 32}-{PARENT}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(), f"00-{TRACE}-{PARENT}-01-more".encode(),
    ],
)  # fmt: skip
def test_what_is_no_parent_begins_a_trace(given: bytes | None) -> None:
    span = continued(given, 1.0)
    assert span is not None
    assert (span.parent, len(span.trace), len(span.id)) == ("", 32, 16)
    assert continued(given, 0.0) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    span = continued(f"01-{TRACE}-{PARENT}-03-more".encode(), 0.0)
    assert span is not None
    assert (span.trace, span.parent) == (TRACE, PARENT)

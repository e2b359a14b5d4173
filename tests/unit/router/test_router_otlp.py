"""What is posted to a collector, read by OpenTelemetry's own definitions: no field that they do not know, and
every value of their type."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import json_format
from otlp_collector import Collector

from tritonfleet.router.traces import Span, TraceExport, as_json

service = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="needs opentelemetry-proto (make dev)"
)
TRACE, ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "53995c3f42cd8ad8"
IDS = {"traceId", "spanId", "parentSpanId"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    yield server
    server.stop()


def read(body: dict[str, Any]) -> Any:
    """An ExportTraceServiceRequest. OTLP's JSON has ids in hex where protobuf's own has base64."""

    def with_base64(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode() if key in IDS else value
            for key, value in pairs
        }

    text = json.dumps(json.loads(json.dumps(body), object_pairs_hook=with_base64))
    return json_format.Parse(text, service.ExportTraceServiceRequest())


def test_spans_are_those_of_the_definitions(collector: Collector) -> None:
    traces = TraceExport(collector.endpoint, 1.0, "mine")
    path = "/inference.GRPCInferenceService/ModelInfer"
    traces.add(
        as_json(Span(TRACE, ID, PARENT), path, 100.25, 100.5, 0, "", model="text", queue_s=0.125, retries=1)
    )
    traces.add(as_json(Span(TRACE, PARENT, ""), path, 100.0, 101.0, 14, "no replica"))
    traces.close()
    spans = []
    for _, body in collector.bodies:
        [resource] = read(body).resource_spans
        named = {one.key: one.value.string_value for one in resource.resource.attributes}
        assert named == {"service.name": "tritonfleet-router", "tritonfleet.fleet": "mine"}
        spans += resource.scope_spans[0].spans
    good, bad = spans
    assert (good.trace_id.hex(), good.span_id.hex(), good.parent_span_id.hex()) == (TRACE, ID, PARENT)
    assert (good.kind, good.name) == (good.SPAN_KIND_SERVER, path.strip("/"))
    assert good.end_time_unix_nano - good.start_time_unix_nano == 250_000_000
    values = {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in good.attributes}
    assert values == {
        "rpc.system": "grpc", "rpc.service": "inference.GRPCInferenceService", "rpc.method": "ModelInfer",
        "rpc.grpc.status_code": 0, "tritonfleet.model": "text", "tritonfleet.queue_s": 0.125,
        "tritonfleet.retries": 1,
    }  # fmt: skip
    assert good.status.code == good.status.STATUS_CODE_UNSET
    assert (bad.status.code, bad.status.message) == (bad.status.STATUS_CODE_ERROR, "no replica")
    assert bad.parent_span_id == b""

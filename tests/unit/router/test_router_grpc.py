"""gRPC as the router reads and writes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from tritonfleet.http2.fields import Fields, FieldsDecoder, encode
from tritonfleet.router.grpc import (
    Status,
    parse_timeout,
    peek_model,
    request_info,
    status_of,
    trailers,
    trailers_only,
    was_not_executed,
    with_timeout,
)


def message(body: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(body).to_bytes(4, "big") + body


def fields(**items: str) -> Fields:
    return Fields(tuple((key.replace("_", "-").encode(), value.encode()) for key, value in items.items()))


def request(path: str, method: str = "POST", content_type: str = "application/grpc") -> Fields:
    return Fields(
        (
            (b":method", method.encode()),
            (b":path", path.encode()),
            (b"content-type", content_type.encode()),
        )
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda name: service_pb2.ModelInferRequest(model_name=name, model_version="1", id="x"),
        lambda name: service_pb2.ModelReadyRequest(name=name, version="1"),
        lambda name: service_pb2.ModelMetadataRequest(name=name),
        lambda name: service_pb2.ModelConfigRequest(name=name),
        lambda name: service_pb2.ModelStatisticsRequest(name=name),
    ],
)
@pytest.mark.parametrize("name", ["digits", "ü" * 20, "m" * 127, "m" * 128, "m" * 255])
def test_the_models_name_is_peeked_from_real_messages(build, name: str) -> None:
    data = message(build(name).SerializeToString())
    assert peek_model(data) == name
    assert peek_model(memoryview(data)) == name


@given(st.text(min_size=1, max_size=60), st.data())
def test_a_peek_into_too_few_bytes_says_so(name: str, data: st.DataObject) -> None:
    whole = message(service_pb2.ModelInferRequest(model_name=name).SerializeToString())
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert peek_model(whole[:cut]) is None
    assert peek_model(whole) == name


@pytest.mark.parametrize(
    "data",
    [
        message(b""),
        message(b"\x0a\3abc", flag=1),
        message(service_pb2.ModelInferRequest(id="no name").SerializeToString()),
        message(b"\x0a\2\xff\xfe"),
        message(b"\x0a\xff\xff\xff\x7f"),
    ],
    ids=["empty", "compressed", "other field first", "not utf-8", "endless length"],
)
def test_a_message_that_names_no_model_peeks_as_nothing(data: bytes) -> None:
    assert peek_model(data) == ""


def test_requests_are_told_apart() -> None:
    infer = request_info(request("/inference.GRPCInferenceService/ModelInfer"))
    assert (infer.names_model, infer.streaming, infer.refusal) == (True, False, None)
    stream = request_info(request("/inference.GRPCInferenceService/ModelStreamInfer"))
    assert (stream.names_model, stream.streaming) == (True, True)
    live = request_info(request("/inference.GRPCInferenceService/ServerLive"))
    assert not live.names_model


def test_the_parsed_form_is_kept_with_the_list() -> None:
    fields = request("/a/b")
    assert request_info(fields) is request_info(fields)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (request("/a/b", method="GET"), b"405"),
        (request("/a/b", content_type="text/plain"), b"415"),
        (request("*"), b"400"),
    ],
)
def test_what_is_not_grpc_is_refused_in_http(fields: Fields, status: bytes) -> None:
    refusal = request_info(fields).refusal
    assert refusal is not None
    assert FieldsDecoder().decode(refusal).get(b":status") == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (fields(grpc_status="0"), 0),
        (fields(grpc_status="14", grpc_message="x"), 14),
        (Fields(((b":status", b"503"),)), 14),
        (Fields(((b":status", b"400"),)), 13),
        (Fields(((b":status", b"401"),)), 16),
        (Fields(((b":status", b"403"),)), 7),
        (Fields(((b":status", b"404"),)), 12),
        (Fields(((b":status", b"200"),)), 2),
        (fields(grpc_status="oops"), 2),
    ],
)
def test_the_status_of_a_response(fields: Fields, status: int) -> None:
    assert status_of(fields) == status


@pytest.mark.parametrize(
    ("status", "words", "expected"),
    [
        ("5", "Request for unknown model: 'echo' has no available versions", True),
        ("14", "Request for unknown model: 'echo' version 1 is not at ready state", True),
        ("14", "[request id: <id_unknown>] Server is stopping, scheduler for model has stopped", True),
        ("14", "[request id: 7] Exceeds maximum queue size", False),
        ("14", "Server exiting", True),
        ("13", "Request for unknown model: 'part of a model'", False),
        ("3", "Server is stopping", False),
        ("14", "", False),
    ],
)
def test_a_replica_on_its_way_out_says_that_it_executed_nothing(
    status: str, words: str, expected: bool
) -> None:
    fields = Fields(
        ((b":status", b"200"), (b"grpc-status", status.encode()), (b"grpc-message", words.encode()))
    )
    assert was_not_executed(fields) is expected


@pytest.mark.parametrize(
    ("left_s", "timeout"),
    [
        (0.0000001, b"1u"),
        (0.25, b"250000u"),
        (99.999999, b"99999999u"),
        (100.0, b"100000m"),
        (99_999.999, b"99999999m"),
        (100_000.0, b"100000S"),
        (1e12, b"99999999S"),
    ],
)
def test_what_is_left_of_a_deadline_has_at_most_eight_digits(left_s: float, timeout: bytes) -> None:
    given = ((b":path", b"/x.Y/Z"), (b"grpc-timeout", b"5S"), (b"te", b"trailers"))
    fields = FieldsDecoder().decode(encode(given))
    found = FieldsDecoder().decode(with_timeout(fields, left_s))
    assert dict(found.items) == {**dict(given), b"grpc-timeout": timeout}
    assert parse_timeout(timeout) == pytest.approx(max(left_s, 1e-6), rel=1e-3) or left_s > 1e8


def test_messages_are_percent_encoded_as_grpc_asks() -> None:
    decoded = FieldsDecoder().decode(trailers(Status.UNAVAILABLE, "100 % größer\nso"))
    assert decoded.get(b"grpc-status") == b"14"
    assert decoded.get(b"grpc-message") == b"100 %25 gr%C3%B6%C3%9Fer%0Aso"


def test_trailers_only_is_a_whole_response() -> None:
    decoded = FieldsDecoder().decode(trailers_only(Status.UNIMPLEMENTED, "no"))
    assert [name for name, _ in decoded.items] == [
        b":status",
        b"content-type",
        b"grpc-status",
        b"grpc-message",
    ]

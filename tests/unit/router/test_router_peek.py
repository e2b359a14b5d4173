"""Sequences are found in real messages, in streams cut anywhere, and nowhere else."""

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from tritonfleet.router.grpc import peek_model
from tritonfleet.router.peek import (
    PEEK_LIMIT,
    SequenceRef,
    StreamScanner,
    enough,
    peek_priority,
    peek_sequence,
    plain,
)


def infer(sequence_id: int | str = 0, *, start: bool = False, end: bool = False, size: int = 10) -> bytes:
    request = service_pb2.ModelInferRequest(model_name="m", model_version="1", id="request")
    request.parameters["priority"].uint64_param = 3
    if isinstance(sequence_id, str):
        request.parameters["sequence_id"].string_param = sequence_id
    else:
        request.parameters["sequence_id"].int64_param = sequence_id
    request.parameters["sequence_start"].bool_param = start
    request.parameters["sequence_end"].bool_param = end
    request.inputs.add(name="INPUT", datatype="UINT8", shape=[size])
    request.raw_input_contents.append(bytes(size))
    body = request.SerializeToString()
    return b"\0" + len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize("name", [1, 2**63 - 1, 300, "a", "ü" * 20, "7"])
@pytest.mark.parametrize("flags", [(True, False), (False, False), (False, True), (True, True)])
def test_a_sequence_is_found(name: int | str, flags: tuple[bool, bool]) -> None:
    kind = "str" if isinstance(name, str) else "int"
    expected = SequenceRef(("m", kind, name), *flags)
    data = infer(name, start=flags[0], end=flags[1])
    assert peek_sequence(data, "m") == expected
    assert peek_sequence(memoryview(data), "m") == expected


def test_an_id_of_zero_or_nothing_is_no_sequence() -> None:
    assert peek_sequence(infer(0, start=True), "m") is None
    assert peek_sequence(infer("", start=True), "m") is None


def test_a_request_without_a_message_tells_nothing() -> None:
    assert peek_sequence(b"", "accumulator") is None


def test_no_parameters_no_sequence() -> None:
    body = service_pb2.ModelInferRequest(model_name="m").SerializeToString()
    assert peek_sequence(b"\0" + len(body).to_bytes(4, "big") + body, "m") is None


def test_the_words_in_a_tensor_are_no_sequence() -> None:
    request = service_pb2.ModelInferRequest(model_name="m")
    request.inputs.add(name="sequence_id", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(b"sequence_id sequence_start")
    body = request.SerializeToString()
    assert peek_sequence(b"\0" + len(body).to_bytes(4, "big") + body, "m") is None


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("size", [0, 10, 1_000_000])
def test_a_compressed_message_tells_the_same(compress: Callable[[bytes], bytes], size: int) -> None:
    data = infer(5, start=True, size=size)
    message = compress(data[5:])
    whole = b"\1" + len(message).to_bytes(4, "big") + message
    for compressed in (whole, memoryview(whole)):
        legible = plain(compressed)
        assert len(legible) <= PEEK_LIMIT + 5
        assert peek_model(legible) == "m"
        assert peek_sequence(legible, "m") == SequenceRef(("m", "int", 5), start=True, end=False)
        assert peek_priority(legible) == 3


def test_what_is_not_compressed_stays_as_it_is() -> None:
    data = infer(5)
    assert plain(data) is data


def test_a_message_that_says_it_is_compressed_and_is_not_tells_nothing() -> None:
    data = b"\1" + infer(5, start=True)[1:]
    assert plain(data) is data
    assert peek_model(data) == ""
    assert peek_sequence(data, "m") is None
    assert peek_priority(data) == 0


@given(st.binary(max_size=64))
def test_no_bytes_at_all_can_harm(rest: bytes) -> None:
    for head in (b"\1" + rest, b"\1\0\0\0\x20\x1f\x8b\x08" + rest, b"\1\0\0\0\x20\x78\x9c" + rest):
        legible = plain(head)
        peek_model(legible)
        peek_sequence(legible, "m")
        peek_priority(legible)


def test_a_bomb_is_not_unfolded() -> None:
    message = zlib.compress(bytes(64 << 20), 9)
    assert len(plain(b"\1" + len(message).to_bytes(4, "big") + message)) == PEEK_LIMIT + 5


@given(st.binary(max_size=200))
def test_garbage_is_no_sequence_and_no_crash(garbage: bytes) -> None:
    body = b"\x0a\1m" + b"\x22\x0dsequence_id" + garbage
    peek_sequence(b"\0" + len(body).to_bytes(4, "big") + body, "m")


@given(st.integers(0, 300))
def test_enough_means_the_whole_message_or_the_limit(cut: int) -> None:
    data = infer(5, size=100)
    assert enough(data[:cut]) == (cut >= len(data))
    large = infer(5, size=100_000)
    assert not enough(large[: PEEK_LIMIT - 1])
    assert enough(large[:PEEK_LIMIT])


@given(st.lists(st.sampled_from([0, 10, 4000, 5000, 20_000]), max_size=5), st.data())
def test_every_message_of_a_stream_is_seen_once_however_it_is_cut(
    sizes: list[int], data: st.DataObject
) -> None:
    messages = [infer(number + 1, start=True, size=size) for number, size in enumerate(sizes)]
    stream = b"".join(messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    scanner = StreamScanner()
    heads = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        heads += scanner.feed(stream[start:end])
    found = [peek_sequence(head, "m") for head in heads]
    assert [ref.key[2] for ref in found if ref] == [number + 1 for number in range(len(sizes))]
    assert heads == [message[:PEEK_LIMIT] for message in messages]

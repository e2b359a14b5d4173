"""Header blocks in several frames, and the long ones of a replica, of which long strings are cut."""

import hpack
import pytest
from http2_dialogue import ClientRecorder, Dialogue, headers_frame, sid, started
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.http2 import frames
from tritonfleet.http2.blocks import LONG, LONG_HUFFMAN, MAX_CUT_BLOCK, MAX_HEADER_BLOCK, Block, Cut
from tritonfleet.http2.fields import encode
from tritonfleet.http2.frames import ProtocolError
from tritonfleet.http2.stream import Stream

NAMES = st.sampled_from(["grpc-message", "x", "n" * 200, "l" * 5000, ":status"])
TOO_LONG = "\\" * 7000  # in Huffman's code as well: 19 bits each
VALUES = st.sampled_from(["", "5", "v" * 300, "m" * LONG, "m" * (LONG + 1), TOO_LONG, "ü%" * 900])
LISTS = st.lists(st.tuples(NAMES, VALUES, st.booleans()), min_size=1, max_size=5)


def cut_of(block: bytes, *pieces: int) -> bytes:
    """What is kept of ``block`` when it comes in ``pieces`` of so many bytes, and the rest."""
    cut, at = Cut(), 0
    for size in (*pieces, len(block)):
        cut.add(block[at : at + size])
        at += size
    return bytes(cut.kept)


@given(st.lists(LISTS, min_size=1, max_size=4), st.booleans(), st.lists(st.integers(0, 9000), max_size=8))
def test_what_is_cut_leaves_the_decoders_table_as_the_whole(
    lists: list[list[tuple[str, str, bool]]], huffman: bool, pieces: list[int]
) -> None:
    encoder, of_whole, of_cut = hpack.Encoder(), hpack.Decoder(1 << 30), hpack.Decoder(1 << 30)
    for items in lists:
        block = encoder.encode(
            [hpack.NeverIndexedHeaderTuple(*item[:2]) if item[2] else item[:2] for item in items], huffman
        )
        kept = cut_of(block, *pieces)
        whole, cut = of_whole.decode(block), of_cut.decode(kept)
        for sent, found in zip(whole, cut, strict=True):
            for string, left in zip(sent, found, strict=True):
                assert left == string or (len(string) > LONG and left in (string[:LONG], "?" * LONG))
        assert list(of_whole.header_table.dynamic_entries) == list(of_cut.header_table.dynamic_entries)


def test_a_long_string_in_huffmans_code_is_larger_than_the_table() -> None:
    """Its longest codes have 30 bits."""
    assert LONG_HUFFMAN * 8 / 30 > LONG
    assert len(TOO_LONG) * 19 / 8 > LONG_HUFFMAN


def test_a_clients_block_is_not_cut_but_refused() -> None:
    block = Block(sid(1), ends=True, cuts=False)
    block.add(bytes(MAX_HEADER_BLOCK))
    with pytest.raises(ProtocolError, match="too large"):
        block.add(b"x")


def test_many_fields_are_too_many_for_a_replica_as_well() -> None:
    with pytest.raises(ProtocolError, match="too large"):
        Cut().add(encode(((b"x" * 100, b"y" * 100),)) * (MAX_CUT_BLOCK // 200 + 1))


def test_an_integer_without_an_end_is_refused() -> None:
    with pytest.raises(ProtocolError, match="too large"):
        Cut().add(b"\x00\x7f" + b"\x80" * 10)


@pytest.mark.parametrize("size", [MAX_HEADER_BLOCK + 1, 100_000, 3_000_000])
def test_a_replicas_long_message_arrives_cut_and_the_connection_goes_on(size: int) -> None:
    dialogue: Dialogue = started(ClientRecorder())
    connection = dialogue.connection
    for _ in range(2):
        stream_id = connection.open_stream_id()
        connection.streams[stream_id] = Stream(connection, stream_id)
    block = dialogue.encoder.encode(
        [(":status", "200"), ("x-later", "again"), hpack.NeverIndexedHeaderTuple("grpc-message", "m" * size)],
        huffman=False,
    )
    most = 1 << 20
    parts = [block[at : at + most] for at in range(0, len(block), most)]
    for index, part in enumerate(parts):
        flags = (frames.END_HEADERS if index == len(parts) - 1 else 0) | (0 if index else frames.END_STREAM)
        dialogue >> frames.frame(frames.CONTINUATION if index else frames.HEADERS, flags, sid(1), part)
    ((_, number, fields, ended),) = dialogue.events()
    assert (number, ended) == (1, True)
    assert fields[b"grpc-message"] == b"m" * LONG
    dialogue >> headers_frame(3, dialogue.encoder.encode([(":status", "200"), ("x-later", "again")]))
    ((_, number, fields, _),) = dialogue.events()
    assert (number, fields) == (3, {b":status": b"200", b"x-later": b"again"})

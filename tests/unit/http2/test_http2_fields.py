"""Header lists: the cached decoder agrees with an uncached one, the encoding with any decoder."""

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.http2.fields import CACHED_BLOCKS, FieldsDecoder, encode, integer
from tritonfleet.http2.frames import ErrorCode, ProtocolError

names = st.text("abcdefghij-", min_size=1, max_size=12).map(str.encode)
values = st.binary(max_size=200)
lists = st.lists(st.tuples(names, values), max_size=8).map(tuple)


@given(lists)
def test_any_decoder_reads_what_encode_writes(items: tuple[tuple[bytes, bytes], ...]) -> None:
    assert tuple(hpack.Decoder().decode(encode(items), raw=True)) == items


@given(st.lists(st.tuples(lists, st.booleans()), max_size=20), st.integers(0, 3))
def test_the_cache_never_changes_what_is_decoded(
    blocks: list[tuple[tuple[tuple[bytes, bytes], ...], bool]], resizes: int
) -> None:
    """Repeats, insertions and table resizes in any order: cached ≡ uncached."""
    encoder, cached, plain = hpack.Encoder(), FieldsDecoder(), hpack.Decoder()
    for index, (items, huffman) in enumerate(blocks * 2):
        if resizes and index % 5 == resizes:
            encoder.header_table_size = 4096 >> (index % 3)
        block = encoder.encode(items, huffman=huffman)
        expected = tuple((bytes(n), bytes(v)) for n, v in plain.decode(block, raw=True))
        assert cached.decode(block).items == expected


def test_a_repeated_block_is_decoded_once() -> None:
    decoder = FieldsDecoder()
    block = encode(((b"a", b"b"),))
    assert decoder.decode(block) is decoder.decode(block)


def test_an_indexed_block_is_not_reused_after_the_table_moved() -> None:
    encoder, decoder = hpack.Encoder(), FieldsDecoder()
    encoder.encode([(b"k", b"one")])
    decoder.decode(hpack.Encoder().encode([(b"k", b"one")]))
    newest = bytes((0x80 | 62,))  # the dynamic table's newest entry
    assert decoder.decode(newest).items == ((b"k", b"one"),)
    decoder.decode(hpack.Encoder().encode([(b"k", b"two")]))
    assert decoder.decode(newest).items == ((b"k", b"two"),)


def test_the_cache_is_bounded() -> None:
    decoder = FieldsDecoder()
    for number in range(3 * CACHED_BLOCKS):
        decoder.decode(encode(((b"n", str(number).encode()),)))
    assert len(decoder.cache) <= CACHED_BLOCKS


@pytest.mark.parametrize("block", [b"\xff" * 6, b"\xff" * 20, b"\x80", b"\x00\x05ab"])
def test_what_cannot_be_decoded_is_a_compression_error(block: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        FieldsDecoder().decode(block)
    assert caught.value.code == ErrorCode.COMPRESSION_ERROR
    assert "0x" not in str(caught.value), "it goes to the peer: no address of our memory"


def test_an_oversized_list_is_refused() -> None:
    with pytest.raises(ProtocolError):
        FieldsDecoder().decode(encode(((b"k", b"v" * 20_000),)))


@given(st.integers(0, 1 << 30))
def test_integers_are_hpack_integers(value: int) -> None:
    from hpack.hpack import decode_integer

    data = integer(value, 7)
    assert decode_integer(data, 7) == (value, len(data))


def test_get_and_repr() -> None:
    fields = FieldsDecoder().decode(encode(((b"grpc-status", b"0"),)))
    assert fields.get(b"grpc-status") == b"0"
    assert fields.get(b"other") is None
    assert repr(fields) == "Fields({b'grpc-status': b'0'})"

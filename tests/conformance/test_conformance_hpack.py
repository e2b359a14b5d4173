"""RFC 7541: what cannot be decoded ends the connection."""

import pytest
from h2peer import (
    Case,
    block,
    case,
    fatal,
    raw,
)

pytestmark = pytest.mark.processes

B = block()
BROKEN = fatal("COMPRESSION_ERROR")
CASES = [
    case("2.3.3/1 index beyond the tables", raw(B + b"\xc6"), BROKEN),
    case("2.3.3/2 literal whose name's index is beyond", raw(B + b"\x7f\x07\1a"), BROKEN),
    case("4.2/1 table size update at the end of a block", raw(B + b"\x21"), BROKEN),
    case(
        "5.2/1 Huffman padding longer than 7 bits",
        raw(B + b"\0\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"),
        BROKEN,
    ),
    case("5.2/2 Huffman padding of zeros", raw(B + b"\0\x85\xf2\xb2\x4a\x87\xff\x83\x49\x50\x90"), BROKEN),
    case("5.2/3 Huffman EOS", raw(B + b"\0\x85\xf2\xb2\x4a\x84\xff\x87\x4d\x25\x3f\xff\xff\xff\xff"), BROKEN),
    case("6.1/1 index 0", raw(B + b"\x80"), BROKEN),
    case("6.3/1 table size above the limit", raw(b"\x3f\xe2\x1f" + B), BROKEN),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_hpack(case: Case, worker: int) -> None:
    case.run(worker)

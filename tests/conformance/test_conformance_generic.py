"""What every server must take: h2spec's "generic" group."""

import pytest
from h2peer import (
    CONT,
    EH,
    END,
    GOAWAY,
    HEADERS,
    PAD,
    PING8,
    PRI,
    PRIORITY,
    Case,
    acked,
    answered,
    block,
    case,
    data,
    fr,
    get,
    ponged,
    post,
    priority,
    raw,
    rst,
    setting,
    window,
)

from tritonfleet.http2 import frames

pytestmark = pytest.mark.processes

B = block()
CASES = [
    case("1/1 preface and SETTINGS", frames.PREFACE + frames.settings({}), acked, greet=False),
    case("2/1 idle: PRIORITY", fr(PRIORITY, 0, 1, priority(0)) + get(), answered()),
    case("2/2 half-closed (remote): WINDOW_UPDATE", get() + window(1, 100), answered()),
    case("2/3 half-closed (remote): PRIORITY", get() + fr(PRIORITY, 0, 1, priority(0)), answered()),
    case("2/4 half-closed (remote): RST_STREAM", get() + rst() + PING8, ponged),
    case("2/5 closed: PRIORITY", get(), answered(), fr(PRIORITY, 0, 1, priority(0)) + PING8, ponged),
    case("3.1/1 DATA", post() + data(), answered()),
    case("3.1/2 several DATA", post() + data(flags=0) + data(), answered()),
    case("3.1/3 padded DATA", post() + data(payload=b"\x06test" + bytes(6), flags=END | PAD), answered()),
    case("3.2/1 HEADERS", get(), answered()),
    case("3.2/2 padded HEADERS", fr(HEADERS, END | EH | PAD, 1, b"\x06" + B + bytes(6)), answered()),
    case("3.2/3 HEADERS with priority", fr(HEADERS, END | EH | PRI, 1, priority(0) + B), answered()),
    case("3.3/1 PRIORITY, weight 1", fr(PRIORITY, 0, 1, priority(0, 0)) + get(), answered()),
    case("3.3/2 PRIORITY, weight 256", fr(PRIORITY, 0, 1, priority(0, 255)) + get(), answered()),
    case("3.3/3 PRIORITY on a stream", fr(PRIORITY, 0, 3, priority(1)) + get(), answered()),
    case("3.3/4 exclusive", fr(PRIORITY, 0, 3, priority(1, exclusive=True)) + get(), answered()),
    case(
        "3.3/5 PRIORITY for an idle stream, then a lower one",
        fr(PRIORITY, 0, 9, priority(0)) + get(),
        answered(),
    ),
    case("3.4/1 RST_STREAM", post() + rst() + PING8, ponged),
    case("3.5/1 SETTINGS", setting(3, 100), acked),
    case("3.7/1 PING", PING8, ponged),
    case("3.8/1 GOAWAY", fr(GOAWAY, 0, 0, bytes(8)) + PING8, ponged),
    case("3.9/1 WINDOW_UPDATE on the connection", window(0, 1) + get(), answered()),
    case("3.9/2 WINDOW_UPDATE on a stream", post() + window(1, 1) + data(), answered()),
    case("3.10/1 CONTINUATION", fr(HEADERS, END, 1, B[:9]) + fr(CONT, EH, 1, B[9:]), answered()),
    case(
        "3.10/2 several CONTINUATION",
        fr(HEADERS, END, 1, B[:9]) + fr(CONT, 0, 1, B[9:12]) + fr(CONT, EH, 1, B[12:]),
        answered(),
    ),
    case("4/1 GET", get(), answered()),
    case("4/2 HEAD", fr(HEADERS, END | EH, 1, block("HEAD")), answered()),
    case("4/3 POST", post() + data(), answered()),
    case("4/4 POST with trailers", post() + data(flags=0) + raw(b"\0\1x\1y"), answered()),
    case("5/1 indexed field", raw(b"\x82\x86\x84\0\x0a:authority\1x"), answered()),
    case("5/2 literal with incremental indexing", raw(B + b"\x40\1a\1b"), answered()),
    case("5/3 the same, indexed name", raw(B + b"\x7a\1b"), answered()),
    case("5/4 literal without indexing", raw(B + b"\0\1a\1b"), answered()),
    case("5/5 the same, indexed name", raw(B + b"\x0f\x2b\1b"), answered()),
    case("5/6 never indexed", raw(B + b"\x10\1a\1b"), answered()),
    case("5/7 the same, indexed name", raw(B + b"\x1f\x2b\1b"), answered()),
    case("5/8 dynamic table", raw(B + b"\x40\1a\1b") + get(3), answered(3)),
    case("5/9 indexed from the dynamic table", raw(B + b"\x40\1a\1b\xbe"), answered()),
    case("5/10 incremental indexing, Huffman", raw(B + b"\x40\x81\x1f\x81\x8f"), answered()),
    case("5/11 the same, indexed name", raw(B + b"\x7a\x81\x8f"), answered()),
    case("5/12 without indexing, Huffman", raw(B + b"\0\x81\x1f\x81\x8f"), answered()),
    case("5/13 the same, indexed name", raw(B + b"\x0f\x2b\x82\x1c\x64"), answered()),
    case("5/14 never indexed, Huffman", raw(B + b"\x10\x81\x1f\x81\x8f"), answered()),
    case("5/15 the same, indexed name", raw(B + b"\x1f\x2b\x81\x8f"), answered()),
    case("5/16 table size update", raw(b"\x20" + B), answered()),
    case("5/17 several table size updates", raw(b"\x20\x3f\xe1\x1f" + B), answered()),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_generic(case: Case, worker: int) -> None:
    case.run(worker)

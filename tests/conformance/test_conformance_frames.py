"""RFC 9113 (7540), sections 3.5 to 5.5: preface, frames, streams."""

import pytest
from h2peer import (
    CLOSED,
    CONT,
    EH,
    END,
    HEADERS,
    PING,
    PING8,
    PRI,
    PRIORITY,
    Case,
    acked,
    answered,
    block,
    case,
    data,
    error,
    fatal,
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
    case("3.5/1 preface", frames.PREFACE + frames.settings({}), acked, greet=False),
    case("3.5/2 invalid preface", b"INVALID CONNECTION PREFACE\r\n\r\n", CLOSED, greet=False),
    case("4.1/1 unknown type", fr(0xFF, 0, 0, bytes(8)) + PING8, ponged),
    case("4.1/2 undefined flags", fr(PING, 0x16, 0, b"h2spec\0\0"), ponged),
    case("4.1/3 reserved bit", fr(PING, 0, 1 << 31, b"h2spec\0\0"), ponged),
    case("4.2/1 DATA of 2^14", post() + data(payload=bytes(1 << 14)), answered()),
    case(
        "4.2/2 DATA above the limit", post() + data(payload=bytes((1 << 20) + 1)), error("FRAME_SIZE_ERROR")
    ),
    case("4.2/3 HEADERS above the limit", raw(B + bytes(1 << 20)), fatal("FRAME_SIZE_ERROR")),
    case("4.3/1 invalid block", raw(b"\x40"), fatal("COMPRESSION_ERROR")),
    case(
        "4.3/2 PRIORITY inside a block",
        fr(HEADERS, END, 1, B) + fr(PRIORITY, 0, 1, priority(0)),
        fatal("PROTOCOL_ERROR"),
    ),
    case("4.3/3 HEADERS inside a block", fr(HEADERS, END, 1, B) + get(3), fatal("PROTOCOL_ERROR")),
    case("5.1/1 idle: DATA", data(), fatal("PROTOCOL_ERROR")),
    case("5.1/2 idle: RST_STREAM", rst(), fatal("PROTOCOL_ERROR")),
    case("5.1/3 idle: WINDOW_UPDATE", window(1, 100), fatal("PROTOCOL_ERROR")),
    case("5.1/4 idle: CONTINUATION", fr(CONT, EH, 1, B), fatal("PROTOCOL_ERROR")),
    case("5.1/5 half-closed (remote): DATA", get() + data(), error("STREAM_CLOSED")),
    case("5.1/6 half-closed (remote): HEADERS", get() + get(), error("STREAM_CLOSED")),
    case(
        "5.1/7 half-closed (remote): CONTINUATION",
        get() + fr(CONT, EH, 1, B),
        error("STREAM_CLOSED", "PROTOCOL_ERROR"),
    ),
    case("5.1/8 closed by RST_STREAM: DATA", post() + rst() + data(), error("STREAM_CLOSED")),
    case("5.1/9 closed by RST_STREAM: HEADERS", post() + rst() + get(), error("STREAM_CLOSED")),
    case(
        "5.1/10 closed by RST_STREAM: CONTINUATION",
        post() + rst() + fr(CONT, EH, 1, B),
        error("STREAM_CLOSED", "PROTOCOL_ERROR"),
    ),
    case("5.1/11 closed: DATA", get(), answered(), data(), error("STREAM_CLOSED")),
    case("5.1/12 closed: HEADERS", get(), answered(), get(), fatal("STREAM_CLOSED")),
    case(
        "5.1/13 closed: CONTINUATION",
        get(),
        answered(),
        fr(CONT, EH, 1, B),
        fatal("STREAM_CLOSED", "PROTOCOL_ERROR"),
    ),
    case("5.1.1/1 even stream", get(2), fatal("PROTOCOL_ERROR")),
    # The suite asks for PROTOCOL_ERROR and passes on any end of the connection; see docs/conformance.md.
    case("5.1.1/2 lower stream", get(5), answered(5), get(3), fatal("PROTOCOL_ERROR", "STREAM_CLOSED")),
    case(
        "5.1.2/1 too many streams",
        setting(4, 0) + b"".join(get(2 * i + 1) for i in range(1025)),
        error("PROTOCOL_ERROR", "REFUSED_STREAM"),
    ),
    case(
        "5.3.1/1 HEADERS that depend on themselves",
        fr(HEADERS, END | EH | PRI, 1, priority(1) + B),
        error("PROTOCOL_ERROR"),
    ),
    case("5.3.1/2 PRIORITY that depends on itself", fr(PRIORITY, 0, 1, priority(1)), error("PROTOCOL_ERROR")),
    case("5.4.1/1 connection error", fr(PING, 0, 0, bytes(6)), fatal("FRAME_SIZE_ERROR")),
    case("5.4.1/2 GOAWAY, then the end", fr(PING, 0, 3, bytes(8)), fatal("PROTOCOL_ERROR")),
    case("5.5/1 extension frame", fr(0x16, 0, 0, bytes(8)) + PING8, ponged),
    case("5.5/2 extension inside a block", fr(HEADERS, END, 1, B) + fr(0x16, 0, 0), fatal("PROTOCOL_ERROR")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_frames_and_streams(case: Case, worker: int) -> None:
    case.run(worker)

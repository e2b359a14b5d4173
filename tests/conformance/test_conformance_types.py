"""RFC 9113 (7540), sections 6 and 7: each type of frame, and error codes."""

import pytest
from h2peer import (
    CONT,
    EH,
    END,
    GOAWAY,
    HEADERS,
    PAD,
    PING,
    PING8,
    PRIORITY,
    RST,
    SETTINGS,
    WINDOW,
    Case,
    acked,
    answered,
    block,
    case,
    data,
    error,
    fatal,
    first_data,
    fr,
    get,
    ponged,
    post,
    priority,
    rst,
    setting,
    window,
)

pytestmark = pytest.mark.processes

B = block()
BIG = (1 << 31) - 1
FLOW, SIZE, PROTOCOL = "FLOW_CONTROL_ERROR", "FRAME_SIZE_ERROR", "PROTOCOL_ERROR"
CASES = [
    case("6.1/1 DATA on stream 0", data(0), fatal(PROTOCOL)),
    case("6.1/2 DATA on a stream that is not open", get() + data(), error("STREAM_CLOSED")),
    case("6.1/3 pad length", post() + data(payload=b"\x09test", flags=END | PAD), fatal(PROTOCOL)),
    case(
        "6.2/1 no END_HEADERS, then PRIORITY",
        fr(HEADERS, END, 1, B) + fr(PRIORITY, 0, 1, priority(0)),
        fatal(PROTOCOL),
    ),
    case("6.2/2 HEADERS to another stream in a block", fr(HEADERS, END, 1, B) + get(3), fatal(PROTOCOL)),
    case("6.2/3 HEADERS on stream 0", get(0), fatal(PROTOCOL)),
    case("6.2/4 pad length", fr(HEADERS, END | EH | PAD, 1, bytes((len(B) + 1,)) + B), fatal(PROTOCOL)),
    case("6.3/1 PRIORITY on stream 0", fr(PRIORITY, 0, 0, priority(1)), fatal(PROTOCOL)),
    case("6.3/2 PRIORITY of 4 octets", fr(PRIORITY, 0, 1, bytes(4)), error(SIZE)),
    case("6.4/1 RST_STREAM on stream 0", rst(0), fatal(PROTOCOL)),
    case("6.4/2 RST_STREAM on an idle stream", rst(1), fatal(PROTOCOL)),
    case("6.4/3 RST_STREAM of 3 octets", post() + fr(RST, 0, 1, bytes(3)), fatal(SIZE)),
    case("6.5/1 ACK with a payload", fr(SETTINGS, 1, 0, bytes(6)), fatal(SIZE)),
    case("6.5/2 SETTINGS on a stream", fr(SETTINGS, 0, 1), fatal(PROTOCOL)),
    case("6.5/3 length not a multiple of 6", fr(SETTINGS, 0, 0, bytes(3)), fatal(SIZE)),
    case("6.5.2/1 ENABLE_PUSH 2", setting(2, 2), fatal(PROTOCOL)),
    case("6.5.2/2 INITIAL_WINDOW_SIZE 2^31", setting(4, 1 << 31), fatal(FLOW)),
    case("6.5.2/3 MAX_FRAME_SIZE too small", setting(5, 16383), fatal(PROTOCOL)),
    case("6.5.2/4 MAX_FRAME_SIZE too large", setting(5, 1 << 24), fatal(PROTOCOL)),
    case("6.5.2/5 unknown setting", setting(0xFF, 1) + PING8, ponged),
    case(
        "6.5.3/1 the last value counts",
        fr(SETTINGS, 0, 0, b"\0\4\0\0\0\x64\0\4\0\0\0\1") + get(),
        first_data(1),
    ),
    case("6.5.3/2 ACK", setting(3, 100), acked),
    case("6.7/1 PING", PING8, ponged),
    case("6.7/2 PING ACK is not answered", fr(PING, 1, 0, b"invalid\0") + PING8, ponged),
    case("6.7/3 PING on a stream", fr(PING, 0, 1, bytes(8)), fatal(PROTOCOL)),
    case("6.7/4 PING of 6 octets", fr(PING, 0, 0, bytes(6)), fatal(SIZE)),
    case("6.8/1 GOAWAY on a stream", fr(GOAWAY, 0, 1, bytes(8)), fatal(PROTOCOL)),
    case("6.9/1 increment 0, connection", window(0, 0), fatal(PROTOCOL)),
    case("6.9/2 increment 0, stream", post() + window(1, 0), error(PROTOCOL)),
    case("6.9/3 WINDOW_UPDATE of 3 octets", fr(WINDOW, 0, 0, bytes(3)), fatal(SIZE)),
    case("6.9.1/1 window of 1", setting(4, 1), acked, get(), first_data(1)),
    case("6.9.1/2 connection's window overflows", window(0, BIG) * 2, fatal(FLOW)),
    case("6.9.1/3 stream's window overflows", post() + window(1, BIG) * 2, error(FLOW)),
    case("6.9.2/1 initial window changes later", setting(4, 0) + get() + setting(4, 1), first_data(1)),
    case(
        "6.9.2/2 negative window",
        setting(4, 3) + get(),
        first_data(3),
        setting(4, 2) + window(1, 2),
        first_data(1),
    ),
    case("6.9.2/3 INITIAL_WINDOW_SIZE too large", setting(4, 1 << 31), fatal(FLOW)),
    case(
        "6.10/1 several CONTINUATION",
        fr(HEADERS, END, 1, B[:9]) + fr(CONT, 0, 1, B[9:20]) + fr(CONT, EH, 1, B[20:]),
        answered(),
    ),
    case(
        "6.10/2 CONTINUATION, then DATA",
        fr(HEADERS, 0, 1, B[:9]) + fr(CONT, 0, 1, B[9:]) + data(),
        fatal(PROTOCOL),
    ),
    case("6.10/3 CONTINUATION on stream 0", fr(HEADERS, END, 1, B) + fr(CONT, EH, 0), fatal(PROTOCOL)),
    case("6.10/4 after END_HEADERS", post() + fr(CONT, EH, 1, B), fatal(PROTOCOL)),
    case(
        "6.10/5 after a CONTINUATION with END_HEADERS",
        fr(HEADERS, 0, 1, B[:9]) + fr(CONT, EH, 1, B[9:]) + fr(CONT, EH, 1),
        fatal(PROTOCOL),
    ),
    case("6.10/6 after DATA", post() + data(flags=0) + fr(CONT, EH, 1, B), fatal(PROTOCOL)),
    case("7/1 unknown code in GOAWAY", fr(GOAWAY, 0, 0, bytes(4) + b"\0\0\0\xff") + PING8, ponged),
    case("7/2 unknown code in RST_STREAM", post() + rst(1, 0xFF) + PING8, ponged),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_types_of_frames(case: Case, worker: int) -> None:
    case.run(worker)

"""RFC 9113 (7540), section 8: requests that are malformed."""

import pytest
from h2peer import (
    EH,
    HEADERS,
    PUSH,
    Case,
    Expect,
    answered,
    block,
    case,
    data,
    error,
    fatal,
    fr,
    get,
    post,
    raw,
    sid,
)

pytestmark = pytest.mark.processes

MALFORMED = error("PROTOCOL_ERROR")


def only(payload: bytes) -> tuple[bytes, Expect]:
    return raw(payload), MALFORMED


CASES = [
    case(
        "8.1/1 trailers without END_STREAM",
        post() + data(flags=0) + fr(HEADERS, EH, 1, b"\0\1x\1y"),
        MALFORMED,
    ),
    case("8.1.2/1 upper case", *only(block("GET", ("X-TEST", "ok")))),
    case("8.1.2.1/1 unknown pseudo-header", *only(block("GET", (":test", "ok")))),
    case("8.1.2.1/2 a response's pseudo-header", *only(block("GET", (":status", "200")))),
    case(
        "8.1.2.1/3 pseudo-header in trailers", post() + data(flags=0) + raw(b"\0\7:method\4POST"), MALFORMED
    ),
    case("8.1.2.1/4 pseudo-header after a regular one", *only(b"\0\1a\1b" + block())),
    case("8.1.2.2/1 connection", *only(block("GET", ("connection", "keep-alive")))),
    case("8.1.2.2/2 te", *only(block("GET", ("trailers", "test"), ("te", "trailers, deflate")))),
    case("8.1.2.3/1 empty :path", *only(block(path=""))),
    case("8.1.2.3/2 no :method", *only(block(without=":method"))),
    case("8.1.2.3/3 no :scheme", *only(block(without=":scheme"))),
    case("8.1.2.3/4 no :path", *only(block(without=":path"))),
    case("8.1.2.3/5 :method twice", *only(block("GET", (":method", "GET")))),
    case("8.1.2.3/6 :scheme twice", *only(block("GET", (":scheme", "http")))),
    case("8.1.2.3/7 :path twice", *only(block("GET", (":path", "/")))),
    case("8.1.2.6/1 content-length, one DATA", post(1, ("content-length", "1")) + data(), MALFORMED),
    case(
        "8.1.2.6/2 content-length, several DATA",
        post(1, ("content-length", "5")) + data(flags=0) + data(),
        MALFORMED,
    ),
    case("8.2/1 PUSH_PROMISE", fr(PUSH, EH, 1, sid(2) + block()), fatal("PROTOCOL_ERROR")),
]
GRPC = ("content-type", "application/grpc")
BEYOND = [
    case("content-length without content", get(1, ("content-length", "1")), MALFORMED),
    case("content-length that is none", get(1, ("content-length", "x")), MALFORMED),
    case("content-length that holds", post(1, ("content-length", "4")) + data(), answered()),
    case("content-length too small, gRPC", post(1, GRPC, ("content-length", "3")) + data(), MALFORMED),
    case("content-length too large, gRPC", post(1, GRPC, ("content-length", "9")) + data(), MALFORMED),
    case("upper case in trailers", post() + raw(b"\0\1X\1y"), MALFORMED),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_messages(case: Case, worker: int) -> None:
    case.run(worker)


@pytest.mark.parametrize("case", BEYOND, ids=lambda c: c.name)
def test_beyond_the_suite(case: Case, worker: int) -> None:
    case.run(worker)

"""Header rules, against the `h2` library's as the oracle."""

import h2.config
import h2.connection
import h2.exceptions
import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.http2 import frames
from tritonfleet.http2.fieldrules import MOST_FIELDS, request_fault, trailers_fault

GOOD = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/x.Y/Z"),
    (b":authority", b"host:1"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
)


def test_a_grpc_request_is_in_order() -> None:
    assert request_fault(GOOD) == ""
    assert request_fault((*GOOD, (b"host", b"host:1"))) == "", "the same said twice"
    assert request_fault((*GOOD, (b"x-bin", b"AAEC"), (b"grpc-timeout", b"1S"), (b"user_agent", b""))) == ""


FAULTS = {
    "upper case": ((*GOOD, (b"X-Custom", b"1")), "lower case"),
    "empty name": ((*GOOD, (b"", b"1")), "lower case"),
    "space in name": ((*GOOD, (b"x y", b"1")), "lower case"),
    "colon in name": ((*GOOD, (b"x:y", b"1")), "lower case"),
    "line feed": ((*GOOD, (b"x", b"1\nadmin: yes")), "control character"),
    "carriage return": ((*GOOD, (b"x", b"1\r")), "control character"),
    "nul": ((*GOOD, (b"x", b"a\0b")), "control character"),
    "nul in path": (((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a\0")), "control character"),
    "space after the path": (
        ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a ")),
        "white space",
    ),
    "empty scheme": (((b":method", b"POST"), (b":scheme", b""), (b":path", b"/a")), "empty"),
    "no method": (GOOD[1:], "no :method"),
    "no path": (GOOD[:2] + GOOD[3:], "no :path"),
    "path twice": ((*GOOD[:4], (b":path", b"/other"), *GOOD[4:]), "twice"),
    "pseudo at the end": ((*GOOD[1:], (b":method", b"POST")), "after a regular field"),
    "unknown pseudo": (((b":status", b"200"), *GOOD), "unknown pseudo-header"),
    "connection": ((*GOOD, (b"connection", b"close")), "another connection"),
    "transfer-encoding": ((*GOOD, (b"transfer-encoding", b"chunked")), "another connection"),
    "te": ((*GOOD[:-1], (b"te", b"gzip")), "another connection"),
    "host twice": ((*GOOD, (b"host", b"host:1"), (b"host", b"host:1")), "b'host' twice"),
    "host is another": ((*GOOD, (b"host", b"other")), "two authorities"),
    "too many": (GOOD + tuple((b"x%d" % n, b"") for n in range(MOST_FIELDS)), "at most 100"),
}


def test_white_space_around_metadata_is_taken_as_grpc_servers_take_it() -> None:
    assert request_fault((*GOOD, (b"x", b" a b\t"))) == ""


@pytest.mark.parametrize("case", FAULTS)
def test_faults(case: str) -> None:
    items, words = FAULTS[case]
    assert words in request_fault(items)


names = st.sampled_from(
    [
        b":method",
        b":path",
        b":scheme",
        b":authority",
        b":status",
        b"te",
        b"connection",
        b"upgrade",
        b"x",
        b"X",
        b"a-b",
    ]
)
values = st.sampled_from([b"POST", b"/a", b"http", b"h", b"trailers", b"1", b"a\rb", b"a\nb", b"a\0b"])


@given(st.permutations(GOOD[:4]), st.lists(st.tuples(names, values), max_size=3), st.integers(0, 5))
def test_what_h2_refuses_is_refused_here(
    pseudo: list[tuple[bytes, bytes]], extra: list[tuple[bytes, bytes]], at: int
) -> None:
    items = [*pseudo, *GOOD[4:]]
    items[at:at] = extra
    block = hpack.Encoder().encode([(name, value, True) for name, value in items])
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    server.initiate_connection()
    server.receive_data(frames.PREFACE + frames.settings({}))
    data = frames.frame(frames.HEADERS, frames.END_HEADERS, b"\0\0\0\1", block)
    try:
        events = server.receive_data(data)
    except h2.exceptions.ProtocolError:
        refused = True
    else:
        refused = not any(type(event).__name__ == "RequestReceived" for event in events)
    if refused:
        assert request_fault(tuple(items))


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (((b"x", b"1"), (b"x-bin", b"AAEC")), ""),
        ((), ""),
        (((b":path", b"/"),), "in trailers"),
        (((b"X", b"1"),), "lower case"),
        (((b"", b"1"),), "lower case"),
        (((b"x", b"1\n"),), "control character"),
        (((b"connection", b"close"),), "another connection"),
        (tuple((b"x%d" % n, b"") for n in range(MOST_FIELDS + 1)), "at most 100"),
    ],
)
def test_trailers(items: tuple[tuple[bytes, bytes], ...], words: str) -> None:
    assert words in trailers_fault(items)
    assert bool(trailers_fault(items)) is bool(words)

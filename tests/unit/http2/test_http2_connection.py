"""The connection as a dialogue of frames."""

import pytest
from http2_dialogue import (
    ClientRecorder,
    Dialogue,
    Recorder,
    data_frame,
    headers_frame,
    parse,
    setting,
    sid,
    started,
)
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.http2 import frames
from tritonfleet.http2.fields import encode
from tritonfleet.http2.frames import ErrorCode, ProtocolError
from tritonfleet.http2.sending import MAX_FRAME, REMEMBERED_RESETS
from tritonfleet.http2.stream import Buffer, Stream, kept, put

END = frames.END_STREAM
END_HEADERS = frames.END_HEADERS
ANSWER = encode(((b":status", b"200"),))
REQUEST = {b":method": b"POST", b":path": b"/x.Y/Z", b"content-type": b"application/grpc"}


def opened(**settings: int) -> tuple[Dialogue, Stream]:
    """A server's connection on which the peer has opened stream 1."""
    dialogue = started(Recorder(), **settings)
    dialogue >> headers_frame(1, dialogue.block())
    dialogue.events()
    return dialogue, dialogue.connection.streams[sid(1)]


def test_a_server_greets_with_settings_and_a_large_window() -> None:
    dialogue = Dialogue(Recorder())
    dialogue << ["Settings 0", f"WindowUpdate 0 +{Recorder.connection_window - 65535}"]


def test_a_client_greets_with_the_preface_first() -> None:
    connection = ClientRecorder()
    assert b"".join(bytes(part) for part in connection.out).startswith(frames.PREFACE)


def test_settings_are_acknowledged_and_pings_answered() -> None:
    dialogue = Dialogue(Recorder())
    dialogue.sent()
    dialogue >> frames.PREFACE + frames.settings({}) + frames.ping(b"12345678")
    dialogue << ["Settings 0 ACK", "Ping 0 ACK"]
    dialogue >> frames.ping(b"abcdefgh", ack=True)
    assert dialogue.events() == [("ping ack", b"abcdefgh")]


def test_a_call_arrives_and_its_answer_leaves() -> None:
    dialogue, stream = opened()
    dialogue >> data_frame(1, b"hello", END)
    assert dialogue.events() == [("data", 1, b"hello", True)]
    dialogue.connection.send_headers(stream, ANSWER, False)
    assert dialogue.connection.send_data(stream, b"world", False)
    dialogue.connection.send_headers(stream, encode(((b"grpc-status", b"0"),)), True)
    dialogue << [
        "Headers 1 :status=200 END_HEADERS",
        "Data 1 'world'",
        "Headers 1 grpc-status=0 END_HEADERS END_STREAM",
    ]
    assert dialogue.connection.streams == {}


@pytest.mark.parametrize("flags", [0, frames.PADDED])
def test_the_reserved_bit_of_a_stream_s_number_is_ignored(flags: int) -> None:
    """RFC 9113, 4.1: whatever frame it stands in, of whatever stream."""
    dialogue = started(Recorder())
    stream = b"\x80\0\0\1"
    dialogue >> frames.frame(frames.HEADERS, END_HEADERS, stream, dialogue.block())
    room = dialogue.connection.receive_room
    payload = b"\0hello" if flags else b"hello"
    dialogue >> frames.frame(frames.DATA, flags | END, stream, payload)
    assert dialogue.events()[1:] == [("data", 1, b"hello", True)]
    assert dialogue.connection.receive_room == room - len(payload)
    with pytest.raises(ProtocolError, match="DATA on a stream that was never opened"):
        dialogue >> frames.frame(frames.DATA, END, b"\x80\0\0\3", b"hello")


@given(st.data())
def test_any_split_of_the_bytes_gives_the_same_events(data: st.DataObject) -> None:
    whole = Dialogue(Recorder())
    conversation = (
        frames.PREFACE
        + frames.settings({})
        + headers_frame(1, whole.block())
        + data_frame(1, b"x" * 100)
        + frames.frame(frames.DATA, frames.PADDED, sid(1), b"\3" + b"y" * 20 + b"\0\0\0")
        + headers_frame(3, encode(((b"a", b"b"),)), 0)
        + frames.frame(frames.CONTINUATION, END_HEADERS, sid(3), encode(((b"c", b"d"),)))
        + data_frame(1, b"z" * 5000, END)
        + frames.ping(b"12345678")
    )
    whole >> conversation
    cuts = sorted(data.draw(st.lists(st.integers(0, len(conversation)), max_size=12)))
    pieces = Dialogue(Recorder())
    for start, end in zip([0, *cuts], [*cuts, len(conversation)], strict=True):
        pieces >> conversation[start:end]
    assert _joined(pieces.events()) == _joined(whole.events())
    assert pieces.sent() == whole.sent()


def _joined(events: list[tuple]) -> list[tuple]:
    """Adjacent pieces of one stream's data as one: where a frame was cut is nobody's business."""
    joined: list[tuple] = []
    for event in events:
        last = joined[-1] if joined else ("",)
        if event[0] == "data" == last[0] and event[1] == last[1] and not last[3]:
            joined[-1] = ("data", event[1], last[2] + event[2], event[3])
        else:
            joined.append(event)
    return joined


# ---------------------------------------------------------------- header blocks


def test_a_header_block_in_continuations() -> None:
    dialogue = started(Recorder())
    block = dialogue.block()
    dialogue >> headers_frame(1, block[:3], END) + frames.frame(frames.CONTINUATION, 0, sid(1), block[3:5])
    assert dialogue.events() == []
    dialogue >> frames.frame(frames.CONTINUATION, END_HEADERS, sid(1), block[5:])
    assert dialogue.events() == [("headers", 1, REQUEST, True)]


def test_a_header_block_with_padding_and_priority() -> None:
    dialogue = started(Recorder())
    payload = b"\2" + b"\0\0\0\0\x10" + dialogue.block() + b"\0\0"
    dialogue >> headers_frame(1, payload, END_HEADERS | frames.PADDED | frames.HAS_PRIORITY)
    assert dialogue.events() == [("headers", 1, REQUEST, False)]


def test_a_long_header_block_is_sent_in_continuations() -> None:
    dialogue, stream = opened()
    dialogue.connection.send_headers(stream, encode(((b"k", b"v" * 40_000),)), True)
    sent = b"".join(bytes(part) for part in dialogue.connection.take_output())
    kinds = []
    while sent:
        length = int.from_bytes(sent[:3], "big")
        kinds.append((sent[3], sent[4], length))
        sent = sent[9 + length :]
    assert [kind for kind, _, _ in kinds] == [frames.HEADERS, frames.CONTINUATION, frames.CONTINUATION]
    assert all(length <= frames.DEFAULT_MAX_FRAME for _, _, length in kinds)
    assert kinds[0][1] == END
    assert kinds[-1][1] == END_HEADERS


# ---------------------------------------------------------------- flow control


def test_padding_is_charged_and_credited() -> None:
    dialogue, stream = opened()
    room = stream.receive_room
    dialogue >> frames.frame(frames.DATA, frames.PADDED, sid(1), b"\5" + b"abc" + bytes(5))
    assert dialogue.events() == [("data", 1, b"abc", False)]
    assert room - stream.receive_room == 9
    assert stream.drained == 6  # the pad length's byte and the padding left us at once


def test_data_waits_for_the_streams_window_and_drains_in_order() -> None:
    dialogue, stream = opened(INITIAL_WINDOW_SIZE=10)
    connection = dialogue.connection
    assert connection.send_data(stream, b"0123456789", False)
    assert not connection.send_data(stream, b"abcdef", False)
    connection.send_headers(stream, encode(((b"grpc-status", b"0"),)), True)
    dialogue << ["Data 1 '0123456789'"]
    dialogue >> frames.window_update(sid(1), 4)
    dialogue << ["Data 1 'abcd'"]
    assert dialogue.events() == [("drained", 1, 4)]
    dialogue >> frames.window_update(sid(1), 2)
    dialogue << ["Data 1 'ef'", "Headers 1 grpc-status=0 END_HEADERS END_STREAM"]
    assert dialogue.events() == [("drained", 1, 2)]


def test_trailers_leave_at_a_window_of_exactly_zero() -> None:
    dialogue, stream = opened(INITIAL_WINDOW_SIZE=5)
    assert dialogue.connection.send_data(stream, b"12345", False)
    dialogue.connection.send_headers(stream, encode(((b"grpc-status", b"0"),)), True)
    dialogue << ["Data 1 '12345'", "Headers 1 grpc-status=0 END_HEADERS END_STREAM"]


def test_an_empty_last_frame_needs_no_window() -> None:
    dialogue, stream = opened(INITIAL_WINDOW_SIZE=0)
    assert dialogue.connection.send_data(stream, b"", True)
    dialogue << ["Data 1 '' END_STREAM"]


def test_an_empty_last_frame_needs_no_window_that_is_in_debt_either() -> None:
    """As when a peer makes its initial window smaller than what it was sent."""
    dialogue, stream = opened(INITIAL_WINDOW_SIZE=10)
    assert dialogue.connection.send_data(stream, b"12345678", False)
    dialogue >> setting(frames.SETTINGS_INITIAL_WINDOW_SIZE, 0)
    dialogue << ["Data 1 '12345678'", "Settings 0 ACK"]
    room, of_connection = stream.send_room, dialogue.connection.send_room
    assert room == -8
    dialogue.connection.send_data(stream, b"", False)
    dialogue.connection.send_data(stream, b"", True)
    dialogue << ["Data 1 ''", "Data 1 '' END_STREAM"]
    assert (stream.send_room, dialogue.connection.send_room) == (room, of_connection)
    assert dialogue.connection.queued_bytes == 0


def test_one_stalled_stream_does_not_stall_another() -> None:
    dialogue, first = opened(INITIAL_WINDOW_SIZE=4)
    dialogue >> headers_frame(3, dialogue.block())
    second = dialogue.connection.streams[sid(3)]
    assert not dialogue.connection.send_data(first, b"too long", False)
    assert dialogue.connection.send_data(second, b"ok", False)
    dialogue << ["Data 1 'too '", "Data 3 'ok'"]


def test_the_connections_window_is_shared_and_served_in_turn() -> None:
    dialogue, first = opened(INITIAL_WINDOW_SIZE=1 << 20)
    dialogue >> headers_frame(3, dialogue.block())
    second = dialogue.connection.streams[sid(3)]
    dialogue.connection.send_room = 2
    dialogue.connection.send_data(first, b"aaaa", False)
    dialogue.connection.send_data(second, b"bbbb", False)
    dialogue << ["Data 1 'aa'"]
    dialogue >> frames.window_update(sid(0), 4)
    dialogue << ["Data 1 'aa'", "Data 3 'bb'"]
    dialogue >> frames.window_update(sid(0), 4)
    dialogue << ["Data 3 'bb'"]


def test_data_larger_than_the_peers_frame_size_is_cut() -> None:
    dialogue, stream = opened(INITIAL_WINDOW_SIZE=1 << 20)
    dialogue.connection.send_data(stream, b"x" * 40_000, True)
    dialogue << ["Data 1 16384 bytes", "Data 1 16384 bytes", "Data 1 7232 bytes END_STREAM"]


def test_an_unwritable_socket_holds_data_back() -> None:
    dialogue, stream = opened()
    dialogue.connection.set_writable(False)
    assert not dialogue.connection.send_data(stream, b"later", False)
    dialogue << []
    dialogue.connection.set_writable(True)
    dialogue << ["Data 1 'later'"]


def test_a_sender_is_credited_only_for_what_has_drained() -> None:
    dialogue, stream = opened()
    half = Recorder.stream_window >> 1
    dialogue >> data_frame(1, b"x" * half)
    dialogue << []
    dialogue.connection.credit(stream, half - 1)
    dialogue << []
    dialogue.connection.credit(stream, 1)
    dialogue << [f"WindowUpdate 1 +{half}"]


@pytest.mark.parametrize("waits", [False, True])
def test_who_asks_for_a_smaller_header_table_is_told_once_that_there_is_none(waits: bool) -> None:
    dialogue, stream = opened(INITIAL_WINDOW_SIZE=0)
    dialogue >> headers_frame(3, dialogue.block())
    for size in (8192, 4095, 100, 0):
        dialogue >> setting(frames.SETTINGS_HEADER_TABLE_SIZE, size)
    dialogue.connection.take_output()
    if waits:
        dialogue.connection.send_data(stream, b"12", False)
    block = encode(((b":status", b"200"), (b"x", b"y" * 2000)))
    dialogue.connection.send_headers(stream, block, False)
    dialogue >> frames.window_update(sid(1), 2)
    dialogue.connection.send_headers(dialogue.connection.streams[sid(3)], block, False)
    sent = [f for f in parse(b"".join(map(bytes, dialogue.connection.take_output()))) if f.body_len > 2000]
    assert [frame.data for frame in sent] == [b"\x20" + block, block]


def test_many_small_frames_are_looked_at_in_turns() -> None:
    dialogue, _ = opened()
    connection = dialogue.connection
    connection.bytes_per_turn = 100
    dialogue.events()
    connection.receive(data_frame(1, b"x") * 25)
    turns = [len(dialogue.events())]
    while connection.interrupted:
        connection.interrupted = False
        connection.receive(b"")
        turns.append(len(dialogue.events()))
    assert turns == [10, 10, 5]


def test_large_frames_take_no_others_turn() -> None:
    dialogue, _ = opened()
    dialogue.connection.bytes_per_turn = 100
    dialogue.events()
    dialogue.connection.receive(data_frame(1, bytes(2000)) * 3 + data_frame(1, bytes(10_000)) * 3)
    assert len(dialogue.events()) == 6
    assert not dialogue.connection.interrupted


def test_a_large_header_block_is_as_many_streams_to_the_others_turn() -> None:
    dialogue, _ = opened()
    connection = dialogue.connection
    connection.streams_per_turn = 4
    block = encode((*REQUEST.items(), (b"x", b"y" * 3100)))
    dialogue.events()
    connection.receive(b"".join(headers_frame(number, block) for number in (3, 5, 7)))
    assert connection.interrupted
    assert [event[1] for event in dialogue.events()] == [3]


def test_a_new_initial_window_moves_the_streams_that_are_open() -> None:
    dialogue, stream = opened(INITIAL_WINDOW_SIZE=4)
    dialogue.connection.send_data(stream, b"12345678", False)
    dialogue.sent()
    dialogue >> setting(frames.SETTINGS_INITIAL_WINDOW_SIZE, 6)
    dialogue << ["Data 1 '56'", "Settings 0 ACK"]
    dialogue >> setting(frames.SETTINGS_INITIAL_WINDOW_SIZE, 0)
    dialogue >> frames.window_update(sid(1), 6)  # pays the debt of -6 only
    dialogue << ["Settings 0 ACK"]
    dialogue >> frames.window_update(sid(1), 2)
    dialogue << ["Data 1 '78'"]


@given(st.lists(st.integers(0, 3000), max_size=30), st.lists(st.integers(1, 4000), max_size=60))
def test_every_byte_leaves_once_whatever_the_windows(sizes: list[int], increments: list[int]) -> None:
    dialogue, stream = opened(INITIAL_WINDOW_SIZE=100)
    message = bytes(range(256)) * 400
    at = sent_at_once = 0
    for size in sizes:
        if dialogue.connection.send_data(stream, message[at : at + size], False):
            sent_at_once += size
        at += size
    for credit in [*increments, 100_000]:
        dialogue >> frames.window_update(sid(1), credit)
        dialogue >> frames.window_update(sid(0), credit)
    out = b"".join(bytes(part) for part in dialogue.connection.take_output())
    payload = b""
    while out:
        length = int.from_bytes(out[:3], "big")
        if out[3] == frames.DATA:
            payload += out[9 : 9 + length]
        out = out[9 + length :]
    assert payload == message[:at]
    assert sum(event[2] for event in dialogue.events()) == at - sent_at_once


# ---------------------------------------------------------------- endings


def test_a_reset_discards_what_waited() -> None:
    dialogue, stream = opened(INITIAL_WINDOW_SIZE=0)
    dialogue.connection.send_data(stream, b"never", False)
    dialogue >> frames.rst_stream(sid(1), ErrorCode.CANCEL)
    assert dialogue.events() == [("drained", 1, 5), ("reset", 1, ErrorCode.CANCEL)]
    assert dialogue.connection.streams == {}
    assert not dialogue.connection.blocked


def test_a_reset_of_ours_can_wait_behind_the_answer() -> None:
    dialogue, stream = opened(INITIAL_WINDOW_SIZE=2)
    dialogue.connection.send_data(stream, b"abc", False)
    dialogue.connection.send_headers(stream, encode(((b"grpc-status", b"0"),)), True)
    dialogue.connection.send_reset(stream, ErrorCode.NO_ERROR, after_queue=True)
    dialogue << ["Data 1 'ab'"]
    dialogue >> frames.window_update(sid(1), 1)
    dialogue << ["Data 1 'c'", "Headers 1 grpc-status=0 END_HEADERS END_STREAM", "RstStream 1 NO_ERROR"]


def test_data_of_a_stream_that_was_reset_is_credited_to_the_connection() -> None:
    dialogue, stream = opened()
    dialogue.connection.send_reset(stream, ErrorCode.CANCEL)
    dialogue.sent()
    dialogue >> data_frame(1, b"x" * 1000)
    assert dialogue.events() == []
    assert dialogue.connection.drained == 1000


def test_goaway_is_reported() -> None:
    dialogue = started(ClientRecorder())
    dialogue >> frames.goaway(sid(7), ErrorCode.NO_ERROR, b"bye")
    assert dialogue.events() == [("goaway", 7, 0, b"bye")]


def test_frames_of_unknown_types_are_ignored() -> None:
    dialogue, _ = opened()
    dialogue >> frames.frame(0x42, 0xFF, sid(1), b"whatever")
    assert dialogue.events() == []


# ---------------------------------------------------------------- broken rules

BROKEN = {
    "no preface": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ErrorCode.PROTOCOL_ERROR),
    "frame before settings": (frames.PREFACE + frames.ping(b"12345678"), ErrorCode.PROTOCOL_ERROR),
    "data on an idle stream": (data_frame(5, b"x"), ErrorCode.PROTOCOL_ERROR),
    "headers on stream 0": (headers_frame(0, b""), ErrorCode.PROTOCOL_ERROR),
    "an even stream": (headers_frame(2, b"\x82"), ErrorCode.PROTOCOL_ERROR),
    "interrupted block": (headers_frame(1, b"\x82", 0) + frames.ping(b"12345678"), ErrorCode.PROTOCOL_ERROR),
    "data in a block": (headers_frame(1, b"\x82", 0) + data_frame(1, b"x"), ErrorCode.PROTOCOL_ERROR),
    "continuation alone": (frames.frame(frames.CONTINUATION, 4, sid(1)), ErrorCode.PROTOCOL_ERROR),
    "too many continuations": (
        headers_frame(1, b"", 0) + frames.frame(frames.CONTINUATION, 0, sid(1), b"") * 9,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "broken hpack": (headers_frame(1, b"\xff\xff\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
    "window update of 0": (frames.window_update(sid(0), 0), ErrorCode.PROTOCOL_ERROR),
    "window overflow": (frames.window_update(sid(0), 0x7FFFFFFF), ErrorCode.FLOW_CONTROL_ERROR),
    "short window update": (
        frames.frame(frames.WINDOW_UPDATE, 0, sid(0), b"abc"),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "reset of an idle stream": (frames.rst_stream(sid(9), 8), ErrorCode.PROTOCOL_ERROR),
    "short ping": (frames.frame(frames.PING, 0, sid(0), b"abc"), ErrorCode.FRAME_SIZE_ERROR),
    "ping on a stream": (frames.frame(frames.PING, 0, sid(1), b"12345678"), ErrorCode.PROTOCOL_ERROR),
    "settings of 5 bytes": (frames.frame(frames.SETTINGS, 0, sid(0), b"12345"), ErrorCode.FRAME_SIZE_ERROR),
    "settings on a stream": (frames.frame(frames.SETTINGS, 0, sid(1)), ErrorCode.PROTOCOL_ERROR),
    "frame size too small": (setting(frames.SETTINGS_MAX_FRAME_SIZE, 100), ErrorCode.PROTOCOL_ERROR),
    "window too large": (setting(frames.SETTINGS_INITIAL_WINDOW_SIZE, 1 << 31), ErrorCode.FLOW_CONTROL_ERROR),
    "push": (frames.frame(frames.PUSH_PROMISE, 4, sid(1), b"\0\0\0\2"), ErrorCode.PROTOCOL_ERROR),
    "huge settings": (b"\xff\xff\xff\x04\0\0\0\0\0", ErrorCode.FRAME_SIZE_ERROR),
    "huge data": ((MAX_FRAME + 1).to_bytes(3, "big") + b"\0\0" + sid(1), ErrorCode.FRAME_SIZE_ERROR),
    "priority of 4 bytes": (frames.frame(frames.PRIORITY, 0, sid(1), b"1234"), ErrorCode.FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_a_connection_error(case: str) -> None:
    data, code = BROKEN[case]
    dialogue = (
        Dialogue(Recorder()) if case in ("no preface", "frame before settings") else started(Recorder())
    )
    with pytest.raises(ProtocolError) as caught:
        dialogue >> data
    assert caught.value.code == code
    assert str(caught.value)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (data_frame(1, b"more"), ErrorCode.STREAM_CLOSED),
        (headers_frame(1, b"\x82"), ErrorCode.STREAM_CLOSED),
    ],
)
def test_nothing_may_follow_the_end_of_a_stream(frame: bytes, code: ErrorCode) -> None:
    dialogue, _ = opened()
    dialogue >> data_frame(1, b"", END)
    with pytest.raises(ProtocolError) as caught:
        dialogue >> frame
    assert caught.value.code == code


def test_more_data_than_the_window_is_an_error() -> None:
    dialogue, _ = opened()
    dialogue >> data_frame(1, b"x" * Recorder.stream_window)
    with pytest.raises(ProtocolError, match="window") as caught:
        dialogue >> data_frame(1, b"x")
    assert caught.value.code == ErrorCode.FLOW_CONTROL_ERROR


def test_padding_longer_than_its_frame_is_an_error() -> None:
    dialogue, _ = opened()
    with pytest.raises(ProtocolError, match="padding"):
        dialogue >> frames.frame(frames.DATA, frames.PADDED, sid(1), b"\5abc")


def test_headers_for_a_stream_the_client_never_opened() -> None:
    dialogue = started(ClientRecorder())
    with pytest.raises(ProtocolError, match="never opened"):
        dialogue >> headers_frame(1, b"\x88")


def test_stream_identifiers_run_out_loudly() -> None:
    connection = ClientRecorder()
    connection.next_stream = 0x80000001
    with pytest.raises(OverflowError):
        connection.open_stream_id()


def test_a_streams_repr_tells_its_halves() -> None:
    dialogue, stream = opened()
    assert repr(stream) == "<Stream 1 <>>"
    dialogue >> data_frame(1, b"", END)
    assert repr(stream) == "<Stream 1 ->>"


def test_late_frames_of_what_we_reset_are_no_offence_however_many_that_were() -> None:
    """Only so many resets are remembered; what fell out of the memory gets the benefit of the doubt."""
    connection = Recorder()
    dialogue = started(connection)
    last = 2 * REMEMBERED_RESETS + 21
    for number in range(1, last + 1, 2):
        dialogue >> headers_frame(number, b"\x83\x86\x84")
        connection.send_reset(connection.streams[sid(number)], ErrorCode.REFUSED_STREAM)
    assert len(connection._abandoned) == REMEMBERED_RESETS
    for number in (1, last):
        dialogue >> data_frame(number, b"late") >> headers_frame(number, b"\x83\x86\x84")
    dialogue >> headers_frame(last + 2, b"\x83\x86\x84", frames.END_HEADERS | frames.END_STREAM)
    connection.send_headers(connection.streams[sid(last + 2)], b"", True)  # both have ended it: no reset
    with pytest.raises(ProtocolError, match="its sender has closed"):
        dialogue >> data_frame(last + 2, b"late")


@pytest.mark.parametrize("size", [1, 2, 100, 256])
def test_small_pieces_that_wait_are_put_together(size: int) -> None:
    """Each alone would take more memory than it has bytes, tens of times as much if they have one or two."""
    dialogue, stream = opened()
    server = dialogue.connection
    server.writable = False
    pieces = [bytes([number % 251]) * size for number in range(16_384 // size)]
    for piece in pieces[:-1]:
        server.send_data(stream, piece, False)
    server.send_data(stream, pieces[-1], True)
    assert stream.queue is not None
    assert len(stream.queue) <= 5
    assert stream.queued_bytes == len(pieces) * size
    waiting = b"".join(bytes(first[0]) for first in stream.queue if first[0] is not None)
    assert waiting == b"".join(pieces)
    assert [first[1] for first in stream.queue] == [False] * (len(stream.queue) - 1) + [True]


def test_what_is_kept_of_a_message() -> None:
    read = bytes(100_000)
    assert kept(memoryview(read)[:20_000]) == read[:20_000]
    assert type(kept(memoryview(read)[:20_000])) is bytes  # not the whole read for a fifth of it
    assert type(kept(memoryview(read)[:60_000])) is memoryview
    parts: list[Buffer] = [b"first"]
    for _ in range(3000):
        put(parts, b"ab")
    put(parts, read)
    assert b"".join(parts) == b"first" + b"ab" * 3000 + read
    assert len(parts) == 4

"""A conversation with one sans-I/O connection: ``>>`` puts frames in, ``<<`` says what must come out.

The connection under test is a `Recorder`: it writes down its events in the order they come.
"""

import struct
from typing import Any

import hpack
from hyperframe.frame import Frame

from tritonfleet.http2 import frames
from tritonfleet.http2.connection import Connection
from tritonfleet.http2.fields import Fields
from tritonfleet.http2.sending import Sender
from tritonfleet.http2.stream import Buffer, Stream


def sid(number: int) -> bytes:
    return number.to_bytes(4, "big")


class Recorder(Connection):
    """Accepts every stream and credits nothing by itself."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.shared: list[Sender] = []
        super().__init__(self.shared)

    def on_headers(self, stream_id: bytes, stream: Stream | None, fields: Fields, end_stream: bool) -> None:
        number = int.from_bytes(stream_id, "big")
        if stream is None:
            stream = self.streams[stream_id] = Stream(self, stream_id)
            stream.receive_closed = end_stream
        self.events.append(("headers", number, dict(fields.items), end_stream))

    def on_data(self, stream: Stream, payload: Buffer, end_stream: bool) -> None:
        self.events.append(("data", int.from_bytes(stream.id, "big"), bytes(payload), end_stream))

    def on_reset(self, stream: Stream, code: int) -> None:
        self.events.append(("reset", int.from_bytes(stream.id, "big"), code))

    def on_goaway(self, last_stream: bytes, code: int, debug: bytes) -> None:
        self.events.append(("goaway", int.from_bytes(last_stream, "big"), code, debug))

    def on_drained(self, stream: Stream, size: int) -> None:
        self.events.append(("drained", int.from_bytes(stream.id, "big"), size))

    def on_ping_ack(self, opaque: bytes) -> None:
        self.events.append(("ping ack", opaque))


class ClientRecorder(Recorder):
    is_client = True


class Dialogue:
    def __init__(self, connection: Recorder) -> None:
        self.connection = connection
        self.encoder = hpack.Encoder()

    def __rshift__(self, data: bytes) -> "Dialogue":
        """Bytes arrive from the peer."""
        self.connection.receive(data)
        return self

    def __lshift__(self, expected: list[str]) -> "Dialogue":
        """Exactly these frames have gone out since the last look, in short form (see `sent`)."""
        assert self.sent() == expected
        return self

    def sent(self) -> list[str]:
        data = b"".join(bytes(part) for part in self.connection.take_output())
        self.connection.shared.clear()
        data = data.removeprefix(frames.PREFACE)
        return [_short(frame) for frame in parse(data)]

    def events(self) -> list[tuple[Any, ...]]:
        events, self.connection.events = self.connection.events, []
        return events

    def block(self, **extra: str) -> bytes:
        """A gRPC request's header block, through a real HPACK encoder (it uses the dynamic table)."""
        fields = [(":method", "POST"), (":path", "/x.Y/Z"), ("content-type", "application/grpc")]
        return self.encoder.encode(
            [*fields, *((key.replace("_", "-"), value) for key, value in extra.items())]
        )


def started(connection: Recorder, **settings: int) -> Dialogue:
    """A dialogue whose greetings are over."""
    dialogue = Dialogue(connection)
    if not connection.is_client:
        dialogue >> frames.PREFACE
    dialogue >> frames.settings(
        {getattr(frames, f"SETTINGS_{key}"): value for key, value in settings.items()}
    )
    dialogue >> frames.SETTINGS_ACK
    dialogue.sent()
    return dialogue


def parse(data: bytes) -> list[Frame]:
    found = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data)[:9])
        frame.parse_body(memoryview(data)[9 : 9 + length])
        found.append(frame)
        data = data[9 + length :]
    return found


def _short(frame: Frame) -> str:
    """``DATA 1 "abc" END_STREAM``, ``WINDOW_UPDATE 0 +131072``, ``RST_STREAM 1 CANCEL`` …"""
    name = type(frame).__name__.removesuffix("Frame")
    flags = " ".join(sorted(flag for flag in frame.flags))
    detail = ""
    if name == "Data":
        detail = repr(frame.data.decode()) if len(frame.data) < 40 else f"{len(frame.data)} bytes"
    elif name == "WindowUpdate":
        detail = f"+{frame.window_increment}"
    elif name in ("RstStream", "GoAway"):
        detail = frames.ErrorCode(frame.error_code).name
    elif name == "Headers":
        detail = " ".join(f"{key}={value}" for key, value in hpack.Decoder().decode(frame.data))
    return " ".join(part for part in (name, str(frame.stream_id), detail, flags) if part)


def data_frame(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return frames.frame(frames.DATA, flags, sid(stream), payload)


def headers_frame(stream: int, block: bytes, flags: int = frames.END_HEADERS) -> bytes:
    return frames.frame(frames.HEADERS, flags, sid(stream), block)


def setting(key: int, value: int) -> bytes:
    return frames.frame(frames.SETTINGS, 0, sid(0), struct.pack(">HI", key, value))

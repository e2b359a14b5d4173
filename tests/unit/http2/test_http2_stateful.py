"""A conversation of any length with an `h2` client: whatever each side does, and however TCP cuts the bytes,
every byte arrives once and in order, and windows add up.

The model is what each side has said; bytes lie on two wires until a rule delivers some of them.
"""

from dataclasses import dataclass

import h2.config
import h2.connection
import h2.events
from http2_dialogue import Recorder, sid
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tritonfleet.http2.fields import encode
from tritonfleet.http2.frames import ErrorCode
from tritonfleet.http2.stream import Stream

REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/x.Y/Z"), (":authority", "x")]
ANSWER = encode(((b":status", b"200"),))
TRAILERS = encode(((b"grpc-status", b"0"),))


@dataclass
class Said:
    """Of one stream: what the client sent and what we answered, as sent and as it has arrived."""

    asked: bytes = b""
    heard: bytes = b""
    answered: bytes = b""
    received: bytes = b""
    uncredited: int = 0
    client_ended: bool = False
    began: bool = False  # our response headers went out
    ended: bool = False
    reset: bool = False  # by either side: what is on its way then may be lost


class Conversation(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self.client.initiate_connection()
        self.us = Recorder()
        self.to_us, self.to_client = b"", b""
        self.streams: dict[int, Said] = {}
        self.pings = self.pongs = 0
        self.uncredited = 0  # bytes of DATA that we have taken and not credited
        self.exchange(1.0, 1.0)

    # ------------------------------------------------------------ the wires

    @rule(to_us=st.floats(0, 1), to_client=st.floats(0, 1))
    def exchange(self, to_us: float, to_client: float) -> None:
        """So much of what is on the wires arrives."""
        self.to_us += self.client.data_to_send()
        at = round(len(self.to_us) * to_us)
        self.us.receive(self.to_us[:at])
        self.to_us = self.to_us[at:]
        for event in self.us.events:
            self.hear(event)
        self.us.events.clear()
        self.to_client += b"".join(bytes(part) for part in self.us.take_output())
        at = round(len(self.to_client) * to_client)
        for event in self.client.receive_data(self.to_client[:at]):
            self.client_hears(event)
        self.to_client = self.to_client[at:]

    def hear(self, event: tuple) -> None:
        kind, stream = event[0], self.streams.get(event[1])
        if kind == "data":
            assert stream is not None
            stream.heard += event[2]
            stream.uncredited += len(event[2])
            self.uncredited += len(event[2])
            assert stream.asked.startswith(stream.heard)
        elif kind == "drained":
            pass  # what had waited for a window has gone, or was thrown away with a reset

    def client_hears(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.DataReceived):
            stream = self.streams[event.stream_id]
            stream.received += event.data
            assert stream.answered.startswith(stream.received)
            self.client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.PingAckReceived):
            self.pongs += 1
        assert not isinstance(event, h2.events.ConnectionTerminated), event

    # ------------------------------------------------------------ what the client does

    @rule()
    def ask(self) -> None:
        number = self.client.get_next_available_stream_id()
        self.client.send_headers(number, REQUEST)
        self.streams[number] = Said()

    def open_at_client(self) -> list[int]:
        return [n for n, said in self.streams.items() if not said.client_ended and not said.reset]

    @precondition(open_at_client)
    @rule(data=st.data(), size=st.integers(0, 40_000), padding=st.none() | st.integers(0, 255))
    def say(self, data: st.DataObject, size: int, padding: int | None) -> None:
        number = data.draw(st.sampled_from(self.open_at_client()))
        overhead = 0 if padding is None else padding + 1
        window = self.client.local_flow_control_window(number)
        size = min(size, window - overhead, self.client.max_outbound_frame_size - overhead)
        if size > 0:
            payload = bytes((len(self.streams[number].asked) + i) % 251 for i in range(size))
            self.client.send_data(number, payload, pad_length=padding)
            self.streams[number].asked += payload

    @precondition(open_at_client)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.open_at_client()))
        self.client.end_stream(number)
        self.streams[number].client_ended = True

    @precondition(open_at_client)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.open_at_client()))
        self.client.reset_stream(number, ErrorCode.CANCEL)
        self.streams[number].reset = True

    @rule()
    def ping(self) -> None:
        self.client.ping(b"12345678")
        self.pings += 1

    # ------------------------------------------------------------ what we do

    def open_here(self) -> list[int]:
        """Streams that we know, and whose answer is not over."""
        return [n for n, said in self.streams.items() if sid(n) in self.us.streams and not said.ended]

    def ours(self, data: st.DataObject) -> tuple[Said, Stream]:
        number = data.draw(st.sampled_from(self.open_here()))
        return self.streams[number], self.us.streams[sid(number)]

    @precondition(open_here)
    @rule(data=st.data(), size=st.integers(0, 100_000))
    def answer(self, data: st.DataObject, size: int) -> None:
        said, stream = self.ours(data)
        if not said.began:
            said.began = True
            self.us.send_headers(stream, ANSWER, False)
        payload = bytes((len(said.answered) + i) % 251 for i in range(size))
        said.answered += payload
        self.us.send_data(stream, payload, False)

    @precondition(open_here)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        said, stream = self.ours(data)
        if not said.began:
            self.us.send_headers(stream, ANSWER, False)
        said.began = said.ended = True
        self.us.send_headers(stream, TRAILERS, True)

    @precondition(open_here)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        said, stream = self.ours(data)
        said.reset = True
        self.us.send_reset(stream, ErrorCode.INTERNAL_ERROR)

    @rule(writable=st.booleans())
    def socket(self, writable: bool) -> None:
        self.us.set_writable(writable)

    @rule()
    def pass_on(self) -> None:
        """All that has arrived has left us on the other side: its senders may send as much again."""
        for number, said in self.streams.items():
            size, said.uncredited = said.uncredited, 0
            self.uncredited -= size
            stream = self.us.streams.get(sid(number))
            if stream is not None:
                self.us.credit(stream, size)
            else:
                self.us.credit_connection(size)

    # ------------------------------------------------------------ what always holds

    @invariant()
    def windows_add_up(self) -> None:
        """A frame is charged when its header is read, what is still to come of it included; one that is
        thrown away is credited then, too."""
        us = self.us
        to_come = us._data_left if us._data_stream is not None else 0
        assert us.receive_room + to_come + us.drained + self.uncredited == us.connection_window
        for number, said in self.streams.items():
            stream = us.streams.get(sid(number))
            if stream is not None and not stream.receive_closed:
                to_come = us._data_left if us._data_stream is stream else 0
                assert stream.receive_room + to_come + stream.drained + said.uncredited == us.stream_window
        assert us.send_room >= 0

    @invariant()
    def what_waits_is_known_to_wait(self) -> None:
        for stream in self.us.streams.values():
            assert (stream in self.us.blocked) == (stream.queue is not None)
            assert stream.queued_bytes == sum(
                len(item[0]) for item in stream.queue or () if item[0] is not None
            )

    def teardown(self) -> None:
        """At last everything arrives."""
        self.us.set_writable(True)
        while self.to_us or self.to_client or self.us.out or self.client._data_to_send:
            self.exchange(1.0, 1.0)
            self.pass_on()
        assert self.pongs == self.pings
        for number, said in self.streams.items():
            if not said.reset:
                assert said.heard == said.asked, number
                assert said.received == said.answered, number
                assert (sid(number) in self.us.streams) == (not (said.client_ended and said.ended)), number


Conversation.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestConversation = Conversation.TestCase

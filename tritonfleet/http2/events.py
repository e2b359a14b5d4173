"""What a connection tells its owner of what it receives: methods for a subclass to override."""

from tritonfleet.http2.fields import Fields
from tritonfleet.http2.stream import Buffer, Stream


class Events:
    """Each does nothing unless it is overridden."""

    __slots__ = ()

    def on_headers(self, stream_id: bytes, stream: Stream | None, fields: Fields, end_stream: bool) -> None:
        """A header list. ``stream`` is None when it opens a new stream (only toward a server)."""

    def on_data(self, stream: Stream, payload: Buffer, end_stream: bool) -> None:
        """Bytes of a message. Whoever takes them owes `credit` for their length once they have left."""

    def on_reset(self, stream: Stream, code: int) -> None:
        """The peer gave up the stream; it is gone from ``streams``."""

    def on_goaway(self, last_stream: bytes, code: int, debug: bytes) -> None:
        """The peer takes no streams above ``last_stream`` any more."""

    def on_settings(self) -> None:
        """The peer's settings changed (limits on concurrent streams, for instance)."""

    def on_unproductive(self, kind: int) -> None:
        """A frame of this type that costs work and moves no call: PING, SETTINGS, PRIORITY, GOAWAY, an
        unknown type, an empty DATA, a window opened without need. Whoever counts them may raise
        ProtocolError."""

    def on_ping_ack(self, opaque: bytes) -> None:
        """The answer to a PING of ours."""

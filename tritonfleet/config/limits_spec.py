"""What a fleet file may say of how much one client may do: `router.limits`."""

from pydantic import Field

from tritonfleet.config.spec_types import Duration, Part, Size, Whole
from tritonfleet.core.limits import RouterLimits

_FIGURES = RouterLimits()


class LimitsSpec(Part):
    """Per client connection, except for what is ``by_all``. docs/security.md says against what each is."""

    streams: Whole = Field(default=_FIGURES.streams, ge=1, le=1_000_000)
    """Calls a client connection may have open; clients queue what is more."""
    streams_per_turn: Whole = Field(default=_FIGURES.streams_per_turn, ge=1, le=100_000)
    """Calls it may begin before it is the other connections' turn."""
    resets: Whole = Field(default=_FIGURES.resets, ge=1, le=1_000_000)
    """Calls it may take back within a second of their start, or send malformed, at once."""
    resets_per_second: Whole = Field(default=_FIGURES.resets_per_second, ge=0, le=1_000_000)
    """The same in the long run."""
    control_frames: Whole = Field(default=_FIGURES.control_frames, ge=1, le=1_000_000)
    """Frames that move nothing (PING, SETTINGS, empty ones) it may send at once; each call earns 20 more."""
    control_frames_per_second: Whole = Field(default=_FIGURES.control_frames_per_second, ge=0, le=1_000_000)
    """The same in the long run."""
    continuations: Whole = Field(default=_FIGURES.continuations, ge=1, le=1000)
    """CONTINUATION frames that a header block may go on in."""
    fields: Whole = Field(default=_FIGURES.fields, ge=16, le=10_000)
    """Header fields that a request may have, and its trailers."""
    table_updates: Whole = Field(default=_FIGURES.table_updates, ge=2, le=100)
    """Size updates of HPACK's table that a header block may begin with."""
    settings_per_frame: Whole = Field(default=_FIGURES.settings_per_frame, ge=7, le=10_000)
    """Settings that one SETTINGS frame may have."""
    metadata: Size = Field(default=_FIGURES.metadata, ge=1024, le=16_384)
    """Of one request: names, values and 32 for each. Triton's own gRPC refuses more than 8k."""
    metadata_held: Size = Field(default=_FIGURES.metadata_held, ge=16_384, le=1 << 30)
    """The memory that it takes, for all open calls together, those under 1k apart."""
    unread: Size = Field(default=_FIGURES.unread, ge=65_536, le=1 << 30)
    """Output that its socket does not take, before nothing more is read from it."""
    held_by_connection: Size = Field(default=_FIGURES.held_by_connection, ge=65_536, le=1 << 40)
    """Answers that wait for it to read them; while there are more, its further calls wait."""
    held_by_all: Size = Field(default=_FIGURES.held_by_all, ge=1 << 20, le=1 << 40)
    """The same for all clients of a router worker; beyond it the one that holds most is hung up on."""
    kept_by_connection: Size = Field(default=_FIGURES.kept_by_connection, ge=65_536, le=1 << 40)
    """Requests that are kept until their answers begin, to be sent again if a replica is lost."""
    kept_by_all: Size = Field(default=_FIGURES.kept_by_all, ge=1 << 20, le=1 << 40)
    """The same for all clients of a router worker. What is more is not sent again."""
    greeting_timeout: Duration = _FIGURES.greeting_s
    """How long it may take to say what HTTP/2 begins with, and to end a header block, in steps of 1s."""
    stalled_timeout: Duration = _FIGURES.stalled_s
    """How long it may take nothing of an answer that waits for it, in steps of 1s."""

    def figures(self) -> RouterLimits:
        """The same as the router takes it."""
        given = self.model_dump()
        return RouterLimits(
            greeting_s=given.pop("greeting_timeout"), stalled_s=given.pop("stalled_timeout"), **given
        )

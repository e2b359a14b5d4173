"""What one client may do to a router before it is stopped: the figures, and where they come from.

Real gRPC clients never come near. Limits that are too tight broke real gRPC traffic before (hyperium/h2
issue 856), so each is as lax as others' or laxer, and still bounds memory and work.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RouterLimits:
    """`router.limits` of the fleet file. Sizes in bytes, times in seconds; per client connection unless it
    says otherwise."""

    streams: int = 1024  # calls open at once; nginx: 128, behind which gRPC clients queue
    streams_per_turn: int = 32  # begun before it is the other connections' turn
    resets: int = 1000  # calls taken back or malformed, at once (CVE-2023-44487); nghttp2: 1000
    resets_per_second: int = 100  # and in the long run; nghttp2: 33
    control_frames: int = 2000  # PING, SETTINGS, empty frames ... at once; Envoy: 1000 to 10000
    control_frames_per_second: int = 200
    continuations: int = 8  # CONTINUATION frames of a header block (CVE-2024-28182); nghttp2: 8
    fields: int = 100  # of one request; Envoy: 100
    table_updates: int = 2  # of HPACK's table, in a block; RFC 7541, 4.2 has use for two
    settings_per_frame: int = 32  # Envoy: 100
    metadata: int = 8192  # of one request, as RFC 9113, 6.5.2 counts; gRPC's C core refuses beyond that
    metadata_held: int = 4 << 20  # the memory it takes, for all calls that are open, lists under 1 KiB apart
    unread: int = 256 << 10  # output that its socket does not take; beyond, nothing more is read from it
    held_by_connection: int = 4 << 20  # answers its client does not take; beyond, no further call begins
    held_by_all: int = 256 << 20  # the same of all clients of a worker; beyond, who holds most is hung up on
    kept_by_connection: int = 16 << 20  # requests, for another try; what is more is not tried again
    kept_by_all: int = 64 << 20  # the same of all clients of a worker
    greeting_s: float = 10.0  # to the preface and SETTINGS, and from HEADERS to END_HEADERS
    stalled_s: float = 60.0  # without any progress in what waits to be sent; Envoy: 5 minutes

"""How much of what costs us work and brings nothing a client may send. Real clients never come near.

The figures are those of nghttp2 and Envoy, or laxer: limits that are too tight broke real gRPC traffic before
(hyperium/h2 issue 856).
"""

RESETS, RESETS_PER_S = 1000.0, 100.0  # calls a client takes back; nghttp2: 1000 and 33/s
UNPRODUCTIVE, UNPRODUCTIVE_PER_S = 2000.0, 200.0  # PING, SETTINGS, PRIORITY, empty or tiny frames ...
UNPRODUCTIVE_PER_CALL = (
    20.0  # ... and so many with every call: gRPC's C core pings with DATA to measure the path
)
HANDSHAKE_S = 10.0  # from connecting to the first SETTINGS, and from HEADERS to END_HEADERS
STALLED_S = 60.0  # without progress in what we have to send; Envoy closes after 5 minutes


class TokenBucket:
    """``burst`` at once, ``per_s`` in the long run."""

    __slots__ = ("_at", "_burst", "_per_s", "_tokens")

    def __init__(self, burst: float, per_s: float) -> None:
        self._burst, self._per_s = burst, per_s
        self._tokens = burst
        self._at = 0.0

    def take(self, now: float, earned: float = 0.0) -> bool:
        """Whether one more is allowed at ``now`` (seconds of a steady clock), so many having been ``earned``
        since the last time."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s + earned)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

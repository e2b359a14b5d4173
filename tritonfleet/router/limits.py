"""Counting what costs us work and brings nothing. The figures are in `core.limits`."""

CONTROL_FRAMES_PER_CALL = 20.0  # earned with every call: gRPC's C core pings with DATA to measure the path
BRIEF_S = 1.0  # a call taken back later than that was no rapid reset: its client gave up on it


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

"""Counting what costs us work and brings nothing. The figures are in `core.limits`."""

CONTROL_FRAMES_PER_CALL = 20.0  # earned with every call: gRPC's C core pings with DATA to measure the path
BRIEF_S = 1.0  # a call taken back later than that was no rapid reset: its client gave up on it
# One taken back at its own deadline was none either. Timeouts under 10 ms are not looked at, so that nobody
# buys rapid resets with them; and the client's clock began a little earlier than ours.
LEAST_TIMEOUT_S = 0.010
LIVED_SHARE = 0.9


def gave_up(lived_s: float, timeout_s: float | None) -> bool:
    """Whether a client that takes back a call ``lived_s`` seconds after it began has given up on it."""
    if lived_s >= BRIEF_S:
        return True
    return timeout_s is not None and timeout_s >= LEAST_TIMEOUT_S and lived_s >= LIVED_SHARE * timeout_s


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

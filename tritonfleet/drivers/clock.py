"""A clock for durations and deadlines that yet shows seconds since the epoch.

The wall clock may step: by hours when a host that has just booted learns the time, or when somebody sets it.
A replica's backoff, a drain's deadline or the age of a report must not become hours, or nothing, by that. So
the wall clock is asked once, when the program starts. What is compared with a calendar asks it itself.
"""

from time import monotonic, time

_ZERO = time() - monotonic()


def steady_time() -> float:
    """Seconds since the epoch as the wall clock had it at the start, and never a step since."""
    return _ZERO + monotonic()

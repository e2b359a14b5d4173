"""When requests are due in an open loop, and what wakes us then."""

import ctypes
import os
import random
import struct
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

TFD_NONBLOCK = 0o4000
CLOCK_MONOTONIC = 1


def gaps(rate: float, distribution: str, seed: int) -> Iterator[float]:
    """Seconds between requests, without end; ``distribution``: "constant" or "poisson"."""
    draw = random.Random(seed)  # noqa: S311 # a load, no secret
    while True:
        yield draw.expovariate(rate) if distribution == "poisson" else 1 / rate


def read_intervals(path: Path) -> list[float]:
    """Seconds between requests, from a file with microseconds, one a line. Raises ValueError, OSError."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip():
            try:
                value = float(line)
            except ValueError:
                value = -1.0
            if not 0 <= value < float("inf"):
                raise ValueError(f"{path}:{number}: {line.strip()!r} is no number of microseconds")
            found.append(value / 1e6)
    if sum(found) <= 0:
        raise ValueError(f"{path}: no intervals above 0 in it")
    return found


def repeated(intervals: Sequence[float]) -> Iterator[float]:
    """From the first again when they are used up."""
    return cycle(intervals)


class Timer:
    """A timer of the kernel as a file descriptor (timerfd_create(2); Python has it from 3.13 on).

    libuv, and so uvloop, counts whole milliseconds, which is ten requests at 10,000 a second.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def set(self, seconds: float) -> None:
        """Make ``fd`` readable once, so long from now."""
        nanos = max(1, round(seconds * 1e9))
        value = struct.pack("qqqq", 0, 0, nanos // 10**9, nanos % 10**9)
        self._libc.timerfd_settime(self.fd, 0, value, None)

    def take(self) -> None:
        """Read what made it readable."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return

    def close(self) -> None:
        os.close(self.fd)

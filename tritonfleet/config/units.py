"""Durations and sizes as people write them: ``250ms``, ``30s``, ``10m``; ``64m``, ``1g``.

A duration becomes float seconds, a size int bytes. Plain numbers are taken as seconds and as bytes.
"""

import re
from decimal import Decimal
from math import isfinite

from tritonfleet.config.errors import shown

DURATION = r"^(?:[0-9]+(?:\.[0-9]+)?(?:us|ms|s|m|h|d))+$"
SIZE = r"^[0-9]+(?:\.[0-9]+)?(?:[bkmgt]|[kmgt]i?b)?$"

LONGEST = 36500 * 86400  # seconds; far beyond it dates and clocks overflow

_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PER_SECOND = {"ms": 1000, "us": 1_000_000}  # divided by, not multiplied with: 290 / 1000 is exactly 0.29
_BYTES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_duration(value: object) -> float:
    """Seconds. ``"1m30s"`` is 90.0, ``"250ms"`` 0.25, ``5`` 5.0. At most a century.
    Raises ValueError with an example."""
    text = value.strip().lower() if isinstance(value, str) else ""
    number = _number(value)
    if number is not None and number < 0:
        raise ValueError(f"{number} is negative; a duration is not")
    if number is None and re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", text):
        number = float(text)
    if number is not None:
        return _bounded(number, value)
    if not re.fullmatch(DURATION, text):
        raise ValueError(f"{shown(value)} is not a duration; write it as 250ms, 30s, 5m or 1h")
    seconds = sum(
        float(count) / _PER_SECOND[unit] if unit in _PER_SECOND else float(count) * _SECONDS[unit]
        for count, unit in _PART.findall(text)
    )
    return _bounded(seconds, value)


def format_duration(seconds: float) -> str:
    """What `parse_duration` reads back to the same number, for every finite number that is not negative:
    90.0 → ``90s``, 120.0 → ``2m``, 0.25 → ``250ms``."""
    for unit in ("d", "h", "m"):
        count, rest = divmod(seconds, _SECONDS[unit])
        if count >= 2 and rest == 0:
            return f"{int(count)}{unit}"
    if seconds == int(seconds):
        return f"{int(seconds)}s"
    millis = round(seconds * 1000)
    if millis / 1000 == seconds:
        return f"{millis}ms"
    return f"{Decimal(repr(seconds)):f}s"  # every digit of the shortest spelling, without an exponent


def parse_size(value: object) -> int:
    """Bytes; units are powers of 1024, as docker takes them. ``"64m"`` is 67108864. Raises ValueError."""
    plain = _number(value)
    if plain is not None:
        if plain < 0 or plain != int(plain):
            raise ValueError(f"{plain} is not a whole number of bytes; write it as 64m or 1g")
        return int(plain)
    text = value.strip().lower() if isinstance(value, str) else ""
    if not re.fullmatch(SIZE, text):
        raise ValueError(f"{shown(value)} is not a size; write it as 64m or 1g")
    number = text.rstrip("ibkmgt")
    unit = text[len(number) :][:1]
    return int(Decimal(number) * _BYTES[unit])


def format_size(size: int) -> str:
    """What `parse_size` reads back to the same number: 67108864 → ``64m``."""
    for unit in ("t", "g", "m", "k"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return str(size)


def _number(value: object) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or isfinite(value) else None


def _bounded(seconds: float, value: object) -> float:
    if seconds > LONGEST:
        raise ValueError(f"{shown(value)} is too long; at most {LONGEST // _SECONDS['d']}d")
    return float(seconds)

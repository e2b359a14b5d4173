"""Where a load is heading: level and trend (Holt's double exponential smoothing), and if that is any use.

In: observations of a quantity at irregular times. Out: what it will be some seconds ahead. Every forecast is
kept until its time has come and then compared with what happened, beside the simplest rival: "as it is
now". A forecast is believed only while its average error is the smaller of the two.
"""

from dataclasses import dataclass, replace

LEVEL_S = 8.0  # time constant of the level: an observation's weight fades to 37 % in this time
TREND_S = 20.0  # of the trend
ERROR_S = 120.0  # of the errors
EVERY_S = 4.0  # between two forecasts that are kept for comparison
NEEDED = 5  # so many comparisons before a forecast may be believed
GAP_S = 60.0  # observations further apart than this begin anew
KEPT = 64  # forecasts not yet due


@dataclass(frozen=True, slots=True)
class Open:
    """A forecast made for ``due``: what it said, and what was observed when it was made."""

    due: float
    forecast: float
    naive: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """All that is remembered. Errors are averages of absolute differences, in the quantity's unit."""

    at: float = 0.0  # of the last observation; 0: there was none
    level: float = 0.0
    trend: float = 0.0  # per second
    error: float = 0.0
    naive_error: float = 0.0
    compared: int = 0
    open: tuple[Open, ...] = ()

    def ahead(self, seconds: float) -> float:
        return max(self.level + self.trend * seconds, 0.0)

    @property
    def earns_its_place(self) -> bool:
        """Whether it has been nearer to what happened than "as it is now"."""
        return self.compared >= NEEDED and self.error < self.naive_error

    def __str__(self) -> str:
        return (
            f"level {self.level:.2f}, trend {self.trend * 60:+.2f} a minute, mean error {self.error:.2f} "
            f"(no change: {self.naive_error:.2f}; {self.compared} compared)"
        )


def observe(before: Forecast, value: float, now: float, horizon_s: float) -> Forecast:
    """``before`` with one observation more. Every few seconds a forecast for ``now + horizon_s`` is kept,
    and those that are due are compared with ``value``."""
    elapsed = now - before.at
    if before.at == 0.0 or not 0 <= elapsed <= GAP_S:  # negative: by a clock that was set since
        return Forecast(at=now, level=value)
    if elapsed == 0:
        return before
    expected = before.level + before.trend * elapsed
    level = expected + _weight(elapsed, LEVEL_S) * (value - expected)
    slope = (level - before.level) / elapsed
    trend = before.trend + _weight(elapsed, TREND_S) * (slope - before.trend)
    grown = replace(before, at=now, level=level, trend=trend)
    for one in (one for one in before.open if one.due <= now):
        grown = _compared(grown, one, value)
    left = tuple(one for one in before.open if one.due > now)
    last_made = before.open[-1].due - horizon_s if before.open else 0.0
    if now - last_made >= EVERY_S and len(left) < KEPT:
        left = (*left, Open(now + horizon_s, grown.ahead(horizon_s), value))
    return replace(grown, open=left)


def _weight(elapsed: float, constant: float) -> float:
    return elapsed / (constant + elapsed)


def _compared(before: Forecast, one: Open, value: float) -> Forecast:
    share = max(EVERY_S / ERROR_S, 1 / (before.compared + 1))  # a plain average first, then a fading one
    return replace(
        before,
        compared=before.compared + 1,
        error=before.error + share * (abs(one.forecast - value) - before.error),
        naive_error=before.naive_error + share * (abs(one.naive - value) - before.naive_error),
    )

"""When a measurement may end: the rule of perf_analyzer. Pure.

Rate and latency of the last three windows must each lie within a percentage of their mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tritonfleet.core.signals import time_shown

WINDOWS = 3  # that must agree


@dataclass(frozen=True, slots=True)
class Window:
    """What one window measured. ``latency_s`` is the figure that is to be stable; None: nothing answered."""

    seconds: float
    rate: float  # answers per second
    latency_s: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    stable: bool
    reason: str


def judge(windows: Sequence[Window], percentage: float) -> Verdict:
    """Whether the last `WINDOWS` agree within ``percentage``, and what says so."""
    if len(windows) < WINDOWS:
        return Verdict(False, f"{len(windows)} of {WINDOWS} windows measured")
    last = windows[-WINDOWS:]
    latencies = [window.latency_s for window in last if window.latency_s is not None]
    if len(latencies) < WINDOWS:
        return Verdict(False, f"no request was answered in {WINDOWS - len(latencies)} of the last windows")
    rate, rate_off = _spread([window.rate for window in last])
    latency, latency_off = _spread(latencies)
    shown = f"{rate:.0f}/s ± {rate_off:.0f} %, {time_shown(latency)} ± {latency_off:.0f} %"
    if max(rate_off, latency_off) <= percentage:
        return Verdict(True, f"the last {WINDOWS} windows agree: {shown}")
    return Verdict(False, f"the last {WINDOWS} windows differ by over {percentage:g} %: {shown}")


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and the farthest value from it in per cent of it."""
    mean = sum(values) / len(values)
    if mean <= 0:
        return mean, 0.0
    return mean, max(abs(value - mean) for value in values) / mean * 100

"""Sizes by the clock: windows in which a pool has at least so many replicas, whatever the load says.

A window counts from ``lead_s`` seconds before it begins, which is what a replica takes to start, so that the
replicas are ready when it begins. Of several that count the one with the largest minimum decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Opening:
    """One window of one entry. ``name`` is the entry as people know it. Times are seconds since the epoch."""

    name: str
    minimum: int
    starts_at: float
    ends_at: float

    def why(self, lead_s: float, now: float) -> str:
        has = f"schedule {self.name} has at least {self.minimum}"
        if now < self.starts_at:
            return f"{has} in {self.starts_at - now:.0f} s, and a replica takes {lead_s:.0f} s to start"
        return f"{has} for {_span(self.ends_at - now)} more"


def opened(openings: Iterable[Opening], lead_s: float, now: float) -> Opening | None:
    """The window that decides at ``now``; None: no window does."""
    count = [one for one in openings if one.starts_at - lead_s <= now < one.ends_at]
    return max(count, key=lambda one: (one.minimum, one.ends_at), default=None)


def _span(seconds: float) -> str:
    minutes = int(seconds // 60)
    if not minutes:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"

"""When a router stops choosing a replica that answers badly, or not at all, and for how long.

Counted are transport failures and answers INTERNAL or UNKNOWN: what a broken server does, quickly, which
makes it attractive to any policy that looks at load. UNAVAILABLE is not counted: Triton says so when a
queue is full; nor is anything that the request itself is to blame for.
"""

from dataclasses import dataclass

BAD_STATUSES = frozenset((2, 13))  # UNKNOWN, INTERNAL
FAILURES = 5  # in a row (Envoy's consecutive_5xx)
BASE_S, LONGEST_S = 30.0, 300.0  # Envoy's base_ejection_time and its maximum
LARGEST_SHARE = 0.5  # of the replicas; Envoy's 10 % is made for large clusters
PANIC_SHARE = 0.5  # of the replicas; Envoy's healthy_panic_threshold
OLDEST_S, OLDEST_FACTOR = 30.0, 10.0  # a call older than both of 30 s and 10 × p99 means a hang


@dataclass(frozen=True, slots=True)
class Ejection:
    """For how long (seconds), and why."""

    duration_s: float
    reason: str


def for_failures(in_a_row: int, earlier: int, *, ejected: int, replicas: int) -> Ejection | None:
    """``earlier``: how often the replica was ejected before; ``ejected`` of ``replicas`` are so now."""
    if in_a_row < FAILURES or not _may_eject(ejected, replicas):
        return None
    duration = min(BASE_S * (earlier + 1), LONGEST_S)
    return Ejection(duration, f"{in_a_row} failures in a row: not chosen for {duration:g} s")


def for_age(
    oldest_s: float, p99_s: float | None, earlier: int, *, ejected: int, replicas: int
) -> Ejection | None:
    """``oldest_s``: age of the oldest unary call in flight; ``p99_s``: of its model's latency, if known."""
    limit = max(OLDEST_S, OLDEST_FACTOR * (p99_s or 0.0))
    if oldest_s <= limit or not _may_eject(ejected, replicas):
        return None
    duration = min(BASE_S * (earlier + 1), LONGEST_S)
    return Ejection(
        duration,
        f"a call is in flight for {oldest_s:.0f} s (limit {limit:.0f} s): not chosen for {duration:g} s",
    )


def in_panic(healthy: int, available: int, expected: int) -> bool:
    """Whether to use the ejected ones, too: of the ``expected`` replicas fewer than half are ``healthy``,
    which would be flooded, and more are ``available``: connected, ejected or not."""
    return healthy < available and healthy < expected * PANIC_SHARE


def _may_eject(ejected: int, replicas: int) -> bool:
    """Never the last one, and at most half."""
    return ejected + 1 < replicas and (ejected + 1) <= replicas * LARGEST_SHARE

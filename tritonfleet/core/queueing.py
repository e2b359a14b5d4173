"""How long requests wait in front of n servers with one queue, and how many servers make it short enough.

The form of the curve is Sakasegawa's approximation of the M/M/n queue (Annals of the Institute of Statistical
Mathematics 29, 1977), W = S · ρ^(√(2(n+1)) − 1) / (n · (1 − ρ)); its height is fitted to the wait that is
measured now, so batching, bursts and service times that vary are in the fit and not assumed.
"""

from dataclasses import dataclass
from math import inf, sqrt

FULL = 0.97  # what is busier than this is fitted as this: a queue without end has no steady state
MOST_BUSY = 0.95  # no answer plans for more
STEEPEST = 20.0  # a measured wait this many times the formula's has another cause than too few servers


@dataclass(frozen=True, slots=True)
class Enough:
    """``count`` servers bring a wait to ``predicted_s``. ``reachable`` is False when even the most that were
    tried do not, or, with a count of 0, when the time is lost elsewhere than in the queue."""

    count: int
    predicted_s: float
    reachable: bool = True


def wait_s(servers: int, work: float, service_s: float) -> float:
    """The mean wait (seconds). ``work`` is what arrives, in servers' worth of busy time; infinite from
    ``servers`` on."""
    busy = work / servers
    if busy >= 1:
        return inf
    exponent: float = sqrt(2 * (servers + 1)) - 1
    return service_s * float(busy**exponent) / (servers * (1 - busy))


def fit(servers: int, work: float, service_s: float, measured_s: float) -> float:
    """The factor between what is measured and the formula; 0 where nothing waits."""
    formula = wait_s(servers, min(work, FULL * servers), service_s)
    return min(measured_s / formula, STEEPEST) if formula > 0 and measured_s > 0 else 0.0


def predicted_s(servers: int, *, now: int, work: float, service_s: float, measured_s: float) -> float:
    """The wait with ``servers``, from ``measured_s`` with ``now`` of them."""
    factor = fit(now, work, service_s, measured_s)
    busy = work / servers
    return inf if busy > MOST_BUSY else factor * wait_s(servers, work, service_s)


def enough(
    *,
    now: int,
    work: float,
    service_s: float,
    measured_s: float,
    allowed_s: float,
    most: int,
    backlog: bool = False,
) -> Enough:
    """The fewest servers, up to ``most``, with which the wait that is ``measured_s`` with ``now`` of them is
    at most ``allowed_s``. The part of the wait that the queue cannot explain stays whatever their number.
    ``backlog``: the wait is known to be that of a queue which they share. So it is of servers that get more
    than they can do: the formula says nothing of such a queue, which is as long as it has grown until now."""
    factor = fit(now, work, service_s, measured_s)
    explained = factor * wait_s(now, min(work, FULL * now), service_s)
    elsewhere = 0.0 if backlog or work >= FULL * now else max(measured_s - explained, 0.0)
    if elsewhere > allowed_s:
        return Enough(0, measured_s, reachable=False)
    for count in range(1, most + 1):
        wait = predicted_s(count, now=now, work=work, service_s=service_s, measured_s=measured_s)
        if wait + elsewhere <= allowed_s:
            return Enough(count, wait + elsewhere)
    return Enough(most, inf, reachable=False)

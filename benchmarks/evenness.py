"""How evenly replicas are used, read from the access logs of the router's workers."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import pstdev

import arrivals
import open_loop
import tail

LOG_TIMEOUT_S = 10.0
EMPTY_BYTES = len(open_loop.request(tail.MODEL, 0, batched=False))  # of a request, beside what takes time


@dataclass(frozen=True)
class Held:
    """One request at a replica: from when until when (seconds), and how much of it counts."""

    instance: str
    since: float
    until: float
    amount: float


def spread(requests: Sequence[Held], instances: Sequence[str], since: float, until: float) -> float:
    """The standard deviation, over ``instances``, of what each holds, averaged over the time from ``since``
    to ``until``. 0.0: all hold the same at any time."""
    changes = sorted(
        change
        for one in requests
        for change in ((one.since, one.amount, one.instance), (one.until, -one.amount, one.instance))
    )
    holds = dict.fromkeys(instances, 0.0)
    area, before = 0.0, since
    for at, amount, instance in changes:
        now = min(max(at, since), until)
        if now > before:
            area += pstdev(holds.values()) * (now - before)
            before = now
        holds[instance] += amount
    return (area + pstdev(holds.values()) * (until - before)) / (until - since)


def inferences(logs: Sequence[Path], begins: Sequence[int], count: int) -> list[list[bytes]]:
    """The lines of inferences that each log has gained since it was as long as ``begins`` says, when they are
    ``count`` in all. Raises RuntimeError if they never are."""
    deadline = time.monotonic() + LOG_TIMEOUT_S
    while True:
        found = [
            [line for line in log.read_bytes()[begin:].splitlines() if b'"ModelInfer"' in line]
            for log, begin in zip(logs, begins, strict=True)
        ]
        if sum(map(len, found)) == count:
            return found
        if time.monotonic() > deadline:
            raise RuntimeError(f"of {count} calls the access logs have {sum(map(len, found))}")
        time.sleep(0.05)


def held(text: bytes, *, by_size: bool) -> Held:
    """A line of the access log (docs/metrics.md). Each request counts as 1, or ``by_size``: as the
    milliseconds that it takes."""
    line = json.loads(text)
    until = datetime.fromisoformat(line["time"]).timestamp()
    since = until - line["duration_s"] + line.get("queue_s", 0.0)
    amount = (line["request_bytes"] - EMPTY_BYTES) * arrivals.PER_BYTE_S * 1e3 if by_size else 1.0
    return Held(line["replica"], since, until, amount)

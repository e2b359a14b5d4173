"""What is asked of the replicas and when, drawn from a seed: sizes of requests and moments of arrival.

Sizes are drawn as service times (seconds on a replica of normal speed) and turned into bytes, of which
the models of `models/` take a fixed time for each. All proxies are given the very same requests.
"""

import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path

MEAN_S = 0.020
PER_BYTE_S = 10e-6  # parameter per_byte_us of models/sized_work
SIGMA = 1.2
LONG_SHARE, LONG_FACTOR = 0.1, 10  # of bimodal sizes


@dataclass(frozen=True)
class Workload:
    """``arrivals_s`` counts from the start; ``sizes`` in bytes; ``load`` of the replicas' capacity."""

    name: str
    load: float
    seed: int
    arrivals_s: list[float]
    sizes: list[int]


def service_times(name: str, count: int, draw: random.Random, trace: Sequence[float] = ()) -> list[float]:
    """``count`` service times with mean `MEAN_S`: "lognormal", "bimodal", "constant", or "trace", a stretch
    of ``trace`` from a random place on."""
    if name == "lognormal":
        mu = log(MEAN_S) - SIGMA**2 / 2
        return [draw.lognormvariate(mu, SIGMA) for _ in range(count)]
    if name == "bimodal":
        short = MEAN_S / (1 - LONG_SHARE + LONG_SHARE * LONG_FACTOR)
        return [short * (LONG_FACTOR if draw.random() < LONG_SHARE else 1) for _ in range(count)]
    if name == "constant":
        return [MEAN_S] * count
    start = draw.randrange(len(trace))
    return [trace[(start + index) % len(trace)] for index in range(count)]


def workload(
    name: str, load: float, seed: int, seconds: float, replicas: float, trace: Sequence[float] = ()
) -> Workload:
    """Poisson arrivals for ``seconds`` at ``load`` of ``replicas``, each of which counts by its speed."""
    draw = random.Random(f"{name} {load} {seed}")
    rate = load * replicas / MEAN_S
    times = service_times(name, round(rate * seconds), draw, trace)
    arrivals, now = [], 0.0
    for _ in times:
        now += draw.expovariate(rate)
        arrivals.append(now)
    return Workload(name, load, seed, arrivals, [max(1, round(time / PER_BYTE_S)) for time in times])


def read_trace(path: Path, column: str) -> list[float]:
    """Service times in proportion to ``column`` of a CSV file with a header line, with mean `MEAN_S`.

    Raises ValueError where the file has no such column or no rows.
    """
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        if column not in (rows.fieldnames or ()):
            raise ValueError(f"{path} has no column {column!r}; it has {', '.join(rows.fieldnames or ())}")
        values = [float(row[column]) for row in rows]
    if not values or sum(values) <= 0:
        raise ValueError(f"{path}: column {column!r} has no positive numbers")
    scale = MEAN_S / (sum(values) / len(values))
    return [value * scale for value in values]


def central_queue(work: Workload, slownesses: Sequence[float]) -> list[float]:
    """Latencies if every free replica took the first of one queue and nothing else took time: the best that
    first-come-first-served can do. With replicas of different speed the fastest free one takes it."""
    free_at = [0.0] * len(slownesses)
    latencies = []
    for arrives_at, size in zip(work.arrivals_s, work.sizes, strict=True):
        can_begin = [
            (max(at, arrives_at), slowness) for at, slowness in zip(free_at, slownesses, strict=True)
        ]
        began, slowness = min(can_begin)
        free_at[can_begin.index((began, slowness))] = done = began + size * PER_BYTE_S * slowness
        latencies.append(done - arrives_at)
    return latencies

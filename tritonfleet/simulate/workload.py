"""What is asked of a simulated pool, and when: from a CSV trace, or drawn from a seed.

A request has a moment of arrival (seconds from the start), a size in bytes, which is all that a router sees
of it, and the seconds of one model instance that it takes.
"""

import csv
import math
import random
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

BYTES_PER_S = 1e6  # of generated requests: a router learns seconds from bytes, whatever the factor


class Request(NamedTuple):
    at: float
    size: int
    seconds: float


def _poisson(_share: float) -> float:
    return 1.0


def _diurnal(share: float) -> float:
    """One day: the least at its ends, the most in the middle, a mean of 1, a tenth of the peak at night."""
    return 1.0 - 9 / 11 * math.cos(2 * math.pi * share)


def _flash(share: float) -> float:
    """Eight times as much for a tenth of the time, from the 40 % mark on, within a moment."""
    return 8.0 if 0.4 <= share < 0.5 else 1.0


def _step(share: float) -> float:
    return 6.0 if 1 / 3 <= share < 2 / 3 else 1.0


def _ramp(share: float) -> float:
    """From 1 to 6 in the first 80 %, and back."""
    return 1.0 + 5.0 * (share / 0.8 if share < 0.8 else (1 - share) / 0.2)


SHAPES: dict[str, Callable[[float], float]] = {
    "poisson": _poisson, "diurnal": _diurnal, "flash": _flash, "step": _step, "ramp": _ramp,
}  # fmt: skip


def checked_shape(shape: str, rate: float, duration_s: float, mean_s: float) -> Callable[[float], float]:
    """The factor of a shape. Raises ValueError for one that does not exist, or a number not above 0."""
    if shape not in SHAPES:
        raise ValueError(f"no workload {shape!r}; there are: {', '.join(SHAPES)}")
    for name, value in (("rate", rate), ("duration", duration_s), ("service time", mean_s)):
        if not 0 < value < math.inf:
            raise ValueError(f"the {name} must be more than 0, not {value:g}")
    return SHAPES[shape]


def generated(
    shape: str, rate: float, duration_s: float, mean_s: float, sigma: float, seed: int
) -> list[Request]:
    """Poisson arrivals whose rate is ``rate`` (a second) times the shape, by thinning (Lewis and Shedler,
    "Simulation of nonhomogeneous Poisson processes by thinning", Naval Research Logistics 26, 1979).
    Service times are lognormal with mean ``mean_s`` and shape ``sigma``; 0 makes them constant.

    Raises ValueError as `checked_shape` does."""
    factor = checked_shape(shape, rate, duration_s, mean_s)
    draw = random.Random(seed)  # noqa: S311 # for a simulation, not for secrets
    most = rate * max(factor(step / 1000) for step in range(1000))
    mu = math.log(mean_s) - sigma**2 / 2
    found: list[Request] = []
    now = draw.expovariate(most)
    while now < duration_s:
        if draw.random() * most < rate * factor(now / duration_s):
            seconds = draw.lognormvariate(mu, sigma)
            found.append(Request(now, max(1, round(seconds * BYTES_PER_S)), seconds))
        now += draw.expovariate(most)
    return found


def read_trace(path: Path, costs: Mapping[str, float], faster: float = 1.0) -> list[Request]:
    """A CSV file with a header: its first column is when (ISO 8601, or seconds), ``costs`` is seconds of an
    instance for each unit of a column. ``faster``: so many times its speed, arrivals only. What the router
    sees as size is the first of these columns: of a language model it knows the prompt, not the answer.

    Raises ValueError with file and line for what cannot be read."""
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        names = rows.fieldnames or ()
        missing = [name for name in costs if name not in names[1:]]
        if missing or not costs:
            has = f"columns after the time: {', '.join(names[1:]) or 'none'}"
            raise ValueError(f"{path}: no column {', '.join(missing) or 'is given a cost'}; {has}")
        first, found = next(iter(costs)), []
        for row in rows:
            try:
                values = {name: float(row[name]) for name in costs}
                seconds = sum(values[name] * cost for name, cost in costs.items())
                found.append(Request(_when(row[names[0]]), max(1, round(4 * values[first])), seconds))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}:{rows.line_num}: {error}") from None
    if not found:
        raise ValueError(f"{path}: no rows below the header")
    found.sort()
    start = found[0].at
    return [one._replace(at=(one.at - start) / faster) for one in found]


def _when(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        whole, _, fraction = text.partition(".")
        moment = datetime.fromisoformat(f"{whole}+00:00")  # what a trace leaves out is the same for all rows
        return moment.timestamp() + float(f"0.{fraction or 0}")

"""A load as rates instead of requests: how many arrive in a bin, and what one of them takes."""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tritonfleet.simulate.meter import BIN_S
from tritonfleet.simulate.workload import Request, checked_shape

SMALL = 40.0  # up to this mean a Poisson number is drawn exactly, above it from the normal curve


@dataclass(frozen=True)
class Flow:
    """``count(bin, draw)``: arrivals in a bin of `BIN_S`. ``seconds(draw)``: what a request takes alone;
    ``mean_s`` and ``sd_s`` of that."""

    bins: int
    count: Callable[[int, random.Random], int]
    seconds: Callable[[random.Random], float]
    mean_s: float
    sd_s: float


def generated_flow(shape: str, rate: float, duration_s: float, mean_s: float, sigma: float) -> Flow:
    """What `workload.generated` draws, in bins. Raises ValueError as it does."""
    factor = checked_shape(shape, rate, duration_s, mean_s)
    mu = math.log(mean_s) - sigma**2 / 2

    def count(index: int, draw: random.Random) -> int:
        middle = (index + 0.5) * BIN_S
        return poisson(rate * factor(min(middle / duration_s, 1.0)) * BIN_S, draw)

    return Flow(
        max(round(duration_s / BIN_S), 1), count, lambda draw: draw.lognormvariate(mu, sigma),
        mean_s, mean_s * math.sqrt(math.expm1(sigma**2)),
    )  # fmt: skip


def flow_of(requests: Sequence[Request]) -> Flow:
    """``requests``, at least one, as they come; what each takes is drawn from all of them."""
    counts = Counter(int(request.at / BIN_S) for request in requests)
    times = [request.seconds for request in requests]
    mean = sum(times) / len(times)
    variance = sum((one - mean) ** 2 for one in times) / len(times)
    return Flow(
        max(counts) + 1, lambda index, _: counts[index], lambda draw: draw.choice(times), mean,
        math.sqrt(variance),
    )  # fmt: skip


def poisson(mean: float, draw: random.Random) -> int:
    """A Poisson number; by Knuth's multiplication where that is quick (The Art of Computer Programming 2,
    3.4.1)."""
    if mean > SMALL:
        return max(round(draw.gauss(mean, math.sqrt(mean))), 0)
    limit, product, count = math.exp(-mean), draw.random(), 0
    while product > limit:
        product *= draw.random()
        count += 1
    return count

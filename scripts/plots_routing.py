"""docs/routing.md in pictures: how long requests wait by policy, and one bad moment under each."""

import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from math import exp
from pathlib import Path
from statistics import mean
from typing import Any

from plots_style import BLUE, GREY, ORANGE, RED, SKY, figure, named, save, titled

from tritonfleet.simulate.engine import simulate
from tritonfleet.simulate.scalers import Static
from tritonfleet.simulate.scenario import Scenario
from tritonfleet.simulate.workload import BYTES_PER_S, Request, generated

AT_ONCE = 10**6  # what is given to a replica that is sent everything
MEAN_S, SIGMA, NOISE = 0.05, 1.2, 0.2
REPLICAS = 4
REQUESTS, WARM_UP, SEEDS = 20_000, 1_000, (1, 2)
LOADS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93)


@dataclass(frozen=True)
class Way:
    name: str
    policy: str
    max_inflight: int | None
    colour: str


ROUND_ROBIN = Way("round robin", "round_robin", AT_ONCE, RED)
LEAST_REQUESTS = Way("least requests", "least_requests", AT_ONCE, ORANGE)
LEAST_WORK = Way("least work", "least_work", AT_ONCE, SKY)
LATE = Way("least work, late binding (default)", "least_work", None, BLUE)
ONE_QUEUE = Way("one queue for all: the bound", "least_requests", 1, GREY)
WAYS = (ROUND_ROBIN, LEAST_REQUESTS, LEAST_WORK, LATE)


@dataclass(frozen=True)
class Served:
    """One request as it went: who had it, from when to when, in seconds."""

    request: Request
    replica: int
    start_s: float
    end_s: float

    @property
    def wait_s(self) -> float:
        return max(self.start_s - self.request.at, 0.0)


def served(way: Way, requests: Sequence[Request], replicas: int) -> list[Served]:
    """By the end of service; a replica serves one at a time."""
    found: list[Served] = []
    scenario = Scenario(
        slo_s=1.0, initial=replicas, policy=way.policy, max_inflight=way.max_inflight,
        queue_capacity=10**9, max_wait_s=1e9,
    )  # fmt: skip

    def note(request: Request, latency_s: float, replica: int) -> None:
        end_s = request.at + latency_s
        found.append(Served(request, replica, end_s - request.seconds, end_s))

    simulate(scenario, requests, Static(replicas), note)
    return found


def uneven(load: float, seed: int) -> list[Request]:
    """Lognormal times, which the size tells up to 20 %; the same ones for every load."""
    rate = load * REPLICAS / MEAN_S
    draw = random.Random(f"noise {seed}")
    return [
        one._replace(seconds=one.seconds * exp(draw.gauss(-NOISE * NOISE / 2, NOISE)))
        for one in generated("poisson", rate, REQUESTS / rate, MEAN_S, SIGMA, seed)
    ]


def p99_wait_s(way: Way, load: float) -> float:
    """Mean of the seeds."""
    found = []
    for seed in SEEDS:
        requests = uneven(load, seed)
        begins = requests[WARM_UP].at
        waits = sorted(one.wait_s for one in served(way, requests, REPLICAS) if one.request.at > begins)
        found.append(waits[int(len(waits) * 0.99)])
    return mean(found)


def draw_load(path: Path) -> None:
    drawn, axes = figure(
        "How long one request in a hundred waits, as load grows",
        f"{REPLICAS} replicas, one request at a time each; uneven requests (lognormal, "
        f"mean {MEAN_S * 1000:g} ms); the router's own code, in virtual time",
        4.3, 1, 2,
    )  # fmt: skip
    ways = (ONE_QUEUE, *reversed(WAYS))
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(p99_wait_s, *zip(*product(ways, LOADS), strict=True)))
    curves = {way: found[at * len(LOADS) :][: len(LOADS)] for at, way in enumerate(ways)}
    (waits, times), percents = axes[0], [load * 100 for load in LOADS]
    titled(waits, "p99 of the wait, seconds")
    titled(times, "the same, as a multiple of one queue for all")
    for way, p99s in curves.items():
        style = {"linestyle": (0, (2, 2)), "linewidth": 1.5} if way is ONE_QUEUE else {"linewidth": 2.4}
        ratios = [p99 / bound for p99, bound in zip(p99s, curves[ONE_QUEUE], strict=True)]
        waits.plot(percents, p99s, color=way.colour, **style)
        times.plot(percents, ratios, color=way.colour, **style)
    first, last = (curves[ROUND_ROBIN][at] / curves[ONE_QUEUE][at] for at in (0, -1))
    named(waits, percents[4], curves[ROUND_ROBIN][4], "round robin", RED, offset=(-8, 6), ha="right")
    named(waits, percents[-1], curves[LATE][-1], "the others", BLUE, offset=(-8, 14), ha="right")
    named(
        times,
        85,
        3.3,
        f"round robin is far above:\n{first:.0f}× at 30 %, {last:.1f}× at 93 %",
        RED,
        ha="right",
        va="top",
    )
    named(times, 52, 2.46, "least requests", ORANGE)
    named(times, 42, 1.27, "least work", SKY)
    named(times, 31, 0.79, "least work, late binding:\nthe default", BLUE, va="center")
    times.annotate(
        "", (48, 1.1), xytext=(44, 0.9), arrowprops={"arrowstyle": "-", "color": BLUE, "linewidth": 0.8}
    )
    named(times, 92, 0.84, "one queue for all", GREY, ha="right", va="center")
    waits.set(ylim=(0, None))
    times.set(ylim=(0.6, 3.4))
    times.yaxis.set_major_formatter("{x:g}×")
    for axis in (waits, times):
        axis.set_xlabel("load, % of what the replicas can do", fontsize=9.5, color="#555a61")
    save(drawn, path)


SHORT_S, LONG_S, SURPRISE_S = 0.06, 0.9, 0.5
MOMENT = (LONG_S, *[SHORT_S] * 5, SURPRISE_S, *[SHORT_S] * 11)  # of these the surprise's size tells SHORT_S
APART_S = 0.024


def served_moment(way: Way) -> list[Served]:
    """In order of arrival, seconds from the first, on three replicas whose requests' costs are learned."""
    lessons = generated("poisson", 5.0, 60.0, SHORT_S, 0.8, seed=1)
    begins = lessons[-1].at + 10.0
    requests = list(lessons)
    for at, seconds in enumerate(MOMENT):
        told_s = SHORT_S if seconds == SURPRISE_S else seconds
        requests.append(Request(begins + at * APART_S, round(told_s * BYTES_PER_S), seconds))
    found = [one for one in served(way, requests, 3) if one.request.at >= begins]
    moved = [
        Served(
            one.request._replace(at=one.request.at - begins),
            one.replica,
            one.start_s - begins,
            one.end_s - begins,
        )
        for one in found
    ]
    return sorted(moved, key=lambda one: one.request.at)


def draw_moment(path: Path) -> None:
    drawn, axes = figure(
        "One bad moment, under each policy",
        "18 requests for replicas A, B and C, one below the other as they come, 24 ms apart. Grey: it waits; "
        "colour: it is served",
        4.2, 1, len(WAYS), sharey=True,
    )  # fmt: skip
    for axis, way in zip(axes[0], WAYS, strict=True):
        found = served_moment(way)
        draw_waterfall(axis, found)
        waited = [one.wait_s * 1000 for one in found]
        titled(axis, f"{way.name.partition(' (')[0]}\n")
        axis.text(
            0, 1.02, f"mean wait {mean(waited):.0f} ms, longest {max(waited):.0f}", transform=axis.transAxes,
            fontsize=8.5, color="#555a61",
        )  # fmt: skip
    last = axes[0][-1]
    last.text(LONG_S * 1000 + 20, 0, "a long one", color=ORANGE, fontsize=9, va="center")
    last.text(LONG_S * 1000 - 160, 6, "longer than\nits size says", color=RED, fontsize=9, va="center")
    save(drawn, path)


def draw_waterfall(axis: Any, found: Sequence[Served]) -> None:
    for row, one in enumerate(found):
        came, start, end = (at * 1000 for at in (one.request.at, one.start_s, one.end_s))
        colour = {LONG_S: ORANGE, SURPRISE_S: RED}.get(one.request.seconds, BLUE)
        axis.barh(row, start - came, left=came, height=0.62, color="#c9cdd3", linewidth=0)
        axis.barh(row, end - start, left=start, height=0.62, color=colour, linewidth=0)
        axis.text(
            start + 30, row, "ABC"[one.replica], va="center", ha="center", fontsize=6.5, color="white",
            fontweight="bold",
        )  # fmt: skip
    axis.grid(visible=False, axis="y")
    axis.set(yticks=[], xlim=(0, 1680), ylim=(len(found) - 0.4, -0.6))
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("ms", fontsize=9, color="#555a61")

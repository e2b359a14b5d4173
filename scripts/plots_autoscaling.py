"""docs/autoscaling.md in pictures: a step, a climb with and without the forecast, a day, a spare replica."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from plots_style import BLUE, GREEN, GREY, INK, ORANGE, RED, SKY, figure, named, save, titled

from tritonfleet.core.autoscale import Policy
from tritonfleet.core.autoscale_targets import Targets
from tritonfleet.simulate.aggregate import aggregate
from tritonfleet.simulate.engine import simulate
from tritonfleet.simulate.flow import generated_flow
from tritonfleet.simulate.result import Result
from tritonfleet.simulate.scalers import Fleet
from tritonfleet.simulate.scenario import Scenario
from tritonfleet.simulate.workload import Request, generated

TARGET = 0.65
SERVICE_S, COLD_S, SLO_S = 0.05, 45.0, 1.0


def policy(maximum: int, **changes: Any) -> Policy:
    return replace(Policy(1, maximum, Targets(TARGET)), **changes)


def work(result: Result, unit_s: float, smooth: int = 3) -> tuple[list[float], list[float]]:
    """What arrives, in replicas' worth of work: a moving mean of the time line."""
    points = result.timeline
    at = range(len(points))
    means = [points[max(i - smooth + 1, 0) : i + 1] for i in at]
    return [one.at_s / unit_s for one in points], [
        sum(one.rate for one in some) / len(some) * SERVICE_S for some in means
    ]


def steps(axis: Any, result: Result, unit_s: float, value: str, **style: Any) -> None:
    points = result.timeline
    axis.step(
        [one.at_s / unit_s for one in points], [getattr(one, value) for one in points], where="post", **style
    )


def tail(axis: Any, result: Result, unit_s: float, **style: Any) -> None:
    known = [(one.at_s / unit_s, one.p99_s) for one in result.timeline if one.p99_s]
    axis.plot([at for at, _ in known], [p99_s for _, p99_s in known], **style)


def allowed(axis: Any) -> None:
    axis.axhline(SLO_S, color=GREY, linewidth=1, linestyle=(0, (4, 3)))


def finish(
    drawn: Any, sizes: Any, late: Any, until: tuple[float, str], path: Path, top: float | None = None
) -> None:
    """Titles, axes and the objective, as the pictures have them that show a whole load."""
    allowed(late)
    for axis in (sizes, late):
        axis.set(xlim=(0, until[0]), ylim=(0, None))
    sizes.set_ylim(0, top)
    titled(sizes, "replicas, and what arrives in replicas' worth of work")
    titled(late, "p99, seconds")
    under(late, until[1])
    save(drawn, path)


def under(axis: Any, text: str) -> None:
    axis.set_xlabel(text, fontsize=9.5, color="#555a61")


def draw_step(path: Path) -> None:
    scenario = Scenario(
        slo_s=SLO_S, maximum=16, initial=2, cold_start_s=COLD_S, cold_start_spread=0.0, every_s=5.0
    )
    found = simulate(scenario, generated("step", 20.0, 1800, SERVICE_S, 0.5, seed=1), Fleet(policy(16)))
    drawn, axes = figure(
        "A step: six times the load, for ten minutes",
        "Target: busy 65 % of the time; a replica loads for 45 s; the autoscaler's own code, in virtual time",
        5.4, 2, ratios=(3, 1.5),
    )  # fmt: skip
    (sizes,), (late,) = axes
    at, load = work(found, 60.0)
    ready = [one.ready for one in found.timeline]
    sizes.fill_between(at, load, color=GREY, alpha=0.45, linewidth=0)
    above = [size > much for size, much in zip(ready, load, strict=True)]
    sizes.fill_between(at, load, ready, where=above, step="post", color=SKY, alpha=0.22, linewidth=0)
    steps(sizes, found, 60.0, "size", color=INK, linewidth=1.4, linestyle=(0, (4, 2)))
    steps(sizes, found, 60.0, "ready", color=BLUE, linewidth=2.4)
    tail(late, found, 60.0, color=RED, linewidth=1.8)
    most = max(one.size for one in found.timeline)
    named(sizes, 9.7, most - 1.2, "ordered", INK, ha="right")
    named(sizes, 11.5, most, "ready", BLUE, offset=(4, 5))
    named(sizes, 9.7, most - 1.9, "the forecast takes the\nstep for a climb", INK, ha="right", va="top")
    named(sizes, 15, 2.5, "work that arrives", "#4b5058", ha="center")
    named(sizes, 15, 7.4, "headroom", BLUE, ha="center")
    named(
        sizes,
        25.3,
        most - 1.2,
        "fewer only after five minutes\nof less, 15 s apart",
        INK,
        ha="center",
        va="top",
    )
    worst = max(found.timeline, key=lambda one: one.p99_s or 0.0)
    named(
        late,
        worst.at_s / 60,
        worst.p99_s or 0.0,
        "2 replicas have the work of 6,\nuntil the new ones are ready",
        RED,
        offset=(12, -4),
        va="top",
    )
    named(late, 29.9, SLO_S, f"{SLO_S:g} s allowed", GREY, offset=(0, 4), ha="right")
    finish(drawn, sizes, late, (30, "minutes"), path, top=most + 2)


def draw_climb(path: Path) -> None:
    drawn, axes = figure(
        "A climb: headroom, forecast, or neither",
        "The load grows to six times in eight minutes; a replica takes 60 s to load",
        5.4, 2, ratios=(3, 1.5),
    )  # fmt: skip
    (sizes,), (late,) = axes
    scenario = Scenario(
        slo_s=SLO_S, maximum=24, initial=3, cold_start_s=60.0, cold_start_spread=0.0, every_s=5.0
    )
    requests = generated("ramp", 40.0, 600, SERVICE_S, 0.5, seed=1)
    ways = ((0.8, False, ORANGE), (0.8, True, GREEN), (TARGET, True, BLUE))
    for target, forecast, colour in ways:
        found = simulate(scenario, requests, Fleet(policy(24, targets=Targets(target), forecast=forecast)))
        if colour == ORANGE:
            at, load = work(found, 60.0)
            sizes.fill_between(at, load, color=GREY, alpha=0.45, linewidth=0)
        says = f"{target * 100:g} % busy, {'with' if forecast else 'no'} forecast: "
        says += f"{found.missed_share * 100:.0f} % later than {SLO_S:g} s"
        steps(
            sizes,
            found,
            60.0,
            "ready",
            color=colour,
            linewidth=2.2,
            label=f"{says}, {found.replica_hours:.2f} replica-hours",
        )
        tail(late, found, 60.0, color=colour, linewidth=1.8)
    named(sizes, 6, 3.2, "work that arrives", "#4b5058", ha="center")
    sizes.legend(loc="upper left", frameon=False, fontsize=9)
    finish(drawn, sizes, late, (10, "minutes"), path)


def draw_day(path: Path) -> None:
    scenario = Scenario(slo_s=SLO_S, maximum=64, initial=5, cold_start_s=COLD_S, every_s=300.0)
    rate = 300.0
    found = aggregate(scenario, generated_flow("diurnal", rate, 86400, SERVICE_S, 0.5), Fleet(policy(64)))
    most = max(one.ready for one in found.timeline)
    saved_pct = 100 - found.replica_hours / most / 24 * 100
    drawn, axes = figure(
        "A day: replicas follow the load",
        f"{found.requests / 1e6:.0f} million requests; {found.missed} of them took longer than {SLO_S:g} s; "
        f"{found.replica_hours:.0f} replica-hours, {saved_pct:.0f} % less than the peak's all day",
        4.4, 2, ratios=(3, 1.2),
    )  # fmt: skip
    (sizes,), (late,) = axes
    at, load = work(found, 3600.0, 1)
    sizes.fill_between(at, load, color=GREY, alpha=0.45, linewidth=0)
    steps(sizes, found, 3600.0, "ready", color=BLUE, linewidth=2.2)
    sizes.axhline(most, color=GREY, linestyle=(0, (4, 3)), linewidth=1)
    named(sizes, 0.2, most, "what the peak needs", "#555a61", offset=(0, -12))
    named(sizes, 12, 9, "work that arrives", "#4b5058", ha="center")
    named(sizes, 17.6, 30, "ready", BLUE, offset=(4, 4))
    tail(late, found, 3600.0, color=RED, linewidth=1.6)
    late.set_xticks(range(0, 25, 3))
    finish(drawn, sizes, late, (24, "hours"), path)


def draw_spare(path: Path) -> None:
    drawn, axes = figure(
        "A replica dies: without a spare one, and with",
        "There is work for 1.1 replicas; one is killed, and loads for 45 s. Each dot is a request",
        4.6, 2, 2, ratios=(1, 2.4), sharey="row",
    )  # fmt: skip
    killed_s, short_s = 900.0, 0.02
    for column, spare in enumerate((0, 1)):
        dots: list[tuple[float, float]] = []

        def note(
            request: Request, latency_s: float, _replica: int, dots: list[tuple[float, float]] = dots
        ) -> None:
            dots.append((request.at - killed_s, latency_s))

        scenario = Scenario(
            slo_s=SLO_S, maximum=8, initial=2 + spare, cold_start_s=COLD_S, cold_start_spread=0.0,
            kills_s=(killed_s,), every_s=1.0, max_wait_s=60.0,
        )  # fmt: skip
        found = simulate(
            scenario,
            generated("poisson", 1.1 / short_s, 1200, short_s, 0.5, seed=1),
            Fleet(policy(8, spare=spare)),
            note,
        )
        sizes, late = axes[0][column], axes[1][column]
        points = [one for one in found.timeline if -60 <= one.at_s - killed_s <= 180]
        sizes.step(
            [one.at_s - killed_s for one in points],
            [one.ready for one in points],
            where="post",
            color=BLUE,
            linewidth=2.4,
        )
        sizes.set(ylim=(0, 3.6), yticks=range(4))
        shown = [(at, much) for at, much in dots if -60 <= at <= 180]
        late.scatter([at for at, _ in shown], [much for _, much in shown], s=2.2, color=BLUE, linewidths=0)
        late.set(
            yscale="log",
            ylim=(0.003, 30),
            yticks=(0.01, 0.1, 1, 10),
            yticklabels=("10 ms", "100 ms", "1 s", "10 s"),
        )
        late.minorticks_off()
        allowed(late)
        for axis in (sizes, late):
            axis.set_xlim(-60, 180)
            axis.axvline(0, color=RED, linewidth=1.2)
        missed = sum(much > SLO_S for _, much in shown)
        titled(sizes, f"spare: {spare}; replicas ready")
        titled(late, f"latency; {missed} of {len(shown)} requests took longer than {SLO_S:g} s")
        under(late, "seconds after the kill")
    save(drawn, path)

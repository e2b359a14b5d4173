"""Our autoscaler beside others, in the simulator: SLO misses against GPU-hours, and reversals of size.

Every scaler is swept over its target, on the same requests: a curve of misses against replica-hours each. For
every point of another's curve, ours is read at the same hours (between two of its points, straight), or at
fewer hours where it never needs as many. Cold start is 45 s.

    python benchmarks/autoscale.py                                     diurnal, flash, step; about 2 minutes
    python benchmarks/autoscale.py --trace FILE.csv --cost Out=0.002   also a trace, at several speeds
    python benchmarks/autoscale.py --json FILE                         every run, too
"""

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tritonfleet.simulate.choose import scaler_named
from tritonfleet.simulate.engine import simulate
from tritonfleet.simulate.scenario import Scenario
from tritonfleet.simulate.workload import Request, generated, read_trace

OURS = "tritonfleet"
TARGETS = {
    OURS: (0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.8, 0.9, 0.95),
    "static": (2, 4, 6, 8, 12, 16, 24),
    "hpa": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    "hpa-queue": (0.1, 0.25, 0.5, 1.0, 2.0, 4.0),
    "knative": (0.3, 0.5, 0.7, 1.0, 1.4, 2.0),
    "ray-serve": (0.3, 0.5, 0.75, 1.0, 1.5, 2.0),
}
MEAN_S, SLO_S = 0.5, 3.0  # of the generated loads
SPEEDS = (1.0, 2.0, 4.0)  # of the trace


@dataclass(frozen=True)
class Load:
    name: str
    slo_s: float
    requests: Sequence[Request]


@dataclass(frozen=True)
class Ran:
    load: str
    scaler: str
    target: float
    hours: float
    missed: float  # share
    reversals: int
    actions: int


def loads(trace: Path | None, costs: dict[str, float], trace_slo_s: float) -> list[Load]:
    shapes = {"step": (2.0, 3600.0), "flash": (2.0, 3600.0), "diurnal": (4.0, 6 * 3600.0)}
    found = [
        Load(name, SLO_S, generated(name, rate, seconds, MEAN_S, 0.5, seed=1))
        for name, (rate, seconds) in shapes.items()
    ]
    for speed in SPEEDS if trace is not None else ():
        requests = read_trace(trace, costs, speed) if trace is not None else []
        found.append(Load(f"trace ×{speed:g}", trace_slo_s, requests))
    return found


def ran(load: Load, scaler: str, target: float) -> Ran:
    scenario = Scenario(slo_s=load.slo_s, initial=2, maximum=64)
    result = simulate(scenario, load.requests, scaler_named(f"{scaler}={target:g}", scenario))
    return Ran(
        load.name, scaler, target, result.replica_hours, result.missed_share, result.reversals,
        result.scale_actions,
    )  # fmt: skip


def read_at(curve: Sequence[Ran], hours: float) -> tuple[float, float] | None:
    """Misses and reversals of a curve at ``hours``; None below its cheapest point. A curve that has fewer
    misses at fewer hours is read there: nobody would pay more for less."""
    best: list[Ran] = []
    for one in sorted(curve, key=lambda one: one.hours):
        if not best or one.missed < best[-1].missed:
            best.append(one)
    if not best or hours < best[0].hours:
        return None
    for left, right in pairwise(best):
        if left.hours <= hours < right.hours:
            share = (hours - left.hours) / (right.hours - left.hours)
            return (
                left.missed + share * (right.missed - left.missed),
                left.reversals + share * (right.reversals - left.reversals),
            )
    return best[-1].missed, best[-1].reversals


def compared(runs: Sequence[Ran]) -> list[str]:
    """One line for every point of another's curve."""
    lines = [
        f"{'load':<10} {'scaler':<15} {'GPU-h':>7} {'missed':>8} {'ours':>8} {'ours/its':>8} "
        f"{'reversals':>9} {'ours':>5}"
    ]
    for one in runs:
        if one.scaler == OURS:
            continue
        ours = [other for other in runs if other.scaler == OURS and other.load == one.load]
        at = read_at(ours, one.hours)
        start = f"{one.load:<10} {one.scaler + f'={one.target:g}':<15} {one.hours:7.2f} {one.missed:8.2%} "
        if at is None:
            cheapest = min(other.hours for other in ours)
            lines.append(f"{start}{'–':>8} {'–':>8} {one.reversals:9}     –  ours needs {cheapest:.2f}")
        else:
            ratio = f"{at[0] / one.missed:.2f}" if one.missed else ("equal" if at[0] == 0 else "∞")
            lines.append(f"{start}{at[0]:8.2%} {ratio:>8} {one.reversals:9} {at[1]:5.0f}")
    return lines


def summary(runs: Sequence[Ran]) -> list[str]:
    """Of each other scaler and load: at how many of its points ours has at most half its misses."""
    lines = [
        f"{'load':<10} {'scaler':<10} {'≤ half':>7} {'≤ equal':>8} {'fewer reversals':>16} {'points':>7}"
    ]
    for load in dict.fromkeys(one.load for one in runs):
        ours = [one for one in runs if one.scaler == OURS and one.load == load]
        for name in TARGETS:
            points = [one for one in runs if one.scaler == name and one.load == load]
            read = [(one, at) for one in points if (at := read_at(ours, one.hours)) is not None]
            if name == OURS or not points:
                continue
            half = sum(at[0] <= one.missed / 2 for one, at in read)
            equal = sum(at[0] <= one.missed for one, at in read)
            calmer = sum(at[1] < one.reversals for one, at in read)
            lines.append(f"{load:<10} {name:<10} {half:7} {equal:8} {calmer:16} {len(points):7}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trace", type=Path, help="a CSV file; its first column is when")
    parser.add_argument(
        "--cost", action="append", default=[], metavar="COLUMN=SECONDS", help="time for each unit of a column"
    )
    parser.add_argument("--trace-slo", type=float, default=4.0, metavar="SECONDS")
    parser.add_argument("--json", type=Path, help="write every run there")
    chosen = parser.parse_args()
    costs = {text.partition("=")[0]: float(text.partition("=")[2]) for text in chosen.cost}
    jobs = [
        (load, scaler, target)
        for load in loads(chosen.trace, costs, chosen.trace_slo)
        for scaler, targets in TARGETS.items()
        for target in targets
    ]
    with ProcessPoolExecutor() as pool:
        runs = list(pool.map(ran, *zip(*jobs, strict=True)))
    print(f"ours, by target ({OURS}):")
    for one in runs:
        if one.scaler == OURS:
            print(
                f"{one.load:<10} {one.target:<5g} {one.hours:7.2f} GPU-h {one.missed:8.2%} missed "
                f"{one.reversals:4} reversals {one.actions:4} actions"
            )
    print("\n" + "\n".join(compared(runs)))
    print("\n" + "\n".join(summary(runs)))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps([vars(one) for one in runs], indent=1))


if __name__ == "__main__":
    main()

"""A real fleet under a load that steps 1× → 6× → 1×: does it grow in time, shrink after it, and fail nobody?

Embedded Tritons behind the router; open-loop clients that speak gRPC. Each replica takes 15 s more to load
than Triton needs, as one with many weights does. The picture shows load, replicas, p99 and decisions; the
summary says of each claim whether it was measured to hold. About 5 minutes.

    python benchmarks/demo_autoscale.py                  writes build/demo-autoscale.png
    python benchmarks/demo_autoscale.py --record FILE    keeps the record, too
    python benchmarks/demo_autoscale.py --replay FILE    judges and draws a record again
"""

import argparse
import sys
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from pathlib import Path

from fleet_plot import Lost, draw
from fleet_run import Record, Setup, Step, binned, quantile, record

BIN_S = 2.0
ALLOWED_S = 1.0  # p99
STABILIZATION_S = 45.0
TARGET = 0.65  # utilization, the default
INITIAL = 2
LOW, HIGH = 8.0, 48.0
STEPS = (Step(LOW, 45), Step(HIGH, 90), Step(LOW, 120))

SETUP = Setup(
    model="sized_work", batch=1, base_ms=0, per_byte_us=10, mean_bytes=4000, sizes_sigma=0.3, load_s=15,
    replicas={"min": INITIAL, "initial": INITIAL, "max": 8},
    autoscale={
        "latency": {"p99": f"{ALLOWED_S:g}s"},
        "scale_down": {"stabilization": f"{STABILIZATION_S:g}s", "step": "5s"},
    },
    steps=STEPS,
)  # fmt: skip


@dataclass(frozen=True)
class Claim:
    holds: bool
    text: str

    def __str__(self) -> str:
        return f"{'PASS' if self.holds else 'FAIL'}  {self.text}"


def lost(found: Record, allowed_s: float) -> list[Lost]:
    """The stretches of bins whose p99 is above ``allowed_s``, (from, to) in seconds."""
    stretches: list[Lost] = []
    for index, latencies in enumerate(binned(found.due_s, found.latencies_s, BIN_S)):
        if quantile(latencies, 0.99) > allowed_s:
            at = index * BIN_S
            if stretches and stretches[-1][1] == at:
                stretches[-1] = (stretches[-1][0], at + BIN_S)
            else:
                stretches.append((at, at + BIN_S))
    return stretches


def claims(found: Record) -> list[Claim]:
    rises, falls = STEPS[0].seconds, STEPS[0].seconds + STEPS[1].seconds
    return [grows(found, rises), shrinks(found, falls), ends(found), fails_nobody(found)]


def grows(found: Record, rises: float) -> Claim:
    over = sum(end - start for start, end in lost(found, ALLOWED_S))
    ordered = next((one.at_s for one in found.samples if one.at_s >= rises and one.desired > INITIAL), None)
    serving = next((one.at_s for one in found.samples if one.at_s >= rises and one.ready > INITIAL), None)
    longest = max(found.cold_starts_s, default=0.0)
    said = f"p99 above {ALLOWED_S:g} s for {over:.0f} s in all; a cold start takes {longest:.1f} s"
    if ordered is None or serving is None:
        return Claim(False, f"the fleet grows: it does not ({said})")
    when = f"ordered {ordered - rises:.1f} s after the step, serving {serving - rises:.1f} s after it"
    return Claim(over <= longest, f"it grows before p99 is lost for more than a cold start: {said} ({when})")


def shrinks(found: Record, falls: float) -> Claim:
    """The load of the second step needs so many replicas; fewer may be there only after the window."""
    needed = ceil(HIGH * found.busy_s / TARGET)
    below = next((one.at_s for one in found.samples if one.at_s >= falls and one.desired < needed), None)
    ways = [(one.after or 0) > (one.before or 0) for one in found.events if one.kind == "pool.autoscaled"]
    turns = sum(one != other for one, other in pairwise(ways))
    if below is None:
        return Claim(False, f"it shrinks after the window: it never has less than {needed}")
    return Claim(
        below - falls >= STABILIZATION_S and turns == 1,
        f"it shrinks after the window of {STABILIZATION_S:g} s: less than the {needed} that 6× needs "
        f"{below - falls:.0f} s after the load fell; changes of direction: {turns}",
    )


def ends(found: Record) -> Claim:
    peak, last = max(one.ready for one in found.samples), found.samples[-1]
    return Claim(
        peak > INITIAL and last.ready == last.desired == INITIAL,
        f"it ends as it began: {INITIAL} replicas, then {peak}, then {last.ready}",
    )


def fails_nobody(found: Record) -> Claim:
    return Claim(
        found.failed == 0 and found.wrong == 0,
        f"no request fails: {len(found.due_s)} sent, {found.failed} failed, {found.wrong} answered wrongly",
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--png", type=Path, default=Path("build/demo-autoscale.png"), help="(%(default)s)")
    parser.add_argument("--record", type=Path, help="keep the record of the run there")
    parser.add_argument("--replay", type=Path, help="judge this record instead of a new run")
    chosen = parser.parse_args()
    try:
        found = Record.read(chosen.replay) if chosen.replay else record(SETUP)
    except (RuntimeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if chosen.record:
        found.write(chosen.record)
    judged = claims(found)
    print(f"load {LOW:g} → {HIGH:g} → {LOW:g} requests/s, {len(found.due_s)} requests, {found.taken_at}\n")
    for one in found.events:
        if one.kind == "pool.autoscaled":
            print(f"{one.at_s:6.1f} s  {one.reason}")
    print()
    print(*judged, sep="\n")
    if found.late_p99_s > 0.05:
        print(f"\nthe client was {found.late_p99_s * 1e3:.0f} ms late at p99: too little processor left")
    if draw(found, ALLOWED_S, BIN_S, lost(found, ALLOWED_S), chosen.png):
        print(f"\npicture: {chosen.png}")
    else:
        print(f"\n{chosen.png} is not written: matplotlib is not installed")
    return 0 if all(one.holds for one in judged) else 1


if __name__ == "__main__":
    sys.exit(main())

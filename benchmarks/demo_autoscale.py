"""A real fleet under a load that steps 1× → 6× → 1×: does it grow in time, shrink afterwards, and fail nobody?

Embedded Tritons behind the router; open-loop clients that speak gRPC. Each replica takes 15 s more to load
than Triton needs, as one with many weights does. The picture shows load, replicas, p99 and decisions; the
summary says of each claim whether it was measured to hold. About 5 minutes.

    python benchmarks/demo_autoscale.py                  writes demo-autoscale.png
    python benchmarks/demo_autoscale.py --record FILE    keeps the record, too
    python benchmarks/demo_autoscale.py --replay FILE    judges and draws a record again
"""

import argparse
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fleet_run import Record, Setup, Step, binned, quantile, record
from fleet_plot import Lost, draw

BIN_S = 2.0
ALLOWED_S = 1.0  # p99
STABILIZATION_S = 45.0
LOW, HIGH = 9.0, 54.0
STEPS = (Step(LOW, 45), Step(HIGH, 90), Step(LOW, 120))

SETUP = Setup(
    model="sized_work", batch=1, base_ms=0, per_byte_us=10, mean_bytes=4000, sizes_sigma=0.3, load_s=15,
    replicas={"min": 1, "initial": 2, "max": 8},
    autoscale={
        "spare": 1,
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
    up_at, down_at = STEPS[0].seconds, STEPS[0].seconds + STEPS[1].seconds
    changes = [one for one in found.events if one.kind == "pool.autoscaled"]
    grown = [one for one in changes if (one.after or 0) > (one.before or 0)]
    shrunk = [one for one in changes if (one.after or 0) < (one.before or 0)]
    longest = max(found.cold_starts_s, default=0.0)
    stretches = lost(found, ALLOWED_S)
    over = sum(end - start for start, end in stretches)
    peak, last = max(one.ready for one in found.samples), found.samples[-1]
    first_ready = next((one.at_s for one in found.samples if one.ready > SETUP.replicas["initial"]), None)
    first_up = next((one.at_s for one in grown if one.at_s >= up_at), None)
    first_down = next((one.at_s for one in shrunk if one.at_s >= up_at), None)
    ways = [(one.after or 0) > (one.before or 0) for one in changes]
    turns = sum(one != other for one, other in pairwise(ways))
    return [
        Claim(
            first_up is not None and first_ready is not None and over <= longest,
            f"the fleet grows before p99 ≤ {ALLOWED_S:g} s is lost for more than a cold start: lost for "
            f"{over:.0f} s, a cold start took {longest:.1f} s"
            + (f"; ordered {first_up - up_at:.1f} s after the step" if first_up is not None else "; not ordered")
            + (f", serving {first_ready - up_at:.1f} s after it" if first_ready is not None else ""),
        ),
        Claim(
            first_down is not None and first_down - down_at >= STABILIZATION_S and turns == 1,
            f"it shrinks after the window of {STABILIZATION_S:g} s, and not to and fro: "
            + (f"first {first_down - down_at:.0f} s after the load fell" if first_down is not None else "never")
            + f", {turns} change of direction",
        ),
        Claim(
            last.ready == SETUP.replicas["initial"] and last.desired == last.ready,
            f"it ends as it began: {SETUP.replicas['initial']} replicas, then {peak}, then {last.ready}",
        ),
        Claim(
            found.failed == 0 and found.wrong == 0,
            f"no request fails: {len(found.due_s)} sent, {found.failed} failed, {found.wrong} wrongly answered",
        ),
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--png", type=Path, default=Path("demo-autoscale.png"), help="(%(default)s)")
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

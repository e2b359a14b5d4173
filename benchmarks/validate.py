"""Does the simulator tell the truth? A recorded run of the real fleet beside its simulation.

The fleet (embedded Tritons that batch, router, autoscaler) serves steps of load for 10 minutes and grows and
shrinks with them. The simulator is given the same requests, what a request takes when nothing else is asked,
what a launch took, and the same settings; nothing is fitted to the run. They are to agree within 25 % on
replicas over time and on p99.

    python benchmarks/validate.py --record FILE    a new run, kept; about 12 minutes
    python benchmarks/validate.py                  compares the record in recordings/ again; seconds
"""

import argparse
import sys
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import median

from fleet_plot import draw_beside
from fleet_run import Record, Setup, Step, quantile, record

from tritonfleet.config.autoscale_spec import AutoscaleSpec
from tritonfleet.core.autoscale import Policy
from tritonfleet.core.autoscale_targets import Targets
from tritonfleet.simulate.engine import simulate
from tritonfleet.simulate.result import Result
from tritonfleet.simulate.scalers import Fleet
from tritonfleet.simulate.scenario import Scenario
from tritonfleet.simulate.workload import Request

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "recordings" / "fleet.json"

SETUP = Setup(
    model="sized_batch", batch=4, base_ms=20, per_byte_us=40, mean_bytes=2000, sizes_sigma=0.5, load_s=10,
    replicas={"min": 1, "initial": 1, "max": 8},
    autoscale={"scale_down": {"stabilization": "40s", "step": "5s"}},
    steps=(Step(5, 90), Step(25, 150), Step(12, 120), Step(40, 120), Step(5, 120)),
)  # fmt: skip
WITHIN = 0.25
BIN_S = 5.0


@dataclass(frozen=True)
class Simulated:
    result: Result
    latencies_s: list[float]  # in order of arrival; of a refused request, until it was refused


def simulated(found: Record) -> Simulated:
    """The run again, in virtual time."""
    setup, latencies = found.setup, dict[float, float]()
    base_s = setup.base_ms / 1e3 + found.busy_s - setup.mean_s
    requests = [
        Request(at, size, base_s + size * setup.per_byte_us / 1e6)
        for at, size in zip(found.due_s, found.sizes, strict=True)
    ]
    launch_s = median(found.cold_starts_s)
    scenario = Scenario(
        slo_s=1.0, minimum=setup.replicas["min"], initial=setup.replicas["initial"],
        maximum=setup.replicas["max"], cold_start_s=launch_s,
        cold_start_spread=(max(found.cold_starts_s) - min(found.cold_starts_s)) / 2 / launch_s,
        batch=setup.batch, batch_base_s=base_s, overhead_s=max(found.alone_s - found.busy_s, 0.0),
        every_s=1.0,
    )  # fmt: skip
    spec = AutoscaleSpec.model_validate(setup.autoscale)

    def note(request: Request, latency_s: float, _replica: int) -> None:
        latencies[request.at] = latency_s

    result = simulate(scenario, requests, Fleet(policy_of(spec, scenario)), note)
    return Simulated(result, [latencies.get(request.at, scenario.max_wait_s) for request in requests])


def policy_of(spec: AutoscaleSpec, scenario: Scenario) -> Policy:
    """As `controller.autoscaler.policy_of` makes it of a fleet file."""
    return Policy(
        scenario.minimum, scenario.maximum, Targets(spec.target_utilization), spare=spec.spare,
        panic_hold_s=2 * spec.scale_up.window, stabilization_s=spec.scale_down.stabilization,
        step_s=spec.scale_down.step,
    )  # fmt: skip


def replicas_apart(found: Record, result: Result) -> tuple[float, float]:
    """(mean difference of ready replicas at the moments of the record, mean of what the real fleet had)."""
    apart, total = 0.0, 0.0
    for sample in found.samples:
        index = min(int(sample.at_s), len(result.timeline) - 1)
        apart += abs(result.timeline[index].ready - sample.ready)
        total += sample.ready
    return apart / len(found.samples), total / len(found.samples)


def compare(found: Record, again: Simulated) -> tuple[str, bool]:
    """The figures, and whether they are within what is allowed."""
    apart, mean = replicas_apart(found, again.result)
    real_peak = max(one.ready for one in found.samples)
    peak = max(one.ready for one in again.result.timeline)
    lines = [
        f"{'':18}{'real':>9}{'simulated':>11}{'apart':>8}",
        f"{'replicas, mean':18}{mean:9.2f}{mean_ready(again.result, found):11.2f}{apart / mean:8.0%}"
        "   difference at each moment, on average",
        f"{'replicas, most':18}{real_peak:9}{peak:11}",
    ]
    holds = [apart <= WITHIN * mean]
    start = 0.0
    spans = [("all", 0.0, inf)]
    for step in found.setup.steps:
        spans.append((f"{step.rate:g}/s", start, start + step.seconds))
        start += step.seconds
    for share in (0.5, 0.99):
        for name, since, until in spans:
            chosen = [index for index, at in enumerate(found.due_s) if since <= at < until]
            real = quantile([found.latencies_s[index] for index in chosen], share)
            simulated_s = quantile([again.latencies_s[index] for index in chosen], share)
            lines.append(
                f"{f'p{share * 100:.0f}, {name}':18}{real * 1e3:6.0f} ms{simulated_s * 1e3:8.0f} ms"
                f"{simulated_s / real - 1:+8.0%}"
            )
            if name == "all" and share == 0.99:
                holds.append(abs(simulated_s / real - 1) <= WITHIN)
    return "\n".join(lines), all(holds)


def mean_ready(result: Result, found: Record) -> float:
    points = [one for one in result.timeline if one.at_s <= found.samples[-1].at_s]
    return sum(one.ready for one in points) / len(points)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", type=Path, metavar="FILE", help="record a new run there, and compare it")
    parser.add_argument("--of", type=Path, metavar="FILE", default=RECORDED, help="compare this record")
    parser.add_argument("--png", type=Path, default=Path("build/validate.png"), help="(%(default)s)")
    chosen = parser.parse_args()
    try:
        if chosen.record:
            record(SETUP).write(chosen.record)
        found = Record.read(chosen.record or chosen.of)
    except (RuntimeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    again = simulated(found)
    text, agrees = compare(found, again)
    print(f"{len(found.due_s)} requests in {sum(step.seconds for step in found.setup.steps):g} s,", end=" ")
    print(f"{found.failed} failed; recorded {found.taken_at}\n\n{text}\n")
    print(f"{'PASS' if agrees else 'FAIL'}  replicas over time and p99 of all are within {WITHIN:.0%}")
    if draw_beside(found, again.result, again.latencies_s, BIN_S, chosen.png):
        print(f"\npicture: {chosen.png}")
    else:
        print(f"\n{chosen.png} is not written: matplotlib is not installed")
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())

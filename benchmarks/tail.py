"""How long requests wait: our router's policies, Envoy, HAProxy and nginx in front of the same real replicas.

Four Triton servers, one request at a time each, whose service time follows the size of the request (asleep:
see models/). An open-loop client (open_loop.py) sends the same Poisson arrivals with the same sizes through
every proxy in turn. Latency counts from when a request was due. "central queue" is computed from the same
requests: the best that first-come-first-served can do if nothing but the service took time.

    python benchmarks/tail.py                      sizes lognormal and bimodal, load 0.85; about 6 minutes
    python benchmarks/tail.py --slow               one replica takes twice as long
    python benchmarks/tail.py --trace FILE.csv     sizes as in a column of a file
    python benchmarks/tail.py --saturate           requests/s with dynamic batching, by what replicas may hold
"""

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import arrivals
import tail_report
from arrivals import Workload
from contest import machine, proxy
from peers import Envoy, HAProxy, Nginx, Peer, Tritonfleet
from replicas import replicas
from tail_report import Run

from tritonfleet.core.balance import POLICIES

HERE = Path(__file__).resolve().parent
MODEL, BATCHED = "sized_work", "sized_batch"
SLOTS = 4  # what the controller finds a replica of MODEL can usefully hold: one executes, three wait
BATCH = 8
OPTIMUM = "central queue"
REFERENCES = ("envoy-least", "haproxy", "envoy-rr", OPTIMUM)
CLIENT_LATE_S = 0.005  # a client that sends later than this at p99 measures itself


def targets() -> list[Peer]:
    """Our policies with requests sent on at once, our best with late binding, and the others."""
    ours: list[Peer] = [Tritonfleet(name, name, [MODEL], None) for name in POLICIES]
    late: list[Peer] = [Tritonfleet("least_work-late", "least_work", [MODEL], SLOTS)]
    others = [Envoy("envoy-rr", "ROUND_ROBIN"), Envoy("envoy-least", "LEAST_REQUEST"), HAProxy(), Nginx()]
    return [*ours, *late, *others]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [peer.name for peer in targets()]
    parser.add_argument("--targets", nargs="+", choices=names, default=names, help="what to compare")
    parser.add_argument("--sizes", nargs="+", choices=["lognormal", "bimodal", "constant"], default=None)
    parser.add_argument("--trace", type=Path, metavar="CSV", help="sizes in proportion to a column of a file")
    parser.add_argument("--trace-column", default="GeneratedTokens", help="which (%(default)s)")
    parser.add_argument("--loads", nargs="+", type=float, default=[0.85], help="(%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="how often, with other draws (%(default)s)")
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement (%(default)s)")
    parser.add_argument("--replicas", type=int, default=4, help="Triton servers (%(default)s)")
    parser.add_argument("--slow", action="store_true", help="the last replica takes twice as long")
    parser.add_argument("--saturate", action="store_true", help="throughput with dynamic batching instead")
    parser.add_argument("--json", action="store_true", help="print samples as JSON instead of tables")
    parser.add_argument("--png", type=Path, help="also write a plot there (needs matplotlib)")
    chosen = parser.parse_args()
    chosen.sizes = chosen.sizes or ([] if chosen.trace else ["lognormal", "bimodal"])
    if chosen.trace:
        chosen.sizes.append("trace")
    return chosen


def present(peers: Sequence[Peer]) -> list[Peer]:
    """Those that can run here; says which cannot."""
    for peer in peers:
        if missing := peer.missing():
            print(f"skipping {missing}", file=sys.stderr)
    return [peer for peer in peers if not peer.missing()]


@contextmanager
def behind(
    peers: Sequence[Peer], count: int, model: str, slownesses: Sequence[float] = ()
) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Proxies in front of ``count`` replicas of ``model``; yields each proxy's address by name, and the
    replicas' own addresses."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end by SIGTERM cleans up as well
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="tritonfleet-bench-")))
        extra = [{"SLOWNESS": str(slowness)} for slowness in slownesses]
        upstreams = stack.enter_context(replicas(count, [model], folder, HERE / "models", extra))
        yield {peer.name: stack.enter_context(proxy(peer, folder, upstreams))[0] for peer in peers}, upstreams


def ask(address: str, **orders: Any) -> dict[str, Any]:
    """Have a client process carry out ``orders``. Raises RuntimeError unless every answer was right."""
    client = subprocess.run(
        [sys.executable, str(HERE / "open_loop.py")],
        input=json.dumps({"address": address, **orders}),
        capture_output=True,
        text=True,
        check=False,
    )
    if client.returncode:
        raise RuntimeError(f"the client of {address} failed:\n{client.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(client.stdout)
    if found.get("failed") or found.get("wrong"):
        raise RuntimeError(
            f"{address}: {found['failed']} requests failed, {found['wrong']} were answered wrongly\n"
            + client.stderr[-2000:]
        )
    return found


def measured_slownesses(upstreams: Sequence[str]) -> list[float]:
    """Seconds each replica takes for one nominal second of work, always with something to do: the server's
    own time between two requests, and whatever else keeps the machine busy, are part of it."""
    sizes = [round(arrivals.MEAN_S / arrivals.PER_BYTE_S)]
    found = []
    for address in upstreams:
        orders = {"at_a_time": 2, "seconds": 75 * arrivals.MEAN_S}
        rate = ask(address, model=MODEL, batched=False, sizes=sizes, **orders)["requests_per_s"]
        if not rate:
            raise RuntimeError(f"the replica at {address} answers nothing within {orders['seconds']:g} s")
        found.append(1 / rate / arrivals.MEAN_S)
    print(f"replicas take {' '.join(f'{value:.2f}' for value in found)} × nominal", file=sys.stderr)
    return found


def measure(target: str, address: str, work: Workload, **orders: Any) -> Run:
    """``orders``: more of them for the client (`open_loop`)."""
    found = ask(address, model=MODEL, batched=False, sizes=work.sizes, due_s=work.arrivals_s, **orders)
    if found["late_p99_s"] > CLIENT_LATE_S:
        print(
            f"  the client was {found['late_p99_s'] * 1e3:.0f} ms late at p99: too little processor left",
            file=sys.stderr,
        )
    return Run(target, work.name, work.load, work.seed, found["latencies_s"])


def tail(chosen: argparse.Namespace) -> list[Run]:
    peers = present([peer for peer in targets() if peer.name in chosen.targets])
    trace = arrivals.read_trace(chosen.trace, chosen.trace_column) if chosen.trace else []
    slownesses = [1.0] * chosen.replicas
    if chosen.slow:
        slownesses[-1] = 2.0
    runs: list[Run] = []
    with behind(peers, chosen.replicas, MODEL, slownesses) as (addresses, upstreams):
        slownesses = measured_slownesses(upstreams)
        capacity = sum(1 / slowness for slowness in slownesses)
        for address in addresses.values():  # connections are made, costs are learned
            first = arrivals.workload("lognormal", 0.5, -1, 1.0, capacity)
            ask(address, model=MODEL, batched=False, sizes=first.sizes, due_s=first.arrivals_s)
        for sizes in chosen.sizes:
            for load in chosen.loads:
                for seed in range(chosen.seeds):
                    work = arrivals.workload(sizes, load, seed, chosen.seconds, capacity, trace)
                    runs.append(Run(OPTIMUM, sizes, load, seed, arrivals.central_queue(work, slownesses)))
                    names = list(addresses)
                    shift = seed * 3 % len(names)
                    for name in names[shift:] + names[:shift]:
                        print(f"{sizes} {load:g}, seed {seed}: {name}", file=sys.stderr)
                        runs.append(measure(name, addresses[name], work))
        measured_slownesses(upstreams)  # shows whether the machine is as busy as at the beginning
    order = [OPTIMUM, *addresses]
    return sorted(runs, key=lambda run: order.index(run.target))


def saturate(chosen: argparse.Namespace) -> dict[str, list[float]]:
    """Requests/s when there is always more to do than replicas can batch, by what each may hold at a time:
    anything, what the controller finds useful (2 × max_batch_size), and too little."""
    caps = {"any": None, f"{2 * BATCH}": 2 * BATCH, "2": 2}
    peers = [Tritonfleet(f"hold-{name}", "least_work", [BATCHED], slots) for name, slots in caps.items()]
    work = arrivals.workload("lognormal", 1.0, 0, 20.0, chosen.replicas)
    found: dict[str, list[float]] = {peer.name: [] for peer in peers}
    with behind(peers, chosen.replicas, BATCHED) as (addresses, _):
        for repeat in range(chosen.seeds + 1):  # the first is not counted: costs are learned
            for name, address in addresses.items():
                orders = {"at_a_time": 4 * BATCH * chosen.replicas, "seconds": chosen.seconds}
                rate = ask(address, model=BATCHED, batched=True, sizes=work.sizes, **orders)["requests_per_s"]
                print(f"saturation, repeat {repeat}: {name}: {rate:.1f} requests/s", file=sys.stderr)
                if repeat:
                    found[name].append(rate)
    return found


def saturation_table(found: dict[str, list[float]]) -> str:
    best = median(found["hold-any"])
    lines = [f"{'a replica may hold':24}{'requests/s':>12}{'of any':>9}"]
    lines += [f"{name:24}{median(rates):12.1f}{median(rates) / best:9.3f}" for name, rates in found.items()]
    return "\n".join(lines)


def main() -> int:
    chosen = arguments()
    try:
        if chosen.saturate:
            found = saturate(chosen)
            print(json.dumps(found, indent=2) if chosen.json else saturation_table(found))
            return 0
        runs = tail(chosen)
    except (RuntimeError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if chosen.json:
        about = machine(present(targets()))
        print(json.dumps({"machine": about, "runs": [asdict(run) for run in runs]}))
    else:
        print(tail_report.table(runs, REFERENCES), tail_report.text_plot(runs), sep="\n\n")
    if chosen.png and not tail_report.png(runs, chosen.png):
        print(f"{chosen.png} is not written: matplotlib is not installed", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

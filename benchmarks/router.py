"""Everything that is asked of the router as a proxy, beside Envoy, HAProxy and nginx, in one run.

    python benchmarks/router.py [--only cpu latency ...] [--repeats 5] [--write-json FILE] [--png FILE]

Workloads: `connections` (memory of 1,000 connections), `cpu` (h2load, 4 connections × 8 calls, ModelMetadata
and ModelInfer of 16 bytes: CPU per request), `latency` (sequential tritonclient calls: time added to that of
a replica without a proxy), `payloads` (MB/s of large tensors), `streams` (messages/s of one stream,
ping-pong), `workers` (our router alone, with one worker and with two: requests/s, and how evenly they spread
what is in flight). All proxies have one worker, take turns, and are measured as benchmarks/README.md says.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import connections
import load
import router_picture
import sequential
import several_workers
from contest import (
    Contest,
    Load,
    Sample,
    arguments,
    echo_answer_bytes,
    machine,
    metadata_answer_bytes,
    present,
)
from figures import Figure

SMALL = 16  # bytes
SIZES = {"100 kB": 100_000, "1 MB": 1_000_000, "16 MB": 16_000_000}


def cpu(contest: Contest, chosen: argparse.Namespace) -> list[Figure]:
    figures = []
    answers = metadata_answer_bytes(contest.upstreams[0], "digits")
    for request, requests in (
        (load.Request("ModelMetadata", load.model_metadata("digits"), answers), chosen.requests),
        (_echo(contest, SMALL), chosen.requests // 4),
    ):
        samples = contest.run(Load(request, requests, 4, 8), chosen.repeats)
        bars = {"envoy": 0.7, "nginx": 0.7, "haproxy": 1.2}
        figures.append(
            Figure(
                f"CPU per request, {request.method}",
                "µs",
                _pick(samples, lambda sample: sample.cpu_us_per_request),
                bars,
            )
        )
        rates = {name: [one.requests_per_s for one in own] for name, own in samples.items()}
        figures.append(Figure(f"requests, {request.method}", "/s", rates, {}, at_least=True, digits=0))
    return figures


def latency(contest: Contest, chosen: argparse.Namespace) -> list[Figure]:
    """What is added is the difference to "direct" of the same repeat."""
    count = max(200, chosen.requests // 20)
    addresses = {"direct": contest.upstreams[0], **contest.addresses}
    added: list[dict[str, list[float]]] = [{name: [] for name in contest.addresses} for _ in range(2)]
    for repeat in range(chosen.repeats):
        print(f"latency {repeat + 1}/{chosen.repeats}", file=sys.stderr)
        found = sequential.latencies_s(addresses, SMALL, count)
        cuts = {name: sequential.p50_p99_us(own) for name, own in found.items()}
        for name in contest.addresses:
            for index in range(2):
                added[index][name].append(cuts[name][index] - cuts["direct"][index])
    return [
        Figure("latency added, p50", "µs", added[0], {"envoy": 0.6}),
        Figure("latency added, p99", "µs", added[1], {}),
    ]


def payloads(contest: Contest, chosen: argparse.Namespace) -> list[Figure]:
    figures = []
    for title, size in SIZES.items():
        requests = max(8, min(400, 200_000_000 // size) * chosen.requests // 20_000)
        samples = contest.run(Load(_echo(contest, size), requests, 2, 2), chosen.repeats)
        rates = {name: [one.requests_per_s * size / 1e6 for one in own] for name, own in samples.items()}
        bar = 0.9 if size > 1_000_000 else 1.0
        figures.append(Figure(f"{title} tensors", "MB/s", rates, {"envoy": bar}, at_least=True))
    return figures


def many(contest: Contest, chosen: argparse.Namespace) -> list[Figure]:
    found: dict[str, connections.Memory] = {}
    for name, address in contest.addresses.items():  # once: a second run finds the memory of the first
        print(f"connections: {name}", file=sys.stderr)
        found[name] = connections.measure(address, contest.pids[name], chosen.connections)
    open_ = f"{chosen.connections:,}"
    return [
        Figure(f"memory per idle connection, {open_} open", "kB", _one(found, "idle_kb"), {"all": 60}),
        Figure(f"memory per connection with a call, {open_} open", "kB", _one(found, "in_use_kb"), {}),
        Figure(f"memory in all, {open_} calls", "MB", _one(found, "total_mb"), {"all": 120}),
    ]


def streams(contest: Contest, chosen: argparse.Namespace) -> list[Figure]:
    count = max(200, chosen.requests // 20)
    rates = contest.in_turns(
        lambda _name, address: sequential.messages_per_s(address, SMALL, count), chosen.repeats, "streams"
    )
    return [Figure("messages of one stream, ping-pong", "/s", rates, {"envoy": 1.0}, at_least=True)]


WORKLOADS: dict[str, Callable[[Contest, argparse.Namespace], list[Figure]]] = {
    "connections": many,  # first: memory is read best of proxies that have done nothing yet
    "cpu": cpu,
    "latency": latency,
    "payloads": payloads,
    "streams": streams,
    "workers": several_workers.measure,
}


def _echo(contest: Contest, size: int) -> load.Request:
    return load.Request("ModelInfer", load.echo(size), echo_answer_bytes(contest.upstreams[0], size))


def _pick(samples: dict[str, list[Sample]], of: Callable[[Sample], float]) -> dict[str, list[float]]:
    return {name: [of(one) for one in own] for name, own in samples.items() if name != "direct"}


def _one(found: dict[str, connections.Memory], field: str) -> dict[str, list[float]]:
    return {name: [getattr(memory, field)] for name, memory in found.items()}


def document(figures: list[Figure], about: dict[str, Any]) -> dict[str, Any]:
    rows = [
        {
            "title": one.title,
            "unit": one.unit,
            "medians": one.medians,
            "samples": one.samples,
            "verdicts": one.verdicts(),
            "note": one.note,
        }
        for one in figures
    ]
    return {"machine": about, "figures": rows}


def main() -> int:
    parser = arguments(__doc__, requests=20_000, repeats=5)
    parser.add_argument("--only", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--connections", type=int, default=1000, help="of that workload (%(default)s)")
    parser.add_argument("--write-json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the medians (needs matplotlib)")
    chosen = parser.parse_args()
    peers = present(chosen.peers)
    figures: list[Figure] = []
    try:
        connections.allow_files(8 * chosen.connections + 1000)
        with Contest(peers, chosen.replicas, ["digits", "echo"]) as contest:
            for name in [name for name in WORKLOADS if name in chosen.only]:
                for figure in WORKLOADS[name](contest, chosen):
                    figures.append(figure)
                    if not chosen.json:
                        print(figure.table(), end="\n\n", flush=True)
    except (RuntimeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    found = document(figures, machine(peers))
    if chosen.json:
        print(json.dumps(found, indent=2))
    if chosen.write_json is not None:
        chosen.write_json.write_text(json.dumps(found, indent=2) + "\n")
    if chosen.png is not None and not router_picture.draw(found, chosen.png):
        print(f"{chosen.png} is not written: matplotlib is not installed", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""CPU per request: our router, Envoy, HAProxy and nginx in front of the same real Triton servers.

h2load sends ModelMetadata over 4 connections, 8 at a time on each: a call that every proxy must
forward and that costs Triton little, so that the proxy's own work is what is seen. Every proxy has one
worker. CPU is user plus system time of the proxy's processes (from /proc), divided by the requests.

    python benchmarks/router_cpu.py [--requests 20000] [--repeats 5] [--peers tritonfleet envoy] [--json]
"""

import sys

import load
from contest import (
    Contest,
    Load,
    Sample,
    arguments,
    as_json,
    medians,
    metadata_answer_bytes,
    present,
    ratio,
    spread,
)

MODEL = "digits"


def table(samples: dict[str, list[Sample]]) -> str:
    lines = [f"{'':12} {'CPU µs/req':>10} {'(min-max)':>12} {'× Envoy':>8} {'req/s':>8} {'RSS MiB':>8}"]
    for name, taken in samples.items():
        middle = medians(taken)
        if name == "direct":
            lines.append(f"{name:12} {'-':>10} {'-':>12} {'-':>8} {middle.requests_per_s:8.0f} {'-':>8}")
            continue
        lines.append(
            f"{name:12} {middle.cpu_us_per_request:10.1f} {spread(taken):>12} "
            f"{ratio(middle.cpu_us_per_request, samples, 'cpu_us_per_request'):>8} "
            f"{middle.requests_per_s:8.0f} {middle.rss_mib:8.1f}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = arguments(__doc__, requests=20_000, repeats=5)
    parser.add_argument("--connections", type=int, default=4, help="client connections (%(default)s)")
    parser.add_argument(
        "--streams", type=int, default=8, help="calls at a time on each connection (%(default)s)"
    )
    chosen = parser.parse_args()
    peers = present(chosen.peers)
    try:
        with Contest(peers, chosen.replicas, [MODEL]) as contest:
            answer_bytes = metadata_answer_bytes(contest.upstreams[0], MODEL)
            request = load.Request("ModelMetadata", load.model_metadata(MODEL), answer_bytes)
            work = Load(request, chosen.requests, chosen.connections, chosen.streams)
            samples = contest.run(work, chosen.repeats)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(as_json(samples, work, peers) if chosen.json else table(samples))
    return 0


if __name__ == "__main__":
    sys.exit(main())

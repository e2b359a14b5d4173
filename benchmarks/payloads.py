"""Large tensors: MB/s and CPU per MB through our router, Envoy, HAProxy and nginx, to real Triton servers.

h2load sends ModelInfer to the `echo` model, which gives every byte back, over 2 connections, 2 at a time
on each. A MB counts once, though it passes the proxy twice: in the request and in the answer.
"direct" is one replica without a proxy, whose own work bounds what any proxy can show in MB/s;
CPU per MB is the proxy's alone.

    python benchmarks/payloads.py [--sizes 1 8] [--requests 200] [--repeats 5] [--peers ...] [--json]
"""

import json
import sys
from typing import Any

import load
from contest import Contest, Load, Sample, arguments, as_json, echo_answer_bytes, medians, present, ratio

MB = 1_000_000
CONNECTIONS = 2
STREAMS = 2


def table(samples: dict[str, list[Sample]], size_mb: float) -> str:
    lines = [
        f"{size_mb:g} MB{'':7} {'MB/s':>8} {'× Envoy':>8} {'CPU µs/MB':>10} {'× Envoy':>8} {'RSS MiB':>8}"
    ]
    for name, taken in samples.items():
        middle = medians(taken)
        cpu = f"{middle.cpu_us_per_request / size_mb:10.0f}" if middle.cpu_us_per_request else f"{'-':>10}"
        rss = f"{middle.rss_mib:8.1f}" if middle.rss_mib else f"{'-':>8}"
        lines.append(
            f"{name:12} {middle.requests_per_s * size_mb:8.0f} "
            f"{ratio(middle.requests_per_s, samples, 'requests_per_s'):>8} {cpu} "
            f"{ratio(middle.cpu_us_per_request, samples, 'cpu_us_per_request'):>8} {rss}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = arguments(__doc__, requests=200, repeats=5)
    parser.add_argument("--sizes", type=float, nargs="+", default=[1, 8], metavar="MB", help="tensor sizes")
    chosen = parser.parse_args()
    peers = present(chosen.peers)
    tables: list[str] = []
    documents: dict[str, Any] = {}
    try:
        with Contest(peers, chosen.replicas, ["echo"]) as contest:
            for size_mb in chosen.sizes:
                size = int(size_mb * MB)
                answer_bytes = echo_answer_bytes(contest.upstreams[0], size)
                request = load.Request("ModelInfer", load.echo(size), answer_bytes)
                requests = max(
                    1, round(chosen.requests / max(1.0, size_mb))
                )  # about as many bytes of each size
                work = Load(request, requests, CONNECTIONS, STREAMS)
                samples = contest.run(work, chosen.repeats)
                tables.append(table(samples, size_mb))
                documents[f"{size_mb:g} MB"] = json.loads(as_json(samples, work, peers))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(documents, indent=2) if chosen.json else "\n\n".join(tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())

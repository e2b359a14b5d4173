"""What TLS toward the replicas costs the router: the same load through one with it and one without.

    python benchmarks/replica_tls.py [--requests 20000] [--repeats 5]

Two Tritons are plain and two use TLS (`triton.tls`); a router in front of each pair, in turns. h2load speaks
plainly with both routers. Needs openssl, for a certificate of a day.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import load
from contest import Contest, Load, Sample, echo_answer_bytes, medians, metadata_answer_bytes
from peers.tritonfleet import Tritonfleet
from replicas import replicas

from tritonfleet.core.replica_tls import ReplicaTls, ServerTls

MODELS = ["digits", "echo"]
LARGE = 1_000_000  # bytes


class OverTls(Tritonfleet):
    """In front of its own replicas, whatever the contest's are."""

    def __init__(self, upstreams: Sequence[str], tls: ReplicaTls) -> None:
        super().__init__("TLS", tls=tls)
        self._own = upstreams

    def command(self, folder: Path, port: int, _upstreams: Sequence[str]) -> list[str]:
        return super().command(folder, port, self._own)


def certificate(folder: Path) -> ServerTls:
    """One that signs itself."""
    cert, key = str(folder / "replica.pem"), str(folder / "replica.key")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "1", "-subj", "/CN=replica"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", key, "-out", cert),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return ServerTls(cert, key, cert, ReplicaTls(cert, "localhost"))


def rows(what: str, samples: dict[str, list[Sample]]) -> str:
    """CPU and requests/s of both, and what TLS makes of them."""
    plain, tls = medians(samples["plain"]), medians(samples["TLS"])
    cpu = tls.cpu_us_per_request / plain.cpu_us_per_request
    rate = tls.requests_per_s / plain.requests_per_s
    return (
        f"{what:24} {plain.cpu_us_per_request:8.1f} {tls.cpu_us_per_request:8.1f} {cpu:6.2f}"
        f" {plain.requests_per_s:9.0f} {tls.requests_per_s:9.0f} {rate:6.2f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=20_000, help="of ModelMetadata (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each (%(default)s)")
    chosen = parser.parse_args()
    with TemporaryDirectory(prefix="tritonfleet-bench-") as name:
        tls = certificate(Path(name))
        with (
            replicas(2, MODELS, Path(name), tls=tls) as secured,
            Contest([Tritonfleet("plain"), OverTls(secured, tls.client)], 2, MODELS) as contest,
        ):
            print(f"{'':24} {'CPU, µs a request':^24} {'requests/s':^26}")
            print(f"{'':24} {'plain':>8} {'TLS':>8} {'×':>6} {'plain':>9} {'TLS':>9} {'×':>6}")
            answers = metadata_answer_bytes(contest.upstreams[0], "digits")
            metadata = load.Request("ModelMetadata", load.model_metadata("digits"), answers)
            small, large = (
                load.Request("ModelInfer", load.echo(size), echo_answer_bytes(contest.upstreams[0], size))
                for size in (16, LARGE)
            )
            for what, work in (
                ("ModelMetadata", Load(metadata, chosen.requests, 4, 8)),
                ("ModelInfer, 16 B", Load(small, chosen.requests // 4, 4, 8)),
                ("ModelInfer, 1 MB", Load(large, max(8, chosen.requests // 100), 2, 2)),
            ):
                print(rows(what, contest.run(work, chosen.repeats)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The same load through several proxies in front of the same replicas, in turns.

All proxies run for the whole contest and idle while it is another's turn; the order rotates from
repeat to repeat, so that no proxy always follows the same other one. What else the machine does
disturbs all of them alike: of all numbers, trust the ratios.
"""

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar

import load
import numpy as np
import tritonclient.grpc as triton
from load import Request
from peers import ALL, Peer
from processes import cpu_s, family, free_ports, rss_bytes, running
from replicas import replicas, wait_ready

WARM_UP = 0.1  # of the requests, sent before each measurement
REFERENCE = "envoy"
S = TypeVar("S")


@dataclass(frozen=True)
class Sample:
    """One measurement of one proxy."""

    cpu_us_per_request: float
    requests_per_s: float
    rss_mib: float


@dataclass(frozen=True)
class Load:
    request: Request
    requests: int
    connections: int
    streams: int


def arguments(description: str | None, requests: int, repeats: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [peer.name for peer in ALL]
    parser.add_argument(
        "--requests", type=int, default=requests, help="of each measurement (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=int, default=repeats, help="measurements of each proxy (%(default)s)"
    )
    parser.add_argument("--replicas", type=int, default=2, help="Triton servers behind them (%(default)s)")
    parser.add_argument("--peers", nargs="+", choices=names, default=names, help="the proxies to compare")
    parser.add_argument("--json", action="store_true", help="print the samples as JSON instead of a table")
    return parser


def present(names: Sequence[str]) -> list[Peer]:
    """The chosen proxies that can run here; says which cannot."""
    chosen = []
    for peer in ALL:
        if peer.name in names:
            if missing := peer.missing():
                print(f"skipping {missing}", file=sys.stderr)
            else:
                chosen.append(peer)
    return chosen


@contextmanager
def proxy(peer: Peer, folder: Path, upstreams: Sequence[str]) -> Iterator[tuple[str, int]]:
    """``peer`` in front of ``upstreams``, running and ready; yields its address and its process's id."""
    own = folder / peer.name
    own.mkdir()
    [port] = free_ports(1)
    with running(peer.command(own, port, upstreams), own / "output.log") as process:
        address = f"127.0.0.1:{port}"
        wait_ready(address, own / "output.log")
        yield address, process.pid


class Contest:
    """Replicas and proxies, running for as long as the block runs."""

    def __init__(self, peers: Sequence[Peer], replica_count: int, models: Sequence[str]) -> None:
        self.peers = peers
        self.addresses: dict[str, str] = {}
        self.upstreams: list[str] = []
        self.pids: dict[str, int] = {}  # of each proxy's first process
        self._replica_count, self._models = replica_count, models
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        load.require_h2load()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end by SIGTERM cleans up as well
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(TemporaryDirectory(prefix="tritonfleet-bench-")))
            self.upstreams = stack.enter_context(replicas(self._replica_count, self._models, self.folder))
            for peer in self.peers:
                address, pid = stack.enter_context(proxy(peer, self.folder, self.upstreams))
                self.addresses[peer.name], self.pids[peer.name] = address, pid
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, work: Load, repeats: int) -> dict[str, list[Sample]]:
        """``repeats`` samples of every proxy, and of a replica without any ("direct", no CPU or memory).

        Raises RuntimeError if a proxy fails a single request.
        """
        return self.in_turns(lambda name, _address: self._measure(name, work), repeats)

    def in_turns(
        self, measure: Callable[[str, str], S], repeats: int, what: str = "repeat"
    ) -> dict[str, list[S]]:
        """What ``measure`` of a target's name and address returns, ``repeats`` times for every target,
        "direct" (a replica without any proxy) included."""
        addresses = {"direct": self.upstreams[0], **self.addresses}
        samples: dict[str, list[S]] = {name: [] for name in addresses}
        names = list(addresses)
        for repeat in range(repeats):
            shift = repeat % len(names)
            for name in names[shift:] + names[:shift]:
                print(f"{what} {repeat + 1}/{repeats}: {name}", file=sys.stderr)
                samples[name].append(measure(name, addresses[name]))
        return samples

    def _measure(self, name: str, work: Load) -> Sample:
        if name == "direct":
            return Sample(0.0, self._send(self.upstreams[0], work).requests_per_s, 0.0)
        warm_up = max(work.connections, int(work.requests * WARM_UP))
        self._send(self.addresses[name], replace(work, requests=warm_up))
        pids = family(self.pids[name])
        before = cpu_s(pids)
        outcome = self._send(self.addresses[name], work)
        used = cpu_s(pids) - before
        return Sample(used / work.requests * 1e6, outcome.requests_per_s, rss_bytes(pids) / 2**20)

    def _send(self, address: str, work: Load) -> load.Outcome:
        return load.run(
            address,
            work.request,
            self.folder,
            requests=work.requests,
            connections=work.connections,
            streams=work.streams,
        )


def medians(samples: Sequence[Sample]) -> Sample:
    return Sample(
        median(sample.cpu_us_per_request for sample in samples),
        median(sample.requests_per_s for sample in samples),
        median(sample.rss_mib for sample in samples),
    )


def ratio(value: float, samples: dict[str, list[Sample]], field: str) -> str:
    """``value`` over the median of Envoy's ``field``: "0.42", or "-" where there is none."""
    if REFERENCE not in samples:
        return "-"
    reference = getattr(medians(samples[REFERENCE]), field)
    return f"{value / reference:.2f}" if value and reference else "-"


def spread(samples: Sequence[Sample]) -> str:
    """Smallest and largest CPU time."""
    values = [sample.cpu_us_per_request for sample in samples]
    return f"{min(values):.1f}-{max(values):.1f}"


def machine(peers: Sequence[Peer]) -> dict[str, Any]:
    """What the numbers were taken on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": list(os.getloadavg()),
        "versions": {peer.name: peer.version() for peer in peers},
    }


def as_json(samples: dict[str, list[Sample]], work: Load, peers: Sequence[Peer]) -> str:
    results = {
        name: {"median": asdict(medians(taken)), "samples": [asdict(sample) for sample in taken]}
        for name, taken in samples.items()
    }
    load_of = {"requests": work.requests, "connections": work.connections, "streams": work.streams}
    sizes = {"request_bytes": len(work.request.body), "answer_bytes": work.request.answer_bytes}
    return json.dumps({"machine": machine(peers), "load": load_of | sizes, "results": results}, indent=2)


def metadata_answer_bytes(address: str, model: str) -> int:
    """Size of the framed answer to ModelMetadata for ``model``, as a replica gives it."""
    with triton.InferenceServerClient(address) as client:
        return 5 + client.get_model_metadata(model).ByteSize()


def echo_answer_bytes(address: str, size: int) -> int:
    """Size of the framed answer of `echo` to ``size`` bytes, as a replica gives it."""
    given = triton.InferInput("INPUT0", [size], "UINT8")
    given.set_data_from_numpy(np.zeros(size, np.uint8))
    with triton.InferenceServerClient(address) as client:
        result = client.infer("echo", [given], outputs=[triton.InferRequestedOutput("OUTPUT0")])
        return 5 + result.get_response().ByteSize()

"""A run of a real fleet under a known load, and its record: what was asked, and what the fleet did.

The fleet is started by its command line from a file of its own, serves a model of `models/` on embedded
Tritons, and is sent Poisson arrivals by `open_loop.py` through its router. Meanwhile its sizes are read twice
a second, and afterwards its decisions from its journal. Nothing of it is left when the block ends.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from math import log
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep
from typing import Any, Self

from processes import free_ports

from tritonfleet.cli.client import ControlClient
from tritonfleet.controller.paths import FleetPaths

HERE = Path(__file__).resolve().parent
SAMPLE_S = 0.5
CALIBRATION_S = 4.0
FORGET_S = 40.0  # after this the autoscaler's windows and its panic have forgotten the calibration


@dataclass(frozen=True)
class Step:
    rate: float  # requests a second
    seconds: float


@dataclass(frozen=True)
class Setup:
    """``model`` of `models/`, with its base and per-byte time set to these; ``sizes_sigma`` spreads request
    sizes (lognormal around ``mean_bytes``). ``load_s``: what loading takes beside Triton's own start."""

    model: str
    batch: int
    base_ms: float
    per_byte_us: float
    mean_bytes: int
    sizes_sigma: float
    load_s: float
    replicas: dict[str, int]  # the fleet file's min, initial, max
    autoscale: dict[str, Any]  # the fleet file's section
    steps: tuple[Step, ...]
    seed: int = 1

    @property
    def mean_s(self) -> float:
        """A request of the mean size, alone, by the model's parameters."""
        return self.base_ms / 1e3 + self.mean_bytes * self.per_byte_us / 1e6

    @classmethod
    def of(cls, data: dict[str, Any]) -> Self:
        return cls(**{**data, "steps": tuple(Step(**step) for step in data["steps"])})


@dataclass(frozen=True)
class Sample:
    at_s: float
    desired: int
    ready: int
    starting: int
    draining: int


@dataclass(frozen=True)
class Event:
    at_s: float
    kind: str
    reason: str
    before: int | None = None
    after: int | None = None
    cold_start_s: float | None = None


@dataclass
class Record:
    """Times in seconds from the first moment of the load; requests in order of arrival. ``alone_s``: what a
    request of the mean size took when nothing else was asked; ``busy_s``: what it kept a replica busy for
    (replicas over answers a second, each always with another one waiting). ``latencies_s``: of a failed
    request until it failed."""

    setup: Setup
    taken_at: str
    alone_s: float
    busy_s: float
    due_s: list[float]
    sizes: list[int]
    latencies_s: list[float]
    failed: int
    wrong: int
    late_p99_s: float
    samples: list[Sample] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def cold_starts_s(self) -> list[float]:
        return [one.cold_start_s for one in self.events if one.cold_start_s is not None]

    def write(self, path: Path) -> None:
        data = asdict(self)
        for name in ("due_s", "latencies_s"):
            data[name] = [round(value, 4) for value in data[name]]
        data["samples"] = [
            [round(one.at_s, 2), one.desired, one.ready, one.starting, one.draining] for one in self.samples
        ]
        path.write_text(json.dumps(data, separators=(",", ":"), ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        data = json.loads(path.read_text())
        data["setup"] = Setup.of(data["setup"])
        data["samples"] = [Sample(*values) for values in data["samples"]]
        data["events"] = [Event(**values) for values in data["events"]]
        return cls(**data)


def arrivals(setup: Setup) -> tuple[list[float], list[int]]:
    """(when due, size in bytes) of every request."""
    draw = random.Random(f"fleet {setup.seed}")
    mu = log(setup.mean_bytes) - setup.sizes_sigma**2 / 2
    due, sizes, start = [], [], 0.0
    for step in setup.steps:
        now = start + draw.expovariate(step.rate)
        while now < start + step.seconds:
            due.append(now)
            sizes.append(max(1, round(draw.lognormvariate(mu, setup.sizes_sigma))))
            now += draw.expovariate(step.rate)
        start += step.seconds
    return due, sizes


def repository(setup: Setup, folder: Path) -> Path:
    """A copy of `models/` with the setup's parameters."""
    copy = folder / "models"
    shutil.copytree(HERE / "models", copy, ignore=shutil.ignore_patterns("__pycache__"))
    config = copy / setup.model / "config.pbtxt"
    text = config.read_text()
    for name, value in (("base_ms", setup.base_ms), ("per_byte_us", setup.per_byte_us)):
        text = re.sub(rf'("{name}" value: {{ string_value: ")[^"]*', rf"\g<1>{value:g}", text)
    if setup.batch > 1:
        text = re.sub(r"max_batch_size: \d+", f"max_batch_size: {setup.batch}", text)
    config.write_text(text)
    return copy


class RealFleet:
    """A fleet of its own in ``folder``; `up` and `down` are the command line's."""

    def __init__(self, setup: Setup, folder: Path) -> None:
        self.setup, self._folder = setup, folder
        self.clients: list[subprocess.Popen[str]] = []
        name, [port] = f"bench{os.urandom(3).hex()}", free_ports(1)
        self.address = f"127.0.0.1:{port}"
        self._environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("TRITONFLEET_")},
            "TRITONFLEET_STATE_DIR": str(folder / "state"),
        }
        self._client = ControlClient(name, FleetPaths.of(name, self._environ).control_socket)
        spec = {
            "version": 1,
            "name": name,
            "driver": "process",
            "devices": {"cpu": setup.replicas["max"]},
            "router": {"listen": self.address},
            "pools": {
                "main": {
                    "model_repository": str(repository(setup, folder)),
                    "models": [setup.model],
                    "replicas": setup.replicas,
                    "autoscale": setup.autoscale,
                    "drain_timeout": "20s",
                    "triton": {"env": {"LOAD_S": f"{setup.load_s:g}"}, "exit_timeout": "5s"},
                }
            },
        }
        self._file = folder / "tritonfleet.yaml"
        self._file.write_text(json.dumps(spec, indent=2))  # JSON is YAML

    def command(self, *words: str) -> None:
        """Raises RuntimeError with what it said unless it succeeds."""
        done = subprocess.run(
            [sys.executable, "-m", "tritonfleet.cli.main", "-f", str(self._file), *words],
            env=self._environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"tritonfleet {' '.join(words)}: {done.stdout}{done.stderr}")

    def ask(self, **orders: Any) -> subprocess.Popen[str]:
        """A client process that carries out ``orders``; its answer is for `answer`."""
        client = subprocess.Popen(
            [sys.executable, str(HERE / "open_loop.py")],
            stdin=subprocess.PIPE, stdout=(self._folder / "answer").open("w"),
            stderr=(self._folder / "client.log").open("w"), text=True,
        )  # fmt: skip
        assert client.stdin is not None
        whole = {"address": self.address, "model": self.setup.model, "batched": self.setup.batch > 1}
        json.dump(whole | orders, client.stdin)
        client.stdin.close()
        self.clients.append(client)
        return client

    def answer(self, client: subprocess.Popen[str]) -> dict[str, Any]:
        if client.wait():
            raise RuntimeError(f"the client failed:\n{(self._folder / 'client.log').read_text()[-2000:]}")
        found: dict[str, Any] = json.loads((self._folder / "answer").read_text())
        return found

    def rate(self, at_a_time: int) -> float:
        """Answers a second to requests of the mean size."""
        sizes = [self.setup.mean_bytes]
        client = self.ask(at_a_time=at_a_time, seconds=CALIBRATION_S, sizes=sizes)
        return float(self.answer(client)["requests_per_s"])

    def sample(self) -> Sample:
        """With the time since the epoch."""
        snapshot = self._client.snapshot()
        [pool] = snapshot.pools
        return Sample(snapshot.at, pool.desired, pool.ready, pool.starting, pool.draining)

    def events(self, began: float) -> list[Event]:
        """Changes of size, and replicas that became ready or failed, since ``began``."""
        kinds = ("pool.autoscaled", "replica.ready", "replica.failed")
        names = ("before", "after", "cold_start_s")
        return [
            Event(
                round(one.at - began, 2), one.type, one.reason, **{name: one.data.get(name) for name in names}
            )
            for one in self._client.events()
            if one.at >= began and one.type in kinds
        ]


@contextmanager
def real_fleet(setup: Setup) -> Iterator[RealFleet]:
    """Up and ready with its first replicas; down and gone afterwards."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end by SIGTERM cleans up as well
    with TemporaryDirectory(prefix="tritonfleet-bench-") as folder:
        fleet = RealFleet(setup, Path(folder))
        try:
            fleet.command("up", "-d", "--wait")
            yield fleet
        finally:
            for client in fleet.clients:
                client.kill()  # nothing, for one that has ended
            fleet.command("down", "--force", "-y")


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def record(setup: Setup) -> Record:
    """The whole of it, which takes as long as the steps and a start. Raises RuntimeError when the fleet or
    the client cannot be run; requests that fail are counted."""
    due, sizes = arrivals(setup)
    tell(f"starting a fleet of {setup.replicas['initial']} (each loads for {setup.load_s:g} s)")
    with real_fleet(setup) as fleet:
        fleet.command("autoscale", "pause")
        alone_s = 1 / fleet.rate(at_a_time=1)
        busy_s = setup.replicas["initial"] / fleet.rate(at_a_time=2 * setup.replicas["initial"])
        tell(f"a request of the mean size takes {alone_s * 1e3:.1f} ms, {busy_s * 1e3:.1f} ms of a replica")
        sleep(FORGET_S)
        fleet.command("autoscale", "resume")
        client, samples = fleet.ask(sizes=sizes, due_s=due), list[Sample]()
        while client.poll() is None:
            samples.append(fleet.sample())
            if len(samples) < 2 or samples[-1].desired != samples[-2].desired:
                tell(f"  {samples[-1].desired} replicas wanted, {samples[-1].ready} ready")
            sleep(SAMPLE_S)
        found = fleet.answer(client)
        began = found["began_at"]
        events = fleet.events(began)
    taken_at = f"{datetime.fromtimestamp(began, UTC):%Y-%m-%d %H:%M} UTC"
    return Record(
        setup, taken_at, round(alone_s, 5), round(busy_s, 5), due, sizes, found["latencies_s"],
        found["failed"], found["wrong"], found["late_p99_s"],
        [replace(one, at_s=round(one.at_s - began, 2)) for one in samples if one.at_s >= began], events,
    )  # fmt: skip


def quantile(values: Sequence[float], share: float) -> float:
    """Nearest rank; 0 of nothing."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))] if ranked else 0.0


def binned(due_s: Sequence[float], latencies_s: Sequence[float], bin_s: float) -> list[list[float]]:
    """Latencies by when their requests were due, in bins of ``bin_s``."""
    found: list[list[float]] = [[] for _ in range(int(due_s[-1] / bin_s) + 1)]
    for due, latency in zip(due_s, latencies_s, strict=True):
        found[int(due / bin_s)].append(latency)
    return found

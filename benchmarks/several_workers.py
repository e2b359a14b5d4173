"""The workload `workers` of router.py: what a second worker of our router brings, and what it must not break.

Throughput is requests/s of h2load with one worker and with two, where the machine has the cores for it.
Balance is how evenly replicas are used when two workers choose for themselves: with what both have in flight
on a board they share, as the controller starts them, and without one, for contrast. Its replicas sleep (see
models/), so that two cores are enough. What is in flight where is read from the workers' access logs.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import arrivals
import evenness
import load
import tail
import tail_report
from contest import Contest, metadata_answer_bytes
from figures import Figure
from peers import Tritonfleet
from processes import cpu_s, family, free_ports, running
from replicas import replicas, wait_ready

REPLICAS = 4
INSTANCES = tuple(f"bench-{index}.1" for index in range(REPLICAS))  # as the peer names them
START_TIMEOUT_S = 30.0
UNEVEN = 0.9  # of the calls at one of two workers: the other was hardly asked

TRITON, H2LOAD = 1.5, 0.35
"""Seconds of CPU that the replicas and h2load take for each of a worker's: ModelMetadata costs them 31 and
7 µs where it costs a worker 21."""
CONNECTIONS, STREAMS = 128, 2
"""Of h2load. The kernel deals connections out by chance and h2load's all carry as much, so throughput ends at
1 / (the busier worker's share): 1.67 with 16 connections, on average, and 1.87 with 128."""
THROUGHPUT_BAR = 1.7

SECONDS, LOAD, SIZES = 2.0, 0.85, "lognormal"
FASTER = 2  # than the arrivals of `tail.py`: requests take 10 ms on average, so twice as many are counted
CLIENT_CONNECTIONS = 32
BALANCE_BAR = 1.1


@dataclass(frozen=True)
class Setup:
    name: str
    workers: int
    board: bool


ONE, TWO, BLIND = Setup("1 worker", 1, False), Setup("2 workers", 2, True), Setup("2, no board", 2, False)


@dataclass(frozen=True)
class Policy:
    """What a policy evens out, and how it is run: ``slots`` a replica may hold, the rest waits (None: any).
    ``by_size``: a request counts by the time it takes, in ms."""

    name: str
    slots: int | None
    evens_out: str
    by_size: bool

    @property
    def unit(self) -> str:
        return "ms" if self.by_size else "requests"


POLICIES = (
    Policy("least_requests", None, "requests in flight", by_size=False),
    Policy("least_work", tail.SLOTS, "expected work in flight", by_size=True),
)


@dataclass(frozen=True)
class Workers:
    address: str
    pids: list[int]
    logs: list[Path]


@dataclass(frozen=True)
class Balance:
    spread: float
    p99_ms: float
    busier: float  # share of the calls


def cores_needed(workers: int) -> int:
    """For as many workers to be what limits requests/s."""
    return math.ceil(workers * (1 + TRITON + H2LOAD))


def too_few(cores: int) -> str:
    """Why requests/s of two workers say nothing on a machine of ``cores``; "" if they do."""
    needed = cores_needed(TWO.workers)
    if cores >= needed:
        return ""
    return (
        f"not measured: this machine has {cores} cores and {needed} are needed, {TWO.workers} for the workers"
        f" and, to keep those busy, {TWO.workers * TRITON:g} for the replicas"
        f" and {TWO.workers * H2LOAD:g} for h2load"
    )


def measure(contest: Contest, chosen: argparse.Namespace) -> list[Figure]:
    """Of replicas of its own. Raises RuntimeError if a request fails."""
    folder = contest.folder / "workers"
    folder.mkdir()
    with ExitStack() as stack:
        upstreams = stack.enter_context(replicas(REPLICAS, [tail.MODEL], folder, tail.HERE / "models"))
        figures = [_throughput(folder, upstreams, chosen)]
        slownesses = tail.measured_slownesses(upstreams)
        for policy in POLICIES:
            figures += _balance(policy, folder, upstreams, slownesses, chosen.repeats)
        return figures


@contextmanager
def _running(
    setup: Setup, policy: Policy, folder: Path, upstreams: Sequence[str], *, logged: bool
) -> Iterator[Workers]:
    """``setup``'s workers, when all of them listen."""
    [port] = free_ports(1)
    address = f"127.0.0.1:{port}"
    own = folder / f"{policy.name} {setup.name}{' logged' if logged else ''}"
    pids, logs = [], []
    with ExitStack() as stack:
        for index in range(setup.workers):
            place = own / str(index)
            place.mkdir(parents=True)
            command = Tritonfleet("", policy.name, [tail.MODEL], policy.slots).command(place, port, upstreams)
            command += [f"--worker={index}", f"--workers={setup.workers}"]
            command += [f"--board={own / 'inflight.board'}"] if setup.board else []
            command += [f"--access-log={place / 'access.log'}"] if logged else []
            process = stack.enter_context(running(command, place / "output.log"))
            pids.append(process.pid)
            logs.append(place / "access.log")
        for index in range(setup.workers):
            _wait_listening(own / str(index) / "output.log")
        wait_ready(address, own / "0" / "output.log")
        yield Workers(address, pids, logs)


def _wait_listening(output: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while "listening on" not in output.read_text():
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"a worker does not listen within {START_TIMEOUT_S:g} s:\n{output.read_text()[-2000:]}"
            )
        time.sleep(0.05)


def _throughput(folder: Path, upstreams: Sequence[str], chosen: argparse.Namespace) -> Figure:
    """ModelMetadata, so that the router has more to do than the replicas."""
    title, bars = "requests of ModelMetadata by workers", {ONE.name: THROUGHPUT_BAR}
    if note := too_few(len(os.sched_getaffinity(0))):
        return Figure(title, "/s", {}, bars, at_least=True, own=TWO.name, note=note)
    request = load.Request(
        "ModelMetadata",
        load.model_metadata(tail.MODEL),
        metadata_answer_bytes(upstreams[0], tail.MODEL),
    )
    requests = 5 * chosen.requests
    found: dict[str, list[float]] = {ONE.name: [], TWO.name: []}
    busier = []
    with ExitStack() as stack:
        started = {
            setup: stack.enter_context(_running(setup, POLICIES[1], folder, upstreams, logged=False))
            for setup in (ONE, TWO)
        }
        for repeat in range(-1, chosen.repeats):  # the first warms up
            for setup, its in _turned(started, repeat):
                print(f"workers, requests/s {repeat + 1}/{chosen.repeats}: {setup.name}", file=sys.stderr)
                before = [cpu_s(family(pid)) for pid in its.pids]
                outcome = load.run(
                    its.address,
                    request,
                    folder,
                    requests=requests,
                    connections=CONNECTIONS,
                    streams=STREAMS,
                    threads=2,
                )
                if repeat < 0:
                    continue
                found[setup.name].append(outcome.requests_per_s)
                if setup is TWO:
                    used = [cpu_s(family(pid)) - past for pid, past in zip(its.pids, before, strict=True)]
                    busier.append(max(used) / sum(used))
    note = f"the busier of two workers used {_range(busier)} of their CPU time"
    return Figure(title, "/s", found, bars, at_least=True, own=TWO.name, paired=True, note=note)


def _balance(
    policy: Policy, folder: Path, upstreams: Sequence[str], slownesses: Sequence[float], seeds: int
) -> list[Figure]:
    """The same requests with every setup, seed by seed."""
    capacity = sum(1 / slowness for slowness in slownesses)
    found: dict[str, list[Balance]] = {setup.name: [] for setup in (ONE, TWO, BLIND)}
    with ExitStack() as stack:
        started = {
            setup: stack.enter_context(_running(setup, policy, folder, upstreams, logged=True))
            for setup in (ONE, TWO, BLIND)
        }
        for seed in range(
            -1, seeds
        ):  # the first: connections are made, costs learned, rows of the board found
            seconds, load_ = (SECONDS, LOAD) if seed >= 0 else (1.5, 0.5)
            drawn = arrivals.workload(SIZES, load_, seed, seconds * FASTER, capacity)
            for setup, its in _turned(started, seed):
                print(f"workers, {policy.name} {seed + 1}/{seeds}: {setup.name}", file=sys.stderr)
                measured = _measured(policy, its, faster(drawn))
                if seed >= 0:
                    found[setup.name].append(measured)
    spreads = {name: [one.spread for one in own] for name, own in found.items()}
    p99 = {name: [one.p99_ms for one in own] for name, own in found.items()}
    even = Figure(
        f"spread of {policy.evens_out}, {policy.name}",
        policy.unit,
        spreads,
        {ONE.name: BALANCE_BAR},
        own=TWO.name,
        paired=True,
        digits=1 if policy.by_size else 2,
        note=_told([one.busier for setup in (TWO, BLIND) for one in found[setup.name]]),
    )
    return [even, Figure(f"p99, {policy.name}", "ms", p99, {})]


def _turned(started: dict[Setup, Workers], turn: int) -> list[tuple[Setup, Workers]]:
    """In another order each time."""
    order = list(started.items())
    shift = turn % len(order)
    return order[shift:] + order[:shift]


def faster(work: arrivals.Workload) -> arrivals.Workload:
    """The same in less time: smaller requests that come sooner."""
    return replace(
        work,
        arrivals_s=[at / FASTER for at in work.arrivals_s],
        sizes=[max(1, size // FASTER) for size in work.sizes],
    )


def _measured(policy: Policy, workers: Workers, work: arrivals.Workload) -> Balance:
    begins = [log.stat().st_size for log in workers.logs]
    run = tail.measure("", workers.address, work, connections=CLIENT_CONNECTIONS)
    lines = evenness.inferences(workers.logs, begins, len(work.sizes))
    held = [evenness.held(line, by_size=policy.by_size) for own in lines for line in own]
    since = min(one.since for one in held)
    until = max(one.since for one in held)  # what follows is the queues running empty
    since += tail_report.WARM_UP * (until - since)
    return Balance(
        evenness.spread(held, INSTANCES, since, until),
        tail_report.percentile(run.counted(), 99) * 1e3,
        max(len(own) for own in lines) / len(held),
    )


def _told(busier: Sequence[float]) -> str:
    """How the calls were shared out among two workers."""
    note = f"the busier of two workers had {_range(busier)} of the calls"
    if max(busier) > UNEVEN:
        note += ": at times one had nearly all, which says little of two; run it again"
    return note


def _range(shares: Sequence[float]) -> str:
    return f"{min(shares) * 100:.0f}-{max(shares) * 100:.0f} %"

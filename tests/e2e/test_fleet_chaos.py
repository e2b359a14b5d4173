"""Long fault injection: replicas die or hang again and again under load, and no request is lost."""

import asyncio
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc.aio as triton_aio
from running_fleet import RunningFleet, free_port, running_fleet
from test_fleet_traffic import replica_of, tensor

pytestmark = [pytest.mark.triton, pytest.mark.chaos, pytest.mark.xdist_group("fleet_chaos")]

SECONDS, RATE = 120, 200
KILL_EVERY_S = 10
HANG_AT_S = (10, 70)  # far enough apart for the first one's replacement to be settled
MARGIN, FLOOR_S = 10, 1.0  # by which a p99 may differ from a calm one's; a hang holds up for 30 s
EJECTED_WITHIN_S = 32  # `core.ejection.OLDEST_S`, and the second until the watchdog looks


@dataclass
class Load:
    """`RATE` requests a second for `SECONDS`, whatever is still unanswered: what came of each."""

    client: triton_aio.InferenceServerClient
    failures: list[str] = field(default_factory=list)
    replicas: Counter[str] = field(default_factory=Counter)
    took: dict[int, float] = field(default_factory=dict)  # seconds, by number of the request
    began: dict[int, float] = field(default_factory=dict)  # when it was sent, by the clock of the events

    async def run(self, fault: dict[int, int], fleet: RunningFleet) -> None:
        """``fault``: by number of a request, the signal that a replica gets when it is sent."""
        loop = asyncio.get_running_loop()
        began, tasks = loop.time(), set()
        for number in range(SECONDS * RATE):
            await asyncio.sleep(max(0.0, began + number / RATE - loop.time()))
            tasks.add(asyncio.create_task(self._call(number)))
            if number in fault:
                victim = list(fault).index(number)
                tasks.add(asyncio.create_task(asyncio.to_thread(_send, fleet, victim, fault[number])))
        await asyncio.gather(*tasks)

    async def _call(self, number: int) -> None:
        values = np.frombuffer(number.to_bytes(8, "big") * 4, np.uint8)
        began = asyncio.get_running_loop().time()
        self.began[number] = time.time()
        try:
            result = await self.client.infer("counted", [tensor("INPUT0", values, "UINT8")])
        except Exception as error:  # noqa: BLE001 # every kind of failure counts
            self.failures.append(repr(error))
            return
        self.took[number] = asyncio.get_running_loop().time() - began
        if not np.array_equal(result.as_numpy("OUTPUT0"), values):
            self.failures.append(f"request {number}: a wrong answer")
        self.replicas[replica_of(result)] += 1

    def slow(self, limit_s: float) -> list[int]:
        return [number for number, took in self.took.items() if took > limit_s]

    def p99(self, begin: float, end: float) -> float:
        """Of the requests that were sent between two moments, of which there are many."""
        found = sorted(took for number, took in self.took.items() if begin <= self.began[number] < end)
        assert len(found) >= 5 * RATE
        return found[len(found) * 99 // 100]


@contextmanager
def counting_fleet(folder: Path) -> Iterator[tuple[RunningFleet, Path, str]]:
    """Four replicas of `counted`, the file of its notes, and the address of the metrics."""
    notes, metrics = folder / "executions", f"127.0.0.1:{free_port()}"
    with running_fleet(
        folder, "--scale", "main=4", model_repository=str(Path(__file__).parent / "models"),
        models=["counted"], metrics={"listen": metrics},
        triton={"exit_timeout": "5s", "env": {"EXECUTIONS": str(notes)}},
    ) as fleet:  # fmt: skip
        yield fleet, notes, metrics


def assert_executed_once_but_for_retries(notes: Path, metrics: str) -> None:
    """What replicas really executed, those included that died of it, beside what the router sent again."""
    written = notes.read_bytes()
    executions = Counter(int.from_bytes(written[at : at + 8], "big") for at in range(0, len(written), 8))
    text = httpx.get(f"http://{metrics}/metrics", trust_env=False, timeout=10).text
    (retries,) = re.findall(r"^tritonfleet_retries_total (\S+)$", text, re.MULTILINE)
    assert sorted(executions) == list(range(SECONDS * RATE))
    assert max(executions.values()) <= 2
    assert executions.total() <= SECONDS * RATE + float(retries)
    assert float(retries) > 0  # or nothing was proved


def _send(fleet: RunningFleet, victim: int, number: int) -> None:
    pids = list(fleet.pids().values())
    os.kill(pids[victim % len(pids)], number)


@pytest.mark.timeout(300)
async def test_killing_a_replica_every_ten_seconds_loses_no_request(tmp_path: Path) -> None:
    faults = {
        number: int(signal.SIGKILL)
        for number in range(KILL_EVERY_S * RATE // 2, SECONDS * RATE, KILL_EVERY_S * RATE)
    }
    with counting_fleet(tmp_path) as (fleet, notes, metrics):
        async with triton_aio.InferenceServerClient(fleet.address) as client:
            load = Load(client)
            await load.run(faults, fleet)
        workers = fleet.snapshot()["router"]["workers"]
        exits = fleet.events("replica.exited")
        assert_executed_once_but_for_retries(notes, metrics)
    assert load.failures == []
    assert sum(load.replicas.values()) == SECONDS * RATE
    assert len(exits) == len(faults) == SECONDS // KILL_EVERY_S
    assert [worker["restarts"] for worker in workers] == [0]
    assert set(load.replicas) == {f"main-{ordinal}" for ordinal in range(4)}


@pytest.mark.timeout(300)
async def test_replicas_that_hang_lose_no_request_and_hold_up_few(tmp_path: Path) -> None:
    """A stopped process keeps its connections: only its silence tells. What it holds is asked elsewhere when
    that is found out; everybody else goes on at once, since it is given no more than it could batch."""
    faults = {second * RATE: int(signal.SIGSTOP) for second in HANG_AT_S}
    with counting_fleet(tmp_path) as (fleet, notes, metrics):
        async with triton_aio.InferenceServerClient(fleet.address) as client:
            load = Load(client)
            await load.run(faults, fleet)
        unhealthy = fleet.events("replica.unhealthy")
        assert_executed_once_but_for_retries(notes, metrics)
    assert load.failures == []
    assert sum(load.replicas.values()) == SECONDS * RATE
    assert len(unhealthy) == len(faults)
    slow = load.slow(limit_s=5.0)
    hung = sorted(faults)
    assert all(any(0 <= number - at + RATE <= EJECTED_WITHIN_S * RATE for at in hung) for number in slow)
    assert len(slow) < 0.01 * SECONDS * RATE  # p99 does not see them
    assert max(load.took.values()) < EJECTED_WITHIN_S
    hangs = [load.began[number] for number in hung]
    calm = load.p99(0.0, hangs[0])
    found_out = sorted(event["at"] for event in unhealthy)
    assert all(0 < out - hang < EJECTED_WITHIN_S for hang, out in zip(hangs, found_out, strict=True))
    for out, end in zip(found_out, (*hangs[1:], inf), strict=True):
        assert load.p99(out, end) <= max(MARGIN * calm, FLOOR_S)

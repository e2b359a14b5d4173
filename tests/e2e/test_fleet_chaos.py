"""Long fault injection: replicas die again and again under load, and no request is lost."""

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc.aio as triton_aio
from running_fleet import running_fleet
from test_fleet_traffic import replica_of, tensor

pytestmark = [pytest.mark.triton, pytest.mark.chaos, pytest.mark.xdist_group("fleet_chaos")]

SECONDS, RATE, KILL_EVERY_S = 120, 200, 10


@pytest.mark.timeout(300)
async def test_killing_a_replica_every_ten_seconds_loses_no_request(tmp_path: Path) -> None:
    failures: list[str] = []
    replicas: Counter[str] = Counter()

    async def call(client: triton_aio.InferenceServerClient, number: int) -> None:
        values = np.frombuffer(number.to_bytes(8, "big") * 4, np.uint8)
        try:
            result = await client.infer("echo", [tensor("INPUT0", values, "UINT8")])
        except Exception as error:  # noqa: BLE001 # every kind of failure counts
            failures.append(repr(error))
            return
        if not np.array_equal(result.as_numpy("OUTPUT0"), values):
            failures.append(f"request {number}: a wrong answer")
        replicas[replica_of(result)] += 1

    with running_fleet(tmp_path, "--scale", "main=4") as fleet:
        loop = asyncio.get_running_loop()
        kills = 0
        async with triton_aio.InferenceServerClient(fleet.address) as client:
            began, tasks = loop.time(), set()
            for number in range(SECONDS * RATE):
                await asyncio.sleep(max(0.0, began + number / RATE - loop.time()))
                task = asyncio.create_task(call(client, number))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                if number % (KILL_EVERY_S * RATE) == KILL_EVERY_S * RATE // 2:
                    kills += 1
                    asyncio.create_task(asyncio.to_thread(_kill, fleet, kills))  # noqa: RUF006 # ends by itself
            await asyncio.gather(*tasks)
        workers = fleet.snapshot()["router"]["workers"]
        exits = fleet.events("replica.exited")
    assert failures == []
    assert sum(replicas.values()) == SECONDS * RATE
    assert kills == SECONDS // KILL_EVERY_S
    assert len(exits) == kills
    assert [worker["restarts"] for worker in workers] == [0]
    assert set(replicas) == {f"main-{ordinal}" for ordinal in range(4)}


def _kill(fleet: object, number: int) -> None:
    pids = fleet.pids()  # type: ignore[attr-defined] # a RunningFleet
    os.kill(list(pids.values())[number % len(pids)], signal.SIGKILL)

"""What the fake does on request, beyond the contract."""

import asyncio

import pytest

from tritonfleet.core.model import ModelStatus
from tritonfleet.core.stats import ModelCounters
from tritonfleet.drivers.base import DriverError, LaunchSpec
from tritonfleet.drivers.devices import cpu_slots
from tritonfleet.drivers.fake import Behaviour, Crash, Engine, FakeDriver, Script
from tritonfleet.triton.client import ProbeError, ReplicaClient


def spec(replica: str = "main-0", generation: int = 1) -> LaunchSpec:
    return LaunchSpec("demo", "main", replica, generation, "hash", cpu_slots(1), "/models")


def driver(default: Behaviour | None = None, **behaviours: Behaviour) -> FakeDriver:
    return FakeDriver("demo", cpu_slots(2), Script(default, **behaviours))


async def test_a_behaviour_is_of_the_instance_else_of_the_replica_else_the_default() -> None:
    slow, slower, slowest = (Behaviour(ready_after_s=delay) for delay in (1, 2, 3))
    fake = driver(slow, **{"main-1": slower, "main-1.2": slowest})
    found = [fake.script.of(spec(*which)) for which in [("main-0", 1), ("main-1", 1), ("main-1", 2)]]
    assert found == [slow, slower, slowest]


async def test_nothing_listens_before_it_is_ready_and_after_it_ended() -> None:
    fake = driver(Behaviour(ready_after_s=0.05, models=("echo", "digits")))
    started = await fake.start(spec())
    client: ReplicaClient = fake.client(started)
    for ask in (client.models, client.statistics):
        with pytest.raises(ProbeError, match=r"nothing listens on 127\.0\.0\.1:20000") as refused:
            await ask(1.0)
        assert refused.value.refused
    await asyncio.sleep(0.06)
    assert await client.models(1.0) == (
        ModelStatus("digits", True, ("1",)),
        ModelStatus("echo", True, ("1",)),
    )
    fake.process("main-0.1").kill()
    with pytest.raises(ProbeError, match="nothing listens"):
        await client.models(1.0)


async def test_a_crash_comes_by_itself_with_its_reason() -> None:
    fake = driver(Behaviour(crash=Crash(0.01, code=None, signal=11, detail="segmentation fault")))
    status = await fake.wait(await fake.start(spec()))
    assert str(status) == "killed by SIGSEGV: segmentation fault"


async def test_a_start_can_be_refused_and_leaves_nothing() -> None:
    refusal = DriverError("no such image", remedy="pull it", transient=False)
    fake = driver(**{"main-0.1": Behaviour(refuse=refusal)})
    with pytest.raises(DriverError) as refused:
        await fake.start(spec())
    assert refused.value is refusal
    assert await fake.list() == []
    assert [launch.instance for launch in fake.engine.launches] == ["main-0.1"]
    assert (await fake.start(spec(generation=2))).running


async def test_models_can_be_unready_and_questions_fail() -> None:
    fake = driver(Behaviour(models=("echo",), unready={"digits": "loading"}))
    started = await fake.start(spec())
    client, process = fake.client(started), fake.process("main-0.1")
    assert (await client.models(1.0))[0] == ModelStatus("digits", False, reason="loading")
    assert [counters.model for counters in await client.statistics(1.0)] == ["echo"]
    process.behaviour = Behaviour(probe_error="UNAVAILABLE: Server exiting")
    with pytest.raises(ProbeError, match="Server exiting") as failed:
        await client.models(1.0)
    assert not failed.value.refused
    process.behaviour = Behaviour(answer_after_s=60)
    with pytest.raises(ProbeError, match=r"no answer within 0\.01 s"):
        await client.statistics(0.01)


async def test_statistics_are_what_the_test_counts() -> None:
    fake = driver()
    started = await fake.start(spec())
    (zeros,) = await fake.client(started).statistics(1.0)
    assert zeros.success_count == zeros.queue_ns == 0
    counted = ModelCounters("echo", "1", 8, 2, 8, 80, 1, 8, 40, 1, 2, 3, 1234)
    fake.process("main-0.1").counters["echo"] = counted
    assert await fake.client(started).statistics(1.0) == (counted,)


async def test_an_exit_takes_as_long_as_it_is_told_and_stamps_come_from_the_clock() -> None:
    engine = Engine(clock=lambda: 42.0)
    fake = FakeDriver("demo", cpu_slots(1), Script(Behaviour(exit_after_s=0.02)), engine=engine)
    started = await fake.start(spec())
    assert started.started_at == 42.0
    stopping = asyncio.create_task(fake.stop(started, 30))
    await asyncio.sleep(0)
    assert fake.process("main-0.1").running
    status = await stopping
    assert (status.at, status.code) == (42.0, 0)

"""Fleet-wide RPCs: whom they reach, what is remembered, what a replica gets before it serves."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any

import pytest
from controller_parts import PaperClient, PaperDriver, kinds, paths_of, reasons, spec_of, states, until
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2

from tritonfleet.config import FleetSpec
from tritonfleet.controller import replay
from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.fleet_rpc import QUESTION_S, FleetRpc
from tritonfleet.core.model import ModelStatus
from tritonfleet.core.wire import RpcAnswer, RpcRequest
from tritonfleet.drivers.base import Instance
from tritonfleet.triton.client import RawAnswer

SERVICE = "/inference.GRPCInferenceService/"
DONE = RawAnswer(0)
Said = RawAnswer | Callable[[], Any]


@dataclass
class Replicas:
    """What the replicas were asked and what they say: by instance, then RPC; DONE where nothing is set."""

    asked: list[tuple[str, str, bytes]] = field(default_factory=list)
    timeouts: list[float | None] = field(default_factory=list)
    says: dict[tuple[str, str], RawAnswer] = field(default_factory=dict)
    holds: dict[tuple[str, str], asyncio.Event] = field(default_factory=dict)

    def of(self, instance: str) -> list[str]:
        return [rpc for name, rpc, _ in self.asked if name == instance]


class TalkingClient(PaperClient):
    def __init__(self, server: Any, replicas: Replicas) -> None:
        super().__init__(server)
        self._replicas = replicas

    async def call(
        self, path: str, message: bytes, timeout: float | None, metadata: Mapping[str, str]
    ) -> RawAnswer:
        instance, rpc = self._server.instance.instance, path.removeprefix(SERVICE)
        if rpc == "ModelConfig":  # the controller's own question
            return DONE
        self._replicas.asked.append((instance, rpc, message))
        self._replicas.timeouts.append(timeout)
        if held := self._replicas.holds.get((instance, rpc)):
            await held.wait()
        if self._server.exit is not None:
            return RawAnswer(14, "the replica ended meanwhile")
        return self._replicas.says.get((instance, rpc), DONE)


@dataclass
class Parts:
    fleet: Fleet
    driver: PaperDriver
    replicas: Replicas
    rpc: FleetRpc

    async def ask(self, rpc: str, request: Message | bytes = b"", **more: Any) -> RpcAnswer:
        message = request if isinstance(request, bytes) else request.SerializeToString()
        return await self.rpc.answer(RpcRequest(SERVICE + rpc, message, **more))

    def scaled(self, size: int, pool: str = "main") -> None:
        self.fleet.sizes[pool] = size
        self.fleet.wake()

    async def all_ready(self, *names: str) -> None:
        await until(lambda: states(self.fleet) == dict.fromkeys(names, "ready"), f"{names} ready")


async def started(tmp_path: Path, spec: FleetSpec, driver: PaperDriver) -> AsyncIterator[Parts]:
    replicas = Replicas()

    def client(instance: Instance) -> TalkingClient:
        return TalkingClient(driver[instance.instance], replicas)

    fleet = Fleet(spec, tmp_path / "f.yaml", paths_of(tmp_path), driver, driver.devices, client)
    fleet.feed.open()
    loop = asyncio.create_task(fleet.run())
    yield Parts(fleet, driver, replicas, FleetRpc(fleet))
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    await fleet.close()
    assert "controller.error" not in kinds(fleet), reasons(fleet, "controller.error")


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """Two replicas of one pool, ready."""
    async for parts in started(tmp_path, spec_of(tmp_path), PaperDriver()):
        await parts.all_ready("main-0", "main-1")
        yield parts


def log(level: int) -> Message:
    request = service_pb2.LogSettingsRequest()
    request.settings["log_verbose_level"].uint32_param = level
    return request


def load(model: str) -> Message:
    return service_pb2.RepositoryModelLoadRequest(model_name=model)


def region(name: str = "r") -> Message:
    return service_pb2.SystemSharedMemoryRegisterRequest(name=name, key="/r", byte_size=4)


async def test_a_change_goes_to_all_and_a_question_to_one(parts: Parts) -> None:
    assert (await parts.ask("LogSettings", log(2))).status == 0
    assert sorted(name for name, _, _ in parts.replicas.asked) == ["main-0.1", "main-1.1"]
    await parts.ask("LogSettings")
    assert len(parts.replicas.asked) == 3
    assert reasons(parts.fleet, "setting.log") == ["log settings changed (log_verbose_level) on 2 replicas"]


async def test_a_later_replica_gets_it_before_it_serves(parts: Parts) -> None:
    held = parts.replicas.holds["main-2.1", "LogSettings"] = asyncio.Event()
    await parts.ask("LogSettings", log(2))
    await parts.ask("SystemSharedMemoryRegister", region())
    parts.scaled(3)
    words = "replaying 2 settings"
    await until(lambda: words in {slot.reason for slot in parts.fleet.slots.values()}, "it is replayed")
    assert "main-2" not in {row.id for row in (await anext(parts.fleet.feed.follow())).replicas}
    held.set()
    await parts.all_ready("main-0", "main-1", "main-2")
    assert parts.replicas.of("main-2.1") == ["LogSettings", "SystemSharedMemoryRegister"]
    assert parts.fleet.slots["main-2"].reason.endswith(", 2 settings replayed")


async def test_what_changes_during_a_replay_is_replayed_too(parts: Parts) -> None:
    held = parts.replicas.holds["main-2.1", "SystemSharedMemoryRegister"] = asyncio.Event()
    await parts.ask("SystemSharedMemoryRegister", region())
    parts.scaled(3)
    await until(lambda: bool(parts.replicas.of("main-2.1")), "the replay has begun")
    await parts.ask("SystemSharedMemoryUnregister", service_pb2.SystemSharedMemoryUnregisterRequest(name="r"))
    await parts.ask("LogSettings", log(2))
    held.set()
    await parts.all_ready("main-0", "main-1", "main-2")
    assert parts.replicas.of("main-2.1") == [
        "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister", "LogSettings",
    ]  # fmt: skip
    await parts.ask("LogSettings", log(1))
    assert [entry.kind for entry in parts.fleet.settings.entries] == ["log"], "an ending that ended all goes"


async def test_a_replica_that_becomes_ready_during_a_change_is_not_left_out(parts: Parts) -> None:
    held = parts.replicas.holds["main-0.1", "LogSettings"] = asyncio.Event()
    change = asyncio.create_task(parts.ask("LogSettings", log(2)))
    await until(lambda: len(parts.replicas.asked) == 2, "both were asked")
    parts.scaled(3)
    await parts.all_ready("main-0", "main-1", "main-2")
    held.set()
    assert (await change).status == 0
    assert parts.replicas.of("main-2.1") == ["LogSettings"]
    assert reasons(parts.fleet, "setting.log") == ["log settings changed (log_verbose_level) on 3 replicas"]


async def test_a_replica_that_ends_during_a_change_has_no_say(parts: Parts) -> None:
    held = parts.replicas.holds["main-1.1", "LogSettings"] = asyncio.Event()
    change = asyncio.create_task(parts.ask("LogSettings", log(2)))
    await until(lambda: len(parts.replicas.asked) == 2, "both were asked")
    parts.driver["main-1.1"].kill()
    held.set()
    assert (await change).status == 0
    await parts.all_ready("main-0", "main-1")
    assert parts.replicas.of("main-1.2") == ["LogSettings"]


async def test_a_change_that_some_refuse_is_told_and_remembered(parts: Parts) -> None:
    parts.replicas.says["main-1.1", "SystemSharedMemoryRegister"] = RawAnswer(13, "no memory")
    answer = await parts.ask("SystemSharedMemoryRegister", region())
    assert answer.status == 13
    assert "done on 1 of 2 replicas (main-0)" in answer.text
    assert reasons(parts.fleet, "setting.system_shm") == [
        "shared-memory region 'r' registered on 1 replicas, not on main-1"
    ]


async def test_a_change_that_all_refuse_is_not_remembered(parts: Parts) -> None:
    for name in ("main-0.1", "main-1.1"):
        parts.replicas.says[name, "LogSettings"] = RawAnswer(3, "no such level")
    assert await parts.ask("LogSettings", log(99)) == RpcAnswer(3, "no such level")
    assert parts.fleet.settings.entries == ()


async def test_a_region_still_in_use_is_tried_again(parts: Parts) -> None:
    await parts.ask("SystemSharedMemoryRegister", region())
    parts.replicas.says["main-0.1", "SystemSharedMemoryUnregister"] = RawAnswer(13, "currently in use")
    request = service_pb2.SystemSharedMemoryUnregisterRequest(name="r")
    asking = asyncio.create_task(parts.ask("SystemSharedMemoryUnregister", request))
    await until(lambda: parts.replicas.of("main-0.1").count("SystemSharedMemoryUnregister") == 2, "again")
    del parts.replicas.says["main-0.1", "SystemSharedMemoryUnregister"]
    assert (await asking).status == 0
    assert parts.fleet.settings.entries == ()


async def test_one_gpu_is_enough_for_a_cuda_region(parts: Parts) -> None:
    parts.replicas.says["main-0.1", "CudaSharedMemoryRegister"] = RawAnswer(3, "another GPU")
    request = service_pb2.CudaSharedMemoryRegisterRequest(name="c", raw_handle=b"h", byte_size=4)
    assert (await parts.ask("CudaSharedMemoryRegister", request)).status == 0
    assert [entry.accepted for entry in parts.fleet.settings.entries] == [("main-1.1",)]
    assert regions_of(parts) == {"c": ("main-1.1",)}


def regions_of(parts: Parts) -> dict[str, tuple[str, ...]]:
    """What the routers are told."""
    parts.fleet.publish()
    return parts.fleet.feed.table.regions


async def test_routers_know_who_has_a_region_that_not_all_have(parts: Parts) -> None:
    cuda = service_pb2.CudaSharedMemoryRegisterRequest(name="c", raw_handle=b"h", byte_size=4)
    for instance in ("main-0.1", "main-3.1"):
        parts.replicas.says[instance, "CudaSharedMemoryRegister"] = RawAnswer(3, "another GPU")
    parts.replicas.says["main-1.1", "SystemSharedMemoryRegister"] = RawAnswer(13, "it cannot see it")
    await parts.ask("CudaSharedMemoryRegister", cuda)
    assert (await parts.ask("SystemSharedMemoryRegister", region("s"))).status == 13
    assert regions_of(parts) == {"c": ("main-1.1",), "s": ("main-0.1",)}
    parts.scaled(4)  # what is replayed is known of later ones, too
    await parts.all_ready("main-0", "main-1", "main-2", "main-3")
    assert regions_of(parts) == {
        "c": ("main-1.1", "main-2.1"),
        "s": ("main-0.1", "main-2.1", "main-3.1"),
    }
    unregister = service_pb2.CudaSharedMemoryUnregisterRequest(name="c")
    await parts.ask("CudaSharedMemoryUnregister", unregister)
    del parts.replicas.says["main-1.1", "SystemSharedMemoryRegister"]
    assert regions_of(parts).keys() == {"s"}
    await parts.ask("SystemSharedMemoryRegister", region("s"))
    assert regions_of(parts) == {}  # everybody has it: requests need not be looked at


async def test_settings_of_one_kind_add_up_key_by_key(parts: Parts) -> None:
    for key, value in (("trace_rate", "1"), ("trace_count", "5"), ("trace_rate", "2")):
        request = service_pb2.TraceSettingRequest()
        request.settings[key].value.append(value)
        await parts.ask("TraceSetting", request)
    (entry,) = parts.fleet.settings.entries
    kept = service_pb2.TraceSettingRequest.FromString(entry.message).settings
    assert {key: list(value.value) for key, value in kept.items()} == {
        "trace_rate": ["2"], "trace_count": ["5"],
    }  # fmt: skip


async def test_a_replay_that_fails_is_tried_again_and_then_told(parts: Parts) -> None:
    await parts.ask("LogSettings", log(2))
    parts.replicas.says["main-2.1", "LogSettings"] = RawAnswer(13, "not now")
    parts.scaled(3)
    await until(lambda: bool(reasons(parts.fleet, "replica.failed")), "the launch has failed")
    assert parts.replicas.of("main-2.1") == ["LogSettings"] * 3
    (told,) = reasons(parts.fleet, "replica.failed")
    assert told.startswith("a setting of the fleet could not be replayed: LogSettings: INTERNAL: not now")
    await parts.all_ready("main-0", "main-1", "main-2")


async def test_a_replica_that_ends_between_two_tries_of_its_replay_is_launched_again(tmp_path: Path) -> None:
    """Also when its launch is due later than the next try was."""
    restart = {"backoff": 3 * replay.RETRY_S, "max_backoff": 3 * replay.RETRY_S}
    async for parts in started(tmp_path, spec_of(tmp_path, restart=restart), PaperDriver()):
        await parts.all_ready("main-0", "main-1")
        await parts.ask("LogSettings", log(1))
        parts.replicas.says["main-2.1", "LogSettings"] = RawAnswer(14, "it has hung up")
        parts.scaled(3)
        replicas = parts.replicas
        await until(lambda told=replicas: told.of("main-2.1") == ["LogSettings"], "its first try is over")
        parts.driver["main-2.1"].kill()
        await parts.all_ready("main-0", "main-1", "main-2")
        assert parts.fleet.slots["main-2"].generation == 2


async def test_what_a_replica_has_already_is_no_failure_and_a_region_not_needed(parts: Parts) -> None:
    await parts.ask("SystemSharedMemoryRegister", region("a"))
    await parts.ask("SystemSharedMemoryRegister", region("b"))
    parts.replicas.says["main-2.1", "SystemSharedMemoryRegister"] = RawAnswer(6, "already")
    parts.replicas.says["main-3.1", "SystemSharedMemoryRegister"] = RawAnswer(13, "its memory is gone")
    parts.scaled(4)
    await parts.all_ready("main-0", "main-1", "main-2", "main-3")
    assert [event.subject for event in parts.fleet.journal.since(0) if event.type == "setting.skipped"] == [
        "main-3", "main-3",
    ]  # fmt: skip


async def test_without_a_replica(parts: Parts) -> None:
    parts.scaled(0)
    await until(lambda: not parts.fleet.slots, "all are gone")
    for rpc, request in (
        ("RepositoryIndex", b""), ("ModelStatistics", b""), ("LogSettings", log(1)), ("ModelReady", b""),
        ("CudaSharedMemoryStatus", b""), ("NoSuchRpc", b""), ("RepositoryModelLoad", load("digits")),
    ):  # fmt: skip
        answer = await parts.ask(rpc, request)
        assert answer.status == 14, rpc
        assert "no replica of fleet 'paper' is ready" in answer.text
    assert parts.fleet.settings.entries == ()


async def test_ready_anywhere_is_ready(parts: Parts) -> None:
    yes = service_pb2.ModelReadyResponse(ready=True).SerializeToString()
    parts.replicas.says["main-0.1", "ModelReady"] = RawAnswer(3, "no such version")
    parts.replicas.says["main-1.1", "ModelReady"] = RawAnswer(0, "", yes)
    assert await parts.ask("ModelReady") == RpcAnswer(0, "", yes)


async def test_a_question_that_hangs_hides_no_hanging_replica(tmp_path: Path) -> None:
    """Readings of statistics take turns, and clients may be patient."""
    health = {"interval": 0.02, "timeout": 0.1, "failures": 3}
    async for parts in started(tmp_path, spec_of(tmp_path, health=health), PaperDriver()):
        await parts.all_ready("main-0", "main-1")
        held = parts.replicas.holds["main-1.1", "ModelStatistics"] = asyncio.Event()
        asking = asyncio.create_task(parts.ask("ModelStatistics", timeout_s=3600.0))
        replicas = parts.replicas
        await until(lambda told=replicas: bool(told.of("main-1.1")), "it is asked")
        assert parts.replicas.timeouts[-1] == QUESTION_S
        slot = parts.fleet.slots["main-1"]
        slot.reading = None  # the controller's own reading is due
        await asyncio.sleep(0.1)
        parts.driver["main-1.1"].error = "no answer"
        await until(lambda slot=slot: slot.generation == 2, "it is replaced")
        held.set()
        assert (await asking).status == 0


async def test_a_question_has_its_clients_deadline_and_a_change_goes_on_without_its_client(
    parts: Parts,
) -> None:
    await parts.ask("LogSettings", timeout_s=3.0)
    await parts.ask("LogSettings")
    await parts.ask("LogSettings", log(1), timeout_s=3.0)
    assert parts.replicas.timeouts == [3.0, 30.0, None, None]


async def test_what_is_no_message_is_said_in_grpcs_words(parts: Parts) -> None:
    assert await parts.ask("RepositoryModelLoad", b"\xff") == RpcAnswer(13, "Unable to parse request")
    assert parts.replicas.asked == []


async def test_one_that_does_not_answer_is_passed_over_by_a_question_to_one(parts: Parts) -> None:
    parts.replicas.says["main-0.1", "LogSettings"] = RawAnswer(14, "gone")
    assert (await parts.ask("LogSettings")).status == 0
    assert parts.replicas.of("main-1.1") == ["LogSettings"]


async def test_a_model_that_sleeps_is_its_pools(tmp_path: Path) -> None:
    """Others have no say in it, whatever they would answer."""
    awake = spec_of(tmp_path).model_dump()["pools"]["main"]
    awake["replicas"] = {"min": 1, "initial": 1, "max": 2}
    sleeping = {
        **awake,
        "models": ["repeat"],
        "replicas": {"min": 0, "initial": 0, "max": 2},
        "autoscale": {},
    }
    spec = FleetSpec.model_validate({"version": 1, "name": "paper", "pools": {"a": awake, "b": sleeping}})
    (Path(spec.pools["b"].model_repository) / "repeat" / "1").mkdir(parents=True)
    async for parts in started(tmp_path, spec, PaperDriver()):
        await parts.all_ready("a-0")
        no = service_pb2.ModelReadyResponse(ready=False).SerializeToString()
        parts.replicas.says["a-0.1", "ModelReady"] = RawAnswer(0, "", no)
        for version, ready in (("", True), ("1", True), ("7", False)):
            asked = service_pb2.ModelReadyRequest(name="repeat", version=version)
            answer = await parts.ask("ModelReady", asked)
            assert service_pb2.ModelReadyResponse.FromString(answer.message).ready is ready, version
        parts.replicas.asked.clear()
        for rpc in ("RepositoryModelUnload", "RepositoryModelLoad"):
            answer = await parts.ask(rpc, load("repeat"))
            assert answer.status == 14
            assert "pool 'b' sleeps" in answer.text
        assert parts.replicas.asked == []
        assert parts.fleet.settings.entries == ()


async def test_what_clients_loaded_and_unloaded_counts_while_a_pool_sleeps(tmp_path: Path) -> None:
    (tmp_path / "digits" / "1").mkdir(parents=True)
    (tmp_path / "echo" / "1").mkdir(parents=True)
    spec = spec_of(tmp_path, models=["digits"], autoscale={})
    async for parts in started(tmp_path, spec, PaperDriver()):
        await parts.all_ready("main-0", "main-1")
        await parts.ask("RepositoryModelLoad", load("echo"))
        await parts.ask("RepositoryModelUnload", load("digits"))
        assert parts.fleet.autoscaler.asleep() == {}
        for slot in parts.fleet.slots.values():
            parts.fleet.lives.drain(slot, "for the test", time())
        assert list(parts.fleet.autoscaler.asleep()) == ["echo"]


async def test_model_control_goes_to_the_pools_that_have_the_model(tmp_path: Path) -> None:
    small = spec_of(tmp_path).model_dump()["pools"]["main"]
    small["replicas"] = {"min": 1, "initial": 1, "max": 2}
    spec = FleetSpec.model_validate({"version": 1, "name": "paper", "pools": {"a": small, "b": small}})
    driver = PaperDriver()
    driver.come_up_ready = False
    async for parts in started(tmp_path, spec, driver):
        await until(lambda: len(driver.servers) == 2, "both are launched")
        driver["a-0.1"].models = (ModelStatus("digits", True, ("1",)),)
        driver["b-0.1"].models = (ModelStatus("echo", True, ("1",)),)
        await parts.all_ready("a-0", "b-0")
        await parts.ask("RepositoryModelLoad", load("echo"))
        assert [name for name, _, _ in parts.replicas.asked] == ["b-0.1"]
        await parts.ask("RepositoryModelLoad", load("another"))
        assert sorted(name for name, _, _ in parts.replicas.asked) == ["a-0.1", "b-0.1", "b-0.1"]
        assert [entry.pools for entry in parts.fleet.settings.entries] == [("b",), ()]
        driver.come_up_ready = True
        parts.scaled(2, "a")
        await parts.all_ready("a-0", "a-1", "b-0")
        assert [message for name, _, message in parts.replicas.asked if name == "a-1.1"] == [
            load("another").SerializeToString()
        ]

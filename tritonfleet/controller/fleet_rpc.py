"""RPCs that speak of the whole fleet: protobuf bytes in, asked of the replicas, one answer out.

Questions are asked of every replica that serves and their answers united (`core.answers`, `core.ledger`).
Changes are sent to all of them and noted (`core.settings`), so that replicas that come later get them, too,
before they serve. What is unknown here goes to one replica, as any call would.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from google.protobuf.message import DecodeError, Message
from tritonclient.grpc import service_pb2

from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.slot import Slot
from tritonfleet.controller.statistics import reading_of
from tritonfleet.controller.watch import ReplicaWatch
from tritonfleet.core.answers import UNAVAILABLE, Answer, IndexEntry, of_all, of_any, union_of_indexes
from tritonfleet.core.model import ReplicaState
from tritonfleet.core.settings import Kind, Setting
from tritonfleet.core.wire import RpcAnswer, RpcRequest
from tritonfleet.drivers.clock import steady_time as time
from tritonfleet.triton.client import SERVICE
from tritonfleet.triton.statistics import counters_of, entry_of

INTERNAL = 13  # gRPC status
QUESTION_S = 30.0  # for a question whose client set no deadline
NOTICE_S = 0.3  # after which a replica that ended is known to have
RELEASES, RELEASE_S = 10, 0.05  # how often, and how long apart, a region is tried to be let go of again
TABLE_S = 2.0  # how long a change of models waits for the routers to know of it
Target = tuple[Slot, ReplicaWatch]
Answering = Callable[[RpcRequest], Awaitable[Answer]]


class FleetRpc:
    """`answer` is all there is to call. Changes of one kind are carried out one after the other, so that
    every replica sees them in the same order."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._locks: defaultdict[Kind, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._answering: dict[str, Answering] = {
            f"{SERVICE}/{name}": answering
            for name, answering in {
                "ModelReady": self._model_ready,
                "ModelStatistics": self._statistics,
                "RepositoryIndex": self._index,
                "RepositoryModelLoad": self._load,
                "RepositoryModelUnload": self._unload,
                "SystemSharedMemoryStatus": self._system_regions,
                "SystemSharedMemoryRegister": self._register_system,
                "SystemSharedMemoryUnregister": self._unregister_system,
                "CudaSharedMemoryStatus": self._cuda_regions,
                "CudaSharedMemoryRegister": self._register_cuda,
                "CudaSharedMemoryUnregister": self._unregister_cuda,
                "TraceSetting": self._trace,
                "LogSettings": self._log,
            }.items()
        }

    async def answer(self, request: RpcRequest) -> RpcAnswer:
        """What the client is to get. Never raises for what a client or a replica may do."""
        answering = self._answering.get(request.path, self._ask_one)
        try:
            answer = await answering(request)
        except DecodeError:
            return RpcAnswer(INTERNAL, "Unable to parse request")  # gRPC's words, as one server has them
        return RpcAnswer(answer.status, answer.text, answer.message)

    # ------------------------------------------------------------ whom to ask

    def _serving(self) -> list[Target]:
        """Replicas that hold clients' work, ready ones first."""
        fleet = self._fleet
        found = [
            (slot, watch)
            for slot in fleet.slots.values()
            if slot.state.serving and (watch := fleet.lives.watch_of(slot))
        ]
        return sorted(found, key=lambda target: (target[0].state is not ReplicaState.READY, target[0].id))

    def _pools_of(self, model: str) -> tuple[str, ...]:
        """The pools whose repositories have the model; () stands for all: none or every one has it. One that
        sleeps has it, too, so that no other is taken for it."""
        slots = self._fleet.slots.values()
        sleeping = set(self._fleet.autoscaler.sleepers_with(model))
        having = {slot.pool for slot in slots if any(m.name == model for m in slot.models)} | sleeping
        return () if len(having) == len({slot.pool for slot in slots} | sleeping) else tuple(sorted(having))

    async def _ask(self, target: Target, request: RpcRequest) -> Answer:
        slot, watch = target
        got = await watch.client.call(request.path, request.message, request.timeout_s, request.metadata)
        return Answer(slot.id, got.status, got.text, got.message)

    async def _ask_each(self, request: RpcRequest, pools: tuple[str, ...] = ()) -> list[Answer]:
        """The ready replicas' answers, by id; those of draining ones where none is ready. Never empty."""
        targets = [target for target in self._serving() if not pools or target[0].pool in pools]
        ready = [target for target in targets if target[0].state is ReplicaState.READY] or targets
        bounded = request if request.timeout_s is not None else replace(request, timeout_s=QUESTION_S)
        answers = await asyncio.gather(*(self._ask(target, bounded) for target in ready))
        return list(answers) or [self._nobody(pools)]

    async def _ask_one(self, request: RpcRequest, pools: tuple[str, ...] = ()) -> Answer:
        """The first replica's that answers at all."""
        bounded = request if request.timeout_s is not None else replace(request, timeout_s=QUESTION_S)
        answer = self._nobody(pools)
        for target in self._serving():
            if not pools or target[0].pool in pools:
                answer = await self._ask(target, bounded)
                if answer.status != UNAVAILABLE:
                    break
        return answer

    def _nobody(self, pools: tuple[str, ...] = ()) -> Answer:
        name = self._fleet.spec.name
        for sleeper in self._fleet.autoscaler.sleeping():
            if not pools or sleeper in pools:
                text = f"tritonfleet: pool {sleeper!r} sleeps; only a request for a model of it wakes it"
                return Answer("", UNAVAILABLE, text)
        text = f"tritonfleet: no replica of fleet {name!r} is ready; `tritonfleet ps` says why"
        return Answer("", UNAVAILABLE, text)

    # ------------------------------------------------------------ questions

    async def _model_ready(self, request: RpcRequest) -> Answer:
        asked = service_pb2.ModelReadyRequest.FromString(request.message)
        if self._fleet.autoscaler.sleepers_with(asked.name, asked.version):  # a request would wake it
            return _answered(service_pb2.ModelReadyResponse(ready=True))
        answers = await self._ask_each(request)
        told = [(a, service_pb2.ModelReadyResponse.FromString(a.message)) for a in answers if a.ok]
        return next((answer for answer, response in told if response.ready), None) or of_any(answers)

    async def _index(self, request: RpcRequest) -> Answer:
        answers = await self._ask_each(request)
        told = [service_pb2.RepositoryIndexResponse.FromString(a.message) for a in answers if a.ok]
        if not told:
            return of_all(answers)
        union = union_of_indexes(
            [[IndexEntry(m.name, m.version, m.state, m.reason) for m in index.models] for index in told]
        )
        united = service_pb2.RepositoryIndexResponse()
        for entry in union:
            united.models.add(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
        return _answered(united)

    async def _statistics(self, request: RpcRequest) -> Answer:
        asked = service_pb2.ModelStatisticsRequest.FromString(request.message)
        patience_s = QUESTION_S if request.timeout_s is None else min(request.timeout_s, QUESTION_S)
        bounded = replace(request, timeout_s=patience_s)  # others wait for the reading, too
        complete = not asked.name
        serving = self._serving()
        told = await asyncio.gather(*(self._read(target, bounded, complete=complete) for target in serving))
        answers = list(told) or [self._nobody()]
        if not any(answer.ok for answer in answers):
            return of_all(answers)
        united = service_pb2.ModelStatisticsResponse()
        totals = self._fleet.statistics.ledger.totals(asked.name, asked.version)
        for (model, version), counters in totals.items():
            united.model_stats.append(entry_of(model, version, counters))
        return _answered(united)

    async def _read(self, target: Target, request: RpcRequest, *, complete: bool) -> Answer:
        """A replica's statistics, into the ledger. One reading at a time: they must come in order there."""
        slot, watch = target
        async with watch.reading:
            answer = await self._ask(target, request)
            if answer.ok and slot.instance is not None:
                told = service_pb2.ModelStatisticsResponse.FromString(answer.message)
                reading = reading_of(counters_of(entry) for entry in told.model_stats)
                self._fleet.statistics.ledger.take(watch.instance, reading, complete=complete)
        return answer

    async def _system_regions(self, request: RpcRequest) -> Answer:
        return _union_of_regions(await self._ask_each(request), service_pb2.SystemSharedMemoryStatusResponse)

    async def _cuda_regions(self, request: RpcRequest) -> Answer:
        return _union_of_regions(await self._ask_each(request), service_pb2.CudaSharedMemoryStatusResponse)

    # ------------------------------------------------------------ changes

    async def _broadcast(
        self, request: RpcRequest, pools: tuple[str, ...] = ()
    ) -> tuple[list[Answer], list[str]]:
        """Send a change to every replica that serves, those included that became ready meanwhile. The
        answers, and the instances that took it. A replica that ended meanwhile has no say: its successor gets
        what was noted. Nothing is awaited between the last look for new replicas and the return.

        The client's deadline is not passed on: a load goes on in Triton when its caller has gone, so it must
        be waited for, and noted, too; the router answers the client in time."""
        request = replace(request, timeout_s=None)
        asked: dict[str, Slot] = {}
        answers: list[Answer] = []
        accepted: list[str] = []
        while new := [t for t in self._serving() if t[1].instance not in asked and self._in(t, pools)]:
            asked.update({watch.instance: slot for slot, watch in new})
            told = await asyncio.gather(*(self._ask(target, request) for target in new))
            if any(answer.status == UNAVAILABLE for answer in told):
                await asyncio.sleep(NOTICE_S)
            for (slot, watch), answer in zip(new, told, strict=True):
                gone = slot.instance is None or slot.instance.instance != watch.instance
                leaving = gone or slot.state is not ReplicaState.READY
                if answer.ok or not leaving:
                    answers.append(answer)
                if answer.ok:
                    accepted.append(watch.instance)
        return answers or [self._nobody(pools)], accepted

    @staticmethod
    def _in(target: Target, pools: tuple[str, ...]) -> bool:
        return not pools or target[0].pool in pools

    def _note(self, setting: Setting, what: str, answers: list[Answer]) -> None:
        fleet = self._fleet
        fleet.settings.put(setting)
        if not any(slot.state is ReplicaState.LOADING for slot in fleet.slots.values()):
            fleet.settings.forget_endings()
        failed = [answer.replica for answer in answers if not answer.ok]
        but = f", not on {', '.join(failed)}" if failed else ""
        fleet.journal.add(
            f"setting.{setting.kind}", "fleet", f"{what} on {len(answers) - len(failed)} replicas{but}"
        )

    async def _load(self, request: RpcRequest) -> Answer:
        asked = service_pb2.RepositoryModelLoadRequest.FromString(request.message)
        return await self._change_model(request, asked.model_name, "loaded")

    async def _unload(self, request: RpcRequest) -> Answer:
        asked = service_pb2.RepositoryModelUnloadRequest.FromString(request.message)
        return await self._change_model(request, asked.model_name, "unloaded")

    async def _change_model(self, request: RpcRequest, model: str, done: str) -> Answer:
        async with self._locks["model"]:  # one for all: a model may be made of others
            pools = self._pools_of(model)
            answers, accepted = await self._broadcast(request, pools)
            if accepted and (done == "loaded" or self._is_known(model)):
                setting = Setting("model", model, request.path, request.message, pools=pools)
                self._note(setting, f"model {model} {done}", answers)
            if accepted and done == "loaded":
                await self._trace_again(model, request.metadata)
            await self._see_models(pools)
            if accepted and done == "unloaded":
                self._fleet.statistics.ledger.forget(model)
        return of_all(answers)

    async def _trace_again(self, model: str, metadata: dict[str, str]) -> None:
        """Replicas that came while a model was unloaded could not be told how it is traced; the others know,
        as one server does, and lose nothing by hearing it twice."""
        async with self._locks["trace"]:
            noted = [s for s in self._fleet.settings.entries if (s.kind, s.subject) == ("trace", model)]
            for setting in noted:
                again = RpcRequest(setting.path, setting.message, metadata)
                await self._broadcast(again, setting.pools)

    def _is_known(self, model: str) -> bool:
        """Triton unloads what does not exist without a word; that need not be remembered. A model whose files
        went after it was loaded is in no index, but in what is to be replayed."""
        noted = any(s.kind == "model" and s.subject == model for s in self._fleet.settings.entries)
        return noted or any(m.name == model for slot in self._fleet.slots.values() for m in slot.models)

    async def _see_models(self, pools: tuple[str, ...]) -> None:
        """Look at what is ready now and wait until the routers route by it: who asks next gets no answer from
        before."""
        fleet = self._fleet

        async def look(slot: Slot, watch: ReplicaWatch) -> None:
            await watch.read_statistics()
            probe = await watch.probe()
            if slot.instance is not None and slot.instance.instance == watch.instance:
                fleet.lives.observe(slot, probe)

        await asyncio.gather(*(look(*target) for target in self._serving() if self._in(target, pools)))
        await self._tell_routers()

    async def _tell_routers(self) -> None:
        """Publish the table, and wait until the routers route by it."""
        fleet = self._fleet
        fleet.publish()
        revision, deadline = fleet.feed.revision, time() + TABLE_S

        def known() -> bool:
            return fleet.telemetry.know_table(fleet.workers.running, revision)

        while not known() and time() < deadline:  # noqa: ASYNC110 # reports come four times a second
            await asyncio.sleep(0.02)

    async def _register_system(self, request: RpcRequest) -> Answer:
        name = service_pb2.SystemSharedMemoryRegisterRequest.FromString(request.message).name
        async with self._locks["system_shm"]:
            answers, accepted = await self._broadcast(request)
            if accepted:
                setting = Setting("system_shm", name, request.path, request.message, accepted=tuple(accepted))
                self._note(setting, f"shared-memory region {name!r} registered", answers)
                await self._tell_routers()
        return of_all(answers)

    async def _unregister_system(self, request: RpcRequest) -> Answer:
        name = service_pb2.SystemSharedMemoryUnregisterRequest.FromString(request.message).name
        return await self._unregister("system_shm", name, request)

    async def _register_cuda(self, request: RpcRequest) -> Answer:
        """A CUDA region is the memory of one GPU: it is enough that the replicas there accept it."""
        name = service_pb2.CudaSharedMemoryRegisterRequest.FromString(request.message).name
        async with self._locks["cuda_shm"]:
            answers, accepted = await self._broadcast(request)
            if accepted:
                setting = Setting("cuda_shm", name, request.path, request.message, accepted=tuple(accepted))
                self._note(setting, f"CUDA region {name!r} registered", answers)
                await self._tell_routers()
        return of_any(answers)

    async def _unregister_cuda(self, request: RpcRequest) -> Answer:
        name = service_pb2.CudaSharedMemoryUnregisterRequest.FromString(request.message).name
        return await self._unregister("cuda_shm", name, request)

    async def _unregister(self, kind: Kind, name: str, request: RpcRequest) -> Answer:
        """Triton refuses for a region in use, and a request still uses its region a moment after its answer.
        With many replicas some are in that moment, so they are asked again; to be asked twice is no harm."""
        async with self._locks[kind]:
            answers, accepted = await self._broadcast(request)
            for _ in range(RELEASES):
                if all(answer.ok for answer in answers):
                    break
                await asyncio.sleep(RELEASE_S)
                answers, accepted = await self._broadcast(request)
            noted = self._fleet.settings.entries
            if accepted and any(s.kind == kind and name in ("", s.subject) for s in noted):
                setting = Setting(kind, name, request.path, request.message, ending=True)
                what = f"region {name!r} unregistered" if name else "all regions unregistered"
                self._note(setting, what, answers)
        return of_all(answers)

    async def _trace(self, request: RpcRequest) -> Answer:
        asked = service_pb2.TraceSettingRequest.FromString(request.message)
        pools = self._pools_of(asked.model_name) if asked.model_name else ()
        return await self._set("trace", asked.model_name, request, asked, pools)

    async def _log(self, request: RpcRequest) -> Answer:
        asked = service_pb2.LogSettingsRequest.FromString(request.message)
        return await self._set("log", "", request, asked, ())

    async def _set(
        self, kind: Kind, subject: str, request: RpcRequest, asked: Any, pools: tuple[str, ...]
    ) -> Answer:
        """Settings by key, trace or log: without any it is a question; each key's last value is kept."""
        if not asked.settings:
            return await self._ask_one(request, pools)
        async with self._locks[kind]:
            answers, accepted = await self._broadcast(request, pools)
            if accepted:
                before = self._fleet.settings.of(kind, subject, pools)
                whole = type(asked).FromString(before.message if before else request.message)
                for key, value in asked.settings.items():
                    whole.settings[key].CopyFrom(value)
                message = whole.SerializeToString()
                of = f" of {subject}" if subject else ""
                what = f"{kind} settings{of} changed ({', '.join(sorted(asked.settings))})"
                self._note(Setting(kind, subject, request.path, message, pools=pools), what, answers)
        return of_all(answers)


def _answered(message: Message) -> Answer:
    return Answer("", 0, "", message.SerializeToString())


def _union_of_regions(answers: list[Answer], kind: Any) -> Answer:
    """Regions by name, as any replica knows them."""
    told = [kind.FromString(answer.message) for answer in answers if answer.ok]
    if not told:
        return of_all(answers)
    united = kind()
    regions: Mapping[str, Any] = {name: region for answer in told for name, region in answer.regions.items()}
    for name, region in regions.items():
        united.regions[name].CopyFrom(region)
    return _answered(united)

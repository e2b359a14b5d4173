"""One fleet under control: its slots, and the tick that observes, decides and acts.

Observations arrive as calls (probes and exits in `lives`, telemetry, commands); they change slots and wake
the loop. A tick asks `core.reconcile` what to do and has `lives` carry it out; what takes time (a launch, a
stop) runs as a task that changes its slot when it is done and wakes the loop again.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from tritonfleet.config import FleetSpec, PoolSpec, pool_hash
from tritonfleet.controller import saved
from tritonfleet.controller.autoscaler import Autoscaler
from tritonfleet.controller.certificates import CertificateDesk
from tritonfleet.controller.device_access import AccessDesk
from tritonfleet.controller.devices import DeviceDesk
from tritonfleet.controller.disk import Disk
from tritonfleet.controller.hints import Hints
from tritonfleet.controller.journal import Journal
from tritonfleet.controller.lives import ClientFactory, Lives
from tritonfleet.controller.outliers import Outliers
from tritonfleet.controller.paths import FleetPaths
from tritonfleet.controller.pulls import PullNotes
from tritonfleet.controller.rollout import Rollouts
from tritonfleet.controller.router_workers import make_workers
from tritonfleet.controller.saved import SavedFleet
from tritonfleet.controller.settings import Settings
from tritonfleet.controller.slot import Slot
from tritonfleet.controller.statistics import FleetStatistics
from tritonfleet.controller.table import TableFeed
from tritonfleet.controller.telemetry import Telemetry
from tritonfleet.controller.traffic import Traffic
from tritonfleet.core.device_health import DevicePolicy
from tritonfleet.core.model import Device, Replica, ReplicaState
from tritonfleet.core.reconcile import Action, PoolTarget, reconcile
from tritonfleet.core.wire import RouterTelemetry
from tritonfleet.drivers.base import Driver
from tritonfleet.drivers.clock import steady_time as time

log = logging.getLogger(__name__)

TICK_S = 1.0  # the longest time between two looks at everything
MAINTAIN_S = 10.0
FIRST_LOOK_S = 5.0  # a driver of GPUs that hangs must not keep the loop from beginning
AGAIN_S = 2.0  # until a task that has failed is begun again


class Fleet:
    def __init__(
        self,
        spec: FleetSpec,
        file: Path,
        paths: FleetPaths,
        driver: Driver,
        devices: tuple[Device, ...],
        client_for: ClientFactory,
    ) -> None:
        self.journal = Journal(paths.journal)
        self.disk = Disk(self.journal)
        self.rollouts = Rollouts(paths.revisions_file, self.journal, self.disk.write)
        self.spec = spec = self.rollouts.start(spec, file)
        self.file, self.paths, self.driver, self.devices = file, paths, driver, devices
        self.started_at = time()
        remembered = saved.read(paths.state_file, SavedFleet) or SavedFleet()
        self.desk = DeviceDesk(devices, self.journal, remembered.devices)
        self.sizes = {pool: size for pool, size in remembered.sizes.items() if pool in spec.pools}
        self.generations = dict(remembered.generations)
        self.remembered = remembered.slots
        self.autoscaler = Autoscaler(self, dict(remembered.pins))
        # Routers that are not ours outlive `down`, and must not take a new fleet's table for one they know.
        first = int(self.started_at) if spec.router.external else 0
        self.feed = TableFeed(spec.name, spec.router.policy, remembered.revision or first)
        self.pull_notes = PullNotes(self.journal)
        self.telemetry = Telemetry()
        self.traffic = Traffic()
        self.hints = Hints()
        self.outliers = Outliers()
        self.access = AccessDesk()
        self.certificates = CertificateDesk(self.journal)
        self.settings = Settings(paths.settings)
        self.statistics = FleetStatistics(paths.statistics_file, self.disk.write)
        self.workers = make_workers(
            spec.name, spec.router, paths, self.journal, self.telemetry, self.disk.write
        )
        self.slots: dict[str, Slot] = {}
        self.lives = Lives(self, client_for)
        self.stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._last_saved: SavedFleet | None = None
        self._maintained_at = 0.0
        self._trouble = ""  # what failed last

    # ------------------------------------------------------------ what is wanted

    def size_of(self, pool: str) -> int:
        """The size a pool should have now: pinned, or by load, or the file's; always within its bounds."""
        return self.autoscaler.size_of(pool)

    def targets(self) -> list[PoolTarget]:
        return [
            PoolTarget(
                name,
                self.size_of(name),
                pool_hash(self.spec, name),
                pool.replicas.per_device,
                self.autoscaler.reason(name),
                pool.replicas.devices_per_replica,
            )
            for name, pool in self.spec.pools.items()
        ]

    def pool_of(self, slot: Slot) -> PoolSpec:
        """Its pool's settings; of a pool that left the file, those of any other: they only let it end."""
        return self.spec.pools.get(slot.pool) or next(iter(self.spec.pools.values()))

    def in_flight(self, instance: str) -> int | None:
        return self.telemetry.in_flight(instance, self.workers.running, time())

    def replicas(self) -> list[Replica]:
        return [self.slots[name].view(self.in_flight) for name in sorted(self.slots, key=_slot_order)]

    # ------------------------------------------------------------ the loop

    async def run(self) -> None:
        """Tick when woken, and every `TICK_S`, until cancelled. One that fails does not end the others."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_S):
                await self.desk.look()  # before the first placement, which asks for free memory
        self.keep(self.desk.run)
        self.keep(lambda: self.access.run(self))
        self.keep(lambda: self.certificates.run(self))
        while True:
            try:
                self.disk.again()
                self.tick(time())
                if time() - self._maintained_at > MAINTAIN_S:
                    self._maintained_at = time()
                    await self.driver.maintain()
            except Exception as error:  # whatever it is, replicas must not be left without anybody who looks
                log.exception("a turn of the loop failed")
                self._tell(error)
            self._woken.clear()
            try:
                async with asyncio.timeout(self._pause(time())):
                    await self._woken.wait()
            except TimeoutError:
                continue

    def wake(self) -> None:
        self._woken.set()

    def _pause(self, now: float) -> float:
        """Until the next thing that is due by the clock."""
        due = [
            at
            for s in self.slots.values()
            for at in (s.retry_at, s.drain_deadline)
            if at is not None and at > now
        ]
        return min([TICK_S, *(at - now for at in due)])

    def tick(self, now: float) -> None:
        """Observe → decide → act, until there is nothing more to decide."""
        if not self.stopping:
            self.autoscaler.step(now)
            self.desk.review(device_policy(self.spec), self.replicas(), now)
            self.outliers.review(self, now)
            self.rollouts.review(self, now)
        worn = {} if self.stopping else self.access.review(self, now)
        for _ in range(10):
            if self.stopping:
                break
            actions = reconcile(
                self.targets(),
                self.replicas(),
                self.devices,
                held=frozenset(slot.id for slot in self.slots.values() if slot.held),
                returning=frozenset(slot.id for slot in self.slots.values() if slot.after_stop == "relaunch"),
                drained=frozenset(slot.id for slot in self.slots.values() if self.is_drained(slot, now)),
                view=self.desk.view(),
                worn=worn,
                now=now,
            )
            for action in actions:
                self._act(action, now)
            if not any(action.kind in ("create", "forget") for action in actions):
                break
        self.pull_notes.look(self.driver.pulls())
        self.publish()
        self.save()

    def publish(self) -> None:
        slots = self.slots.values()
        serving = {slot.instance.instance for slot in slots if slot.state.serving and slot.instance}
        hints = self.hints.for_table(self.settings.entries, serving)
        if self.feed.update_from(slots, self.spec, self.autoscaler.asleep(), hints) and self.feed.is_open:
            self.save()  # before any worker hears of it: a revision is never used for two tables

    def save(self) -> None:
        state = SavedFleet(
            self.feed.revision,
            dict(self.sizes),
            dict(self.generations),
            {name: slot.saved() for name, slot in self.slots.items()},
            {pool: pin for pool, pin in self.autoscaler.pins.items() if pool in self.sizes},
            dict(self.desk.health),
        )
        if state != self._last_saved:
            self.disk.write(self.paths.state_file, state)
            self._last_saved = state
        alive = [slot.instance.instance for slot in self.slots.values() if slot.instance]
        self.statistics.settle(alive, time())
        self.traffic.settle(alive)
        self.hints.settle(alive)

    def is_drained(self, slot: Slot, now: float) -> bool:
        if slot.state is not ReplicaState.DRAINING or slot.instance is None:
            return False
        return self.telemetry.is_drained(
            slot.instance.instance, self.workers.running, slot.drain_revision, slot.since, now
        )

    def _act(self, action: Action, now: float) -> None:
        if action.kind == "create":
            self.slots[action.replica] = Slot(
                action.replica, action.pool, ReplicaState.PENDING, action.reason
            )
            return
        slot = self.slots[action.replica]
        if action.kind == "pending":
            slot.enter(ReplicaState.PENDING, action.reason, now)
        elif action.kind == "launch":
            devices = tuple(device for device in self.devices if device.id in action.devices)
            self.lives.launch(slot, devices, action.reason)
        elif action.kind == "drain":
            self.lives.drain(slot, action.reason, now)
        elif action.kind == "keep":
            slot.enter(ReplicaState.READY, action.reason, now)
            self.journal.add("replica.detached", slot.id, action.reason)
        elif action.kind == "stop":
            self.lives.stop(slot, action.reason)
        else:
            self.lives.forget(slot, action.reason)

    def spawn_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work``; a failure is logged, never lost, and the loop looks again when it is done."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def keep(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run ``work``, and run it again whenever it fails: for what must not be missing afterwards."""
        return self.spawn_task(self._keep(work))

    async def _keep(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                return await work()
            except Exception as error:  # whatever it is: told, and tried again
                log.exception("a task of the controller failed, and is begun again")
                self._tell(error)
            await asyncio.sleep(AGAIN_S)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the controller failed", exc_info=error)
            self._tell(error)
        self.wake()

    def _tell(self, error: BaseException) -> None:
        """Once, though it happens again with every turn: the log has them all."""
        said = repr(error)
        if said != self._trouble:
            self._trouble = said
            self.journal.add("controller.error", "controller", said)

    # ------------------------------------------------------------ what others tell

    def take_telemetry(self, report: RouterTelemetry) -> None:
        self.telemetry.take(report, time(), self.workers.number_of(report))
        self.traffic.take(report)
        draining = any(slot.state is ReplicaState.DRAINING for slot in self.slots.values())
        if draining or any(model in self.feed.asleep for model in report.waiting_by_model):
            self.wake()

    async def close(self) -> None:
        """Stop watching; everything runs on."""
        self.save()
        self.autoscaler.save(time())
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.driver.close()


def device_policy(spec: FleetSpec) -> DevicePolicy:
    rules = spec.device_failures
    return DevicePolicy(rules.count, rules.within, rules.set_aside)


def _slot_order(name: str) -> tuple[str, int]:
    pool, _, ordinal = name.rpartition("-")
    return pool, int(ordinal)

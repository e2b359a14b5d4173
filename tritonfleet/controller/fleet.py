"""One fleet under control: its slots, and the tick that observes, decides and acts.

Observations arrive as calls (`observe`, exits, telemetry, commands); they change slots and wake the loop. A
tick asks `core.reconcile` what to do and carries it out; what takes time (a launch, a stop) runs as a task
that changes its slot when it is done and wakes the loop again.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from time import time
from typing import Any

from tritonfleet.config import FleetSpec, PoolSpec, pool_hash
from tritonfleet.controller import saved
from tritonfleet.controller.autoscaler import Autoscaler
from tritonfleet.controller.devices import DeviceDesk
from tritonfleet.controller.hints import Hints
from tritonfleet.controller.journal import Journal
from tritonfleet.controller.paths import FleetPaths
from tritonfleet.controller.pulls import PullNotes
from tritonfleet.controller.replay import counted, replay
from tritonfleet.controller.router_workers import make_workers
from tritonfleet.controller.saved import SavedFleet
from tritonfleet.controller.settings import Settings
from tritonfleet.controller.slot import Slot
from tritonfleet.controller.statistics import FleetStatistics, reading_of
from tritonfleet.controller.table import TableFeed
from tritonfleet.controller.telemetry import Telemetry
from tritonfleet.controller.traffic import Traffic, replica_of
from tritonfleet.controller.watch import ReplicaWatch
from tritonfleet.core.lifecycle import HealthPolicy, Probe, while_loading, while_serving
from tritonfleet.core.model import Device, ExitStatus, Replica, ReplicaState
from tritonfleet.core.reconcile import Action, PoolTarget, reconcile
from tritonfleet.core.restart import RestartPolicy, after_failure
from tritonfleet.core.stats import ModelCounters
from tritonfleet.core.wire import RouterTelemetry
from tritonfleet.drivers import container_settings
from tritonfleet.drivers.base import Driver, DriverError, Instance, LaunchSpec
from tritonfleet.triton.client import ReplicaClient

log = logging.getLogger(__name__)

TICK_S = 1.0  # the longest time between two looks at everything
MAINTAIN_S = 10.0
STOP_MARGIN_S = 5.0  # beyond Triton's own exit timeout before it is killed
ClientFactory = Callable[[Instance], ReplicaClient]


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
        self.spec, self.file, self.paths, self.driver, self.devices = spec, file, paths, driver, devices
        self.started_at = time()
        self.desk = DeviceDesk(devices)
        self.journal = Journal(paths.journal)
        remembered = saved.read(paths.state_file, SavedFleet) or SavedFleet()
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
        self.settings = Settings(paths.settings)
        self.statistics = FleetStatistics(paths.statistics_file)
        self.workers = make_workers(spec.name, spec.router, paths, self.journal, self.telemetry)
        self.slots: dict[str, Slot] = {}
        self.watches: dict[str, ReplicaWatch] = {}  # by instance
        self.stopping = False
        self._client_for = client_for
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch_tasks: dict[str, list[asyncio.Task[None]]] = {}  # by instance
        self._woken = asyncio.Event()
        self._last_saved: SavedFleet | None = None
        self._maintained_at = 0.0

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
        """Tick when woken, and every `TICK_S`, until cancelled."""
        await self.desk.look()  # before the first placement, which asks for free memory
        self.spawn_task(self.desk.run())
        while True:
            self.tick(time())
            if time() - self._maintained_at > MAINTAIN_S:
                self._maintained_at = time()
                await self.driver.maintain()
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
                free=self.desk.free(),
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
        )
        if state != self._last_saved:
            saved.write(self.paths.state_file, state)
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
            self.launch(slot, tuple(d for d in self.devices if d.id in action.devices), action.reason)
        elif action.kind == "drain":
            self.drain(slot, action.reason, now)
        elif action.kind == "stop":
            self.stop(slot, action.reason)
        else:
            self.forget(slot, action.reason)

    def spawn_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work``; a failure is logged, never lost, and the loop looks again when it is done."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the controller failed", exc_info=task.exception())
            self.journal.add("controller.error", "controller", repr(task.exception()))
        self.wake()

    # ------------------------------------------------------------ a replica's life

    def launch(self, slot: Slot, devices: tuple[Device, ...], reason: str) -> None:
        again = slot.state in (ReplicaState.FAILED, ReplicaState.CRASH_LOOP)
        slot.generation = self.generations[slot.id] = (
            max(self.generations.get(slot.id, 0), slot.generation) + 1
        )
        slot.restarts += again
        slot.config_hash = pool_hash(self.spec, slot.pool)
        slot.ready_at = slot.retry_at = slot.drain_deadline = slot.reading = None
        slot.failed_probes, slot.models, slot.after_stop = 0, (), "forget"
        slot.devices = tuple(device.id for device in devices)
        on = ", ".join(slot.devices)
        slot.settings_seen = slot.settings_sent = 0
        slot.enter(ReplicaState.STARTING, f"launching on {on}: {reason}")
        self.journal.add(
            "replica.starting", slot.id, f"launch {slot.generation} on {on}",
            generation=slot.generation, device=",".join(slot.devices),
        )  # fmt: skip
        self.save()  # the generation is used up, whatever happens next
        slot.launching = self.spawn_task(self._launch(slot, devices))

    async def _launch(self, slot: Slot, devices: tuple[Device, ...]) -> None:
        pool = self.pool_of(slot)
        spec = LaunchSpec(
            self.spec.name, slot.pool, slot.id, slot.generation, slot.config_hash, devices,
            pool.model_repository, pool.models, pool.triton.args, dict(pool.triton.env),
            max(1, round(pool.triton.exit_timeout)), container_settings(pool),
        )  # fmt: skip
        if slot.clearing is not None:  # the device may be full until the failed process is gone
            await asyncio.gather(slot.clearing, return_exceptions=True)
        try:
            instance = await self.driver.start(spec)
        except DriverError as error:
            if slot.state is not ReplicaState.STARTING:
                return  # it was told to stop meanwhile: `_stop` waits for us
            remedy = f" ({error.remedy})" if error.remedy else ""
            self.failed(slot, "replica.failed", f"{error}{remedy}", transient=error.transient)
            return
        self.attach(slot, instance)
        if slot.state is ReplicaState.STARTING:
            slot.enter(ReplicaState.LOADING, f"{instance.handle} is loading its models")

    def attach(self, slot: Slot, instance: Instance) -> ReplicaWatch:
        """Watch a running instance as this slot's."""
        slot.instance = instance
        health = self.pool_of(slot).health
        watch = ReplicaWatch(
            slot,
            self._client_for(instance),
            interval_s=health.interval,
            timeout_s=health.timeout,
            observe=self.observe,
            counted=self._counted,
        )
        self.watches[instance.instance] = watch
        self._watch_tasks[instance.instance] = [
            self.spawn_task(watch.run()),
            self.spawn_task(self._await_exit(slot, instance)),
        ]
        return watch

    def _counted(self, instance: str, answer: tuple[ModelCounters, ...]) -> None:
        self.statistics.ledger.take(instance, reading_of(answer), complete=True)
        self.traffic.count(instance, answer)
        slot = self.slots.get(replica_of(instance))
        if slot is not None:
            told = [report for one in self.workers.running if (report := self.telemetry.of(one)) is not None]
            self.hints.count(instance, slot.pool, answer, told, slot.instances, time(), slot.slots)

    async def _await_exit(self, slot: Slot, instance: Instance) -> None:
        status = await self.driver.wait(instance)
        if slot.instance is not instance or slot.state is ReplicaState.STOPPING:
            return  # `_stop` tells of it
        self.exited(slot, instance, status)

    def exited(self, slot: Slot, instance: Instance, status: ExitStatus) -> None:
        """It ended and nobody asked it to."""
        if slot.state is ReplicaState.DRAINING:
            self.journal.add("replica.exited", slot.id, f"{instance.handle} {status}, while draining")
            slot.enter(ReplicaState.STOPPING, f"{status}, while draining")
            self.spawn_task(self._stop(slot, 0.0))
            return
        self.failed(slot, "replica.exited", f"{instance.handle} {status}")

    def observe(self, slot: Slot, probe: Probe) -> None:
        """A probe's answer, or the lack of one."""
        pool = self.pool_of(slot)
        policy = HealthPolicy(pool.startup_timeout, pool.health.failures)
        now = time()
        if slot.state is ReplicaState.READY:
            slot.failed_probes = slot.failed_probes + 1 if probe.error else 0
            step = while_serving(probe, slot.failed_probes, policy)
            if not probe.error and probe.models != slot.models:
                slot.models = probe.models
                self.wake()
        elif slot.state in (ReplicaState.STARTING, ReplicaState.LOADING):
            slot.models = probe.models
            step = while_loading(slot.view(self.in_flight), probe, pool.models, policy, now)
        else:
            return
        if step is None:
            return
        if step.state is ReplicaState.FAILED:
            self.failed(slot, "replica.unhealthy", step.reason)
        elif step.state is ReplicaState.READY:
            self._loaded(slot, step.reason, now)
        else:
            slot.enter(step.state, step.reason, now)

    def _loaded(self, slot: Slot, reason: str, now: float) -> None:
        """Its models are ready. It serves when it also has what clients have set on the fleet since."""
        if not self.settings.left_for(slot.pool, slot.settings_seen):
            replayed = f", {counted(slot.settings_sent)} replayed" if slot.settings_sent else ""
            self._became_ready(slot, reason + replayed, now)
        elif (slot.replaying is None or slot.replaying.done()) and slot.instance is not None:
            watch = self.watches[slot.instance.instance]
            slot.replaying = self.spawn_task(replay(self, slot, watch))

    def _became_ready(self, slot: Slot, reason: str, now: float) -> None:
        slot.ready_at = now
        if slot.instance is not None:
            slot.cold_start_s = now - slot.instance.started_at
        slot.enter(ReplicaState.READY, reason, now)
        self.journal.add("replica.ready", slot.id, reason, cold_start_s=slot.cold_start_s)
        self.wake()

    def failed(self, slot: Slot, kind: str, what: str, *, transient: bool = True) -> None:
        """A launch is over, and not by will: note it, and when the next one is due."""
        now, pool = time(), self.pool_of(slot)
        policy = RestartPolicy(
            pool.restart.backoff,
            pool.restart.max_backoff,
            pool.restart.crash_loop_after,
            pool.restart.reset_after,
        )
        ready_for = now - slot.ready_at if slot.ready_at is not None else None
        verdict = after_failure(policy, slot.failures, ready_for_s=ready_for, transient=transient, what=what)
        slot.failures = verdict.failures
        slot.retry_at = now + verdict.delay_s
        was_looping = slot.failures > policy.crash_loop_after
        slot.enter(
            ReplicaState.CRASH_LOOP if verdict.crash_loop else ReplicaState.FAILED, verdict.reason, now
        )
        self.journal.add(kind, slot.id, verdict.reason, failures=verdict.failures, delay_s=verdict.delay_s)
        if verdict.crash_loop and not was_looping:
            text = f"failed {verdict.failures} times in a row; it is still retried, at growing delays"
            self.journal.add("replica.crash_loop", slot.id, text, failures=verdict.failures)
        self.publish()  # out of the table now, not at the next tick
        instance, slot.instance, slot.ready_at, slot.devices = slot.instance, None, None, ()
        if instance is not None:
            slot.clearing = self.spawn_task(self._clear(instance))
        self.wake()

    async def _clear(self, instance: Instance) -> None:
        """End and forget a process that its slot has given up on."""
        await self._unwatch(instance)
        await self.driver.stop(instance, 0.0)
        await self.driver.remove(instance)

    async def _unwatch(self, instance: Instance) -> None:
        self.watches.pop(instance.instance, None)
        current = asyncio.current_task()
        tasks = [task for task in self._watch_tasks.pop(instance.instance, []) if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def drain(self, slot: Slot, reason: str, now: float, timeout_s: float | None = None) -> None:
        """No new work; ended when nothing is in flight or the time is over."""
        slot.enter(ReplicaState.DRAINING, reason, now)
        slot.drain_deadline = now + (self.pool_of(slot).drain_timeout if timeout_s is None else timeout_s)
        self.publish()
        slot.drain_revision = self.feed.revision
        self.journal.add("replica.draining", slot.id, reason)
        self.wake()

    def stop(self, slot: Slot, reason: str, *, force: bool = False) -> None:
        """End its process; the slot becomes what ``after_stop`` says."""
        pool = self.pool_of(slot)
        slot.enter(ReplicaState.STOPPING, reason)
        slot.drain_deadline = None
        self.publish()
        self.journal.add("replica.stopping", slot.id, reason)
        self.spawn_task(self._stop(slot, 0.0 if force else pool.triton.exit_timeout + STOP_MARGIN_S))

    async def _stop(self, slot: Slot, grace_s: float) -> None:
        if slot.launching is not None:  # a process that is just being made would be left behind
            await asyncio.gather(slot.launching, return_exceptions=True)
        instance = slot.instance
        status = ""
        if instance is not None:
            if grace_s > 0 and (watch := self.watches.get(instance.instance)):
                await watch.read_last_statistics()  # all it did stays in the fleet's sums
            status = str(await self.driver.stop(instance, grace_s))
            await self._unwatch(instance)
            await self.driver.remove(instance)
        slot.instance, slot.devices = None, ()
        slot.ready_at, slot.models, slot.reading = None, (), None
        self.journal.add("replica.stopped", slot.id, f"{status or 'it had no process'}: {slot.reason}")
        if slot.after_stop == "forget" and not slot.held:
            self.slots.pop(slot.id, None)
        elif slot.held:
            slot.enter(
                ReplicaState.PENDING, f"emptied by hand; `tritonfleet undrain {slot.id}` brings it back"
            )
        else:
            slot.enter(ReplicaState.PENDING, "restarting")
        slot.after_stop = "forget"

    def forget(self, slot: Slot, reason: str) -> None:
        """The slot is not wanted any more: it goes, at once or when its process has ended."""
        slot.held, slot.after_stop = False, "forget"
        if slot.instance is None and slot.state not in (ReplicaState.STOPPING, ReplicaState.DRAINING):
            self.journal.add("replica.removed", slot.id, reason)
            self.slots.pop(slot.id, None)

    # ------------------------------------------------------------ what others tell

    def take_telemetry(self, report: RouterTelemetry) -> None:
        self.telemetry.take(report, time())
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


def _slot_order(name: str) -> tuple[str, int]:
    pool, _, ordinal = name.rpartition("-")
    return pool, int(ordinal)

"""A replica's life, from its launch to its end: what is done to its process, and what its slot then says.

The loop says what should happen (`launch`, `drain`, `stop`, `forget`), the watches and the driver what did
(`observe`, `exited`). What takes time runs as a task of the fleet, which looks again when it is done.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from tritonfleet.config import pool_hash
from tritonfleet.controller.replay import counted, replay
from tritonfleet.controller.slot import Slot
from tritonfleet.controller.statistics import reading_of
from tritonfleet.controller.traffic import replica_of
from tritonfleet.controller.watch import ReplicaWatch
from tritonfleet.core.device_health import DeviceFailure, is_devices_doing
from tritonfleet.core.lifecycle import (
    HealthPolicy,
    Probe,
    changed_readiness,
    while_loading,
    while_serving,
)
from tritonfleet.core.model import Device, ExitStatus, ReplicaState
from tritonfleet.core.replica_tls import NO_ANSWER
from tritonfleet.core.restart import RestartPolicy, after_failure
from tritonfleet.core.rollout import LaunchFailure
from tritonfleet.core.stats import ModelCounters
from tritonfleet.core.tls_files import misfit
from tritonfleet.drivers import container_settings, server_tls
from tritonfleet.drivers.base import DriverError, Instance, LaunchSpec
from tritonfleet.drivers.clock import steady_time as time
from tritonfleet.triton.client import ReplicaClient

if TYPE_CHECKING:
    from tritonfleet.controller.fleet import Fleet

log = logging.getLogger(__name__)

END_AGAIN_S, REMOVE_TRIES = 2.0, 5
BACK_S = 5.0  # after an engine's return, before silence means something again: connections are made anew
UNKNOWN = "it does not answer, and whether it runs is not known: "
STOP_MARGIN_S = 5.0  # beyond Triton's own exit timeout before it is killed
ClientFactory = Callable[[Instance], ReplicaClient]


class Lives:
    """Of all replicas of a fleet. The slots are the fleet's; the watches of their processes are kept here."""

    def __init__(self, fleet: "Fleet", client_for: ClientFactory) -> None:
        self._fleet = fleet
        self._client_for = client_for
        self._away_at = 0.0  # when the driver's engine did not answer, the last time
        self.watches: dict[str, ReplicaWatch] = {}  # by instance
        self._watching: dict[str, list[asyncio.Task[None]]] = {}  # the tasks of each, by instance

    def watch_of(self, slot: Slot) -> ReplicaWatch | None:
        """None while it has no process, or none that is watched any more."""
        return self.watches.get(slot.instance.instance) if slot.instance else None

    def launch(self, slot: Slot, devices: tuple[Device, ...], reason: str) -> None:
        again = slot.state in (ReplicaState.FAILED, ReplicaState.CRASH_LOOP)
        slot.generation = self._fleet.generations[slot.id] = (
            max(self._fleet.generations.get(slot.id, 0), slot.generation) + 1
        )
        slot.restarts += again
        wanted = pool_hash(self._fleet.spec, slot.pool)
        if wanted != slot.config_hash:
            slot.failures = 0  # they were another configuration's
        slot.config_hash, slot.failure = wanted, None
        slot.ready_at = slot.retry_at = slot.drain_deadline = slot.reading = None
        slot.failed_probes, slot.models, slot.after_stop = 0, (), "forget"
        slot.devices = tuple(device.id for device in devices)
        on = ", ".join(slot.devices)
        slot.settings_seen = slot.settings_sent = 0
        slot.had_devices = False
        slot.enter(ReplicaState.STARTING, f"launching on {on}: {reason}")
        self._fleet.journal.add(
            "replica.starting", slot.id, f"launch {slot.generation} on {on}",
            generation=slot.generation, device=",".join(slot.devices),
        )  # fmt: skip
        self._fleet.save()  # the generation is used up, whatever happens next
        slot.launching = self._fleet.spawn_task(self._launch(slot, devices))

    async def _launch(self, slot: Slot, devices: tuple[Device, ...]) -> None:
        pool = self._fleet.pool_of(slot)
        spec = LaunchSpec(
            self._fleet.spec.name, slot.pool, slot.id, slot.generation, slot.config_hash, devices,
            pool.model_repository, pool.models, pool.triton.args, dict(pool.triton.env),
            max(1, round(pool.triton.exit_timeout)), container_settings(pool), server_tls(pool),
        )  # fmt: skip
        if slot.clearing is not None:  # the device may be full until the failed process is gone
            await asyncio.gather(slot.clearing, return_exceptions=True)
        tls = spec.tls
        if tls is not None and (why := misfit(tls.cert, tls.key)) and slot.state is ReplicaState.STARTING:
            # Replaced by files that no server takes. Others serve with the old ones, on other devices, and so
            # this one's would be blamed for what Triton makes of it: "Socket already in use".
            what = f"triton.tls: {tls.key} with {tls.cert}: {why} (replace both files)"
            self.failed(slot, "replica.failed", what, by_device=False)
            return
        try:
            instance = await self._fleet.driver.start(spec)
        except Exception as error:  # a slot that nobody told of a failed launch would stay `starting`
            if not isinstance(error, DriverError):
                log.exception("%s cannot be launched", slot.id)
                error = DriverError(repr(error), by_device=False)
            if slot.state is not ReplicaState.STARTING:
                return  # it was told to stop meanwhile: `_stop` waits for us
            what = f"{error} ({error.remedy})" if error.remedy else str(error)
            self.failed(slot, "replica.failed", what, transient=error.transient, by_device=error.by_device)
            return
        self.attach(slot, instance)
        if slot.state is ReplicaState.STARTING:
            slot.enter(ReplicaState.LOADING, f"{instance.handle} is loading its models")

    def attach(self, slot: Slot, instance: Instance) -> ReplicaWatch:
        """Watch a running instance as this slot's."""
        slot.instance, slot.devices = instance, instance.devices
        health = self._fleet.pool_of(slot).health
        watch = ReplicaWatch(
            slot,
            self._client_for(instance),
            interval_s=health.interval,
            timeout_s=health.timeout,
            observe=self.observe,
            counted=self._counted,
        )
        self.watches[instance.instance] = watch
        self._watching[instance.instance] = [
            self._fleet.keep(watch.run),
            self._fleet.keep(lambda: self._await_exit(slot, instance)),
        ]
        return watch

    def _counted(self, instance: str, answer: tuple[ModelCounters, ...]) -> None:
        self._fleet.statistics.ledger.take(instance, reading_of(answer), complete=True)
        self._fleet.traffic.count(instance, answer)
        slot = self._fleet.slots.get(replica_of(instance))
        if slot is not None:
            told = self._fleet.telemetry.all_of(self._fleet.workers.running)
            self._fleet.hints.count(
                instance, slot.pool, answer, told, slot.instances, time(), slot.slots, slot.steps
            )

    async def _await_exit(self, slot: Slot, instance: Instance) -> None:
        status = await self._fleet.driver.wait(instance)
        if slot.instance is not instance or slot.state is ReplicaState.STOPPING:
            return  # `_stop` tells of it
        self.exited(slot, instance, status)

    def exited(self, slot: Slot, instance: Instance, status: ExitStatus) -> None:
        """It ended and nobody asked it to."""
        if slot.state is ReplicaState.DRAINING:
            self._fleet.journal.add("replica.exited", slot.id, f"{instance.handle} {status}, while draining")
            slot.enter(ReplicaState.STOPPING, f"{status}, while draining")
            self._fleet.spawn_task(self._stop(slot, 0.0))
            return
        self.failed(slot, "replica.exited", f"{instance.handle} {status}", by_device=is_devices_doing(status))

    def observe(self, slot: Slot, probe: Probe) -> None:
        """A probe's answer, or the lack of one."""
        pool = self._fleet.pool_of(slot)
        policy = HealthPolicy(pool.startup_timeout, pool.health.failures)
        now = time()
        if self._is_unknown(slot, probe, now):
            return
        if slot.state is ReplicaState.READY:
            slot.failed_probes = slot.failed_probes + 1 if probe.error else 0
            step = while_serving(probe, slot.failed_probes, policy)
            if not probe.error and probe.models != slot.models:
                for kind, what in changed_readiness(slot.models, probe.models):
                    self._fleet.journal.add(f"replica.model_{kind}", slot.id, what)
                slot.models = probe.models
                self._fleet.wake()
        elif slot.state in (ReplicaState.STARTING, ReplicaState.LOADING):
            slot.models = probe.models
            step = while_loading(slot.view(self._fleet.in_flight), probe, pool.models, policy, now)
        else:
            return
        if step is None:
            return
        if step.state is ReplicaState.FAILED:
            hopeless = slot.state is not ReplicaState.READY  # the time to get ready is over
            by_device = not probe.error.startswith(NO_ANSWER)  # that is the certificate's doing
            self.failed(slot, "replica.unhealthy", step.reason, by_device=by_device, hopeless=hopeless)
        elif step.state is ReplicaState.READY:
            self._loaded(slot, step.reason, now)
        else:
            slot.enter(step.state, step.reason, now)

    def _is_unknown(self, slot: Slot, probe: Probe, now: float) -> bool:
        """Whether a failed probe says nothing, since what runs the replica is away, too: a Docker daemon that
        is restarted takes its ports with it for a while, and may leave its containers as they are."""
        away = self._fleet.driver.away
        self._away_at = now if away else self._away_at
        lately = bool(away) or now - self._away_at < BACK_S
        unknown = bool(probe.error) and lately and slot.state in (ReplicaState.READY, ReplicaState.LOADING)
        if unknown:
            slot.failed_probes = 0
        if unknown and not slot.reason.startswith(UNKNOWN):
            slot.enter(slot.state, f"{UNKNOWN}{away or 'the engine has just come back'}", now)
            self._fleet.journal.add("replica.unknown", slot.id, slot.reason)
        elif slot.state is ReplicaState.READY and not probe.error and slot.reason.startswith(UNKNOWN):
            slot.enter(ReplicaState.READY, "it answers again", now)
            self._fleet.journal.add("replica.known", slot.id, slot.reason)
        return unknown

    def _loaded(self, slot: Slot, reason: str, now: float) -> None:
        """Its models are ready. It serves when it also has what clients have set on the fleet since."""
        if not self._fleet.settings.left_for(slot.pool, slot.settings_seen):
            replayed = f", {counted(slot.settings_sent)} replayed" if slot.settings_sent else ""
            self._became_ready(slot, reason + replayed, now)
        elif (slot.replaying is None or slot.replaying.done()) and slot.instance is not None:
            watch = self.watches[slot.instance.instance]
            slot.replaying = self._fleet.spawn_task(replay(self._fleet, slot, watch))

    def _became_ready(self, slot: Slot, reason: str, now: float) -> None:
        slot.ready_at = now
        if slot.instance is not None:
            slot.cold_start_s = now - slot.instance.started_at
        slot.enter(ReplicaState.READY, reason, now)
        self._fleet.journal.add("replica.ready", slot.id, reason, cold_start_s=slot.cold_start_s)
        self._fleet.wake()

    def failed(
        self,
        slot: Slot,
        kind: str,
        what: str,
        *,
        transient: bool = True,
        by_device: bool = True,
        hopeless: bool = False,
    ) -> None:
        """A launch is over, and not by will: note it, and when the next one is due. ``by_device``: whether
        the device can be to blame; ``hopeless``: whether a rolling change ends with it."""
        now, pool = time(), self._fleet.pool_of(slot)
        if by_device and transient:
            self._fleet.desk.failed(slot.devices, DeviceFailure(now, slot.id, slot.config_hash, what))
        policy = RestartPolicy(
            pool.restart.backoff,
            pool.restart.max_backoff,
            pool.restart.crash_loop_after,
            pool.restart.reset_after,
        )
        ready_for = now - slot.ready_at if slot.ready_at is not None else None
        verdict = after_failure(policy, slot.failures, ready_for_s=ready_for, transient=transient, what=what)
        slot.failures, slot.failure = verdict.failures, LaunchFailure(what, hopeless or not transient)
        slot.retry_at = now + verdict.delay_s
        was_looping = slot.failures > policy.crash_loop_after
        slot.enter(
            ReplicaState.CRASH_LOOP if verdict.crash_loop else ReplicaState.FAILED, verdict.reason, now
        )
        self._fleet.journal.add(
            kind, slot.id, verdict.reason, failures=verdict.failures, delay_s=verdict.delay_s
        )
        if verdict.crash_loop and not was_looping:
            text = f"failed {verdict.failures} times in a row; it is still retried, at growing delays"
            self._fleet.journal.add("replica.crash_loop", slot.id, text, failures=verdict.failures)
        self._fleet.publish()  # out of the table now, not at the next tick
        instance, slot.instance, slot.ready_at, slot.devices = slot.instance, None, None, ()
        if instance is not None:
            slot.clearing = self._fleet.spawn_task(self._clear(instance))
        self._fleet.rollouts.review(self._fleet, now)
        self._fleet.wake()

    async def _clear(self, instance: Instance) -> None:
        """End and forget a process that its slot has given up on."""
        await self._unwatch(instance)
        await self.end(instance, 0.0)

    async def end(self, instance: Instance, grace_s: float) -> ExitStatus:
        """Its process ends, and what it leaves goes. The first is tried until it is so: before, nothing else
        may be given its device. What cannot be removed then is left to the next controller."""
        told, left = "", 0
        status: ExitStatus | None = None
        while True:
            try:
                if status is None:
                    status = await self._fleet.driver.stop(instance, grace_s)
                    await self._unwatch(instance)
                await self._fleet.driver.remove(instance)
                return status
            except Exception as error:  # given up, it would keep its device for ever
                log.exception("%s cannot be ended", instance.instance)
                left += status is not None
                what = "has ended, and what it leaves cannot be removed" if left else "cannot be ended"
                if told != (told := f"{instance.handle} {what}, it is tried again: {error}"):
                    self._fleet.journal.add("replica.stuck", instance.replica, told)
            if status is not None and left >= REMOVE_TRIES:
                return status
            await asyncio.sleep(END_AGAIN_S)

    async def _unwatch(self, instance: Instance) -> None:
        self.watches.pop(instance.instance, None)
        current = asyncio.current_task()
        tasks = [task for task in self._watching.pop(instance.instance, []) if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def drain(self, slot: Slot, reason: str, now: float, timeout_s: float | None = None) -> None:
        """No new work; ended when nothing is in flight or the time is over."""
        slot.enter(ReplicaState.DRAINING, reason, now)
        slot.drain_deadline = now + (
            self._fleet.pool_of(slot).drain_timeout if timeout_s is None else timeout_s
        )
        self._fleet.publish()
        slot.drain_revision = self._fleet.feed.revision
        self._fleet.journal.add("replica.draining", slot.id, reason)
        self._fleet.wake()

    def stop(self, slot: Slot, reason: str, *, force: bool = False) -> None:
        """End its process; the slot becomes what ``after_stop`` says."""
        pool = self._fleet.pool_of(slot)
        slot.enter(ReplicaState.STOPPING, reason)
        slot.drain_deadline = None
        self._fleet.publish()
        self._fleet.journal.add("replica.stopping", slot.id, reason)
        self._fleet.spawn_task(self._stop(slot, 0.0 if force else pool.triton.exit_timeout + STOP_MARGIN_S))

    async def _stop(self, slot: Slot, grace_s: float) -> None:
        if slot.launching is not None:  # a process that is just being made would be left behind
            await asyncio.gather(slot.launching, return_exceptions=True)
        instance = slot.instance
        status = ""
        if instance is not None:
            if grace_s > 0 and (watch := self.watch_of(slot)):
                await watch.read_last_statistics()  # all it did stays in the fleet's sums
            status = str(await self.end(instance, grace_s))
        slot.instance, slot.devices = None, ()
        slot.ready_at, slot.models, slot.reading = None, (), None
        self._fleet.journal.add("replica.stopped", slot.id, f"{status or 'it had no process'}: {slot.reason}")
        if slot.after_stop == "forget" and not slot.held:
            self._fleet.slots.pop(slot.id, None)
        elif slot.held:
            slot.empty()
        else:
            slot.enter(ReplicaState.PENDING, "restarting")
        slot.after_stop = "forget"

    def forget(self, slot: Slot, reason: str) -> None:
        """The slot is not wanted any more: it goes, at once or when its process has ended."""
        slot.held, slot.after_stop = False, "forget"
        if slot.instance is None and slot.state not in (ReplicaState.STOPPING, ReplicaState.DRAINING):
            self._fleet.journal.add("replica.removed", slot.id, reason)
            self._fleet.slots.pop(slot.id, None)

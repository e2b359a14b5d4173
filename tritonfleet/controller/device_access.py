"""Replaces replicas whose containers have lost their GPUs: asks each container now and then, and says which
of the ready replicas are worn out (`core.device_access` judges, `core.reconcile` replaces)."""

import asyncio
import logging
from typing import TYPE_CHECKING

from tritonfleet.config import FleetSpec
from tritonfleet.controller.outliers import answers_of
from tritonfleet.controller.slot import Slot
from tritonfleet.core.device_access import (
    AccessPolicy,
    DeviceAccess,
    DeviceLook,
    after_look,
    detached,
    fails,
)
from tritonfleet.core.model import DeviceKind, ReplicaState
from tritonfleet.core.outliers import Answers
from tritonfleet.core.reconcile import Worn
from tritonfleet.drivers.base import DriverError, Instance
from tritonfleet.drivers.clock import steady_time as time

if TYPE_CHECKING:
    from tritonfleet.controller.fleet import Fleet

log = logging.getLogger(__name__)

TURN_S = 1.0  # between two looks at who is due


class AccessDesk:
    """``_known`` by instance; ``_found`` holds those that were found detached: why, and what they had
    answered by then."""

    def __init__(self) -> None:
        self._known: dict[str, DeviceAccess] = {}
        self._found: dict[str, tuple[str, Answers]] = {}

    async def run(self, fleet: "Fleet") -> None:
        """Ask whoever is due, again and again, until cancelled. A fleet without GPUs has nobody to ask."""
        while any(device.kind is not DeviceKind.CPU for device in fleet.devices):
            await asyncio.sleep(TURN_S)
            await self.turn(fleet, time())

    async def turn(self, fleet: "Fleet", now: float) -> None:
        """Ask every ready replica that is due, one after the other: they may share a GPU that hangs."""
        there = {slot.instance.instance: slot for slot in fleet.slots.values() if slot.instance}
        self._known = {name: known for name, known in self._known.items() if name in there}
        self._found = {name: found for name, found in self._found.items() if name in there}
        if policy_of(fleet.spec).failures == 0:
            self._known, self._found = {}, {}
            return
        due = [
            slot
            for name, slot in there.items()
            if slot.state is ReplicaState.READY and self._known_of(name, slot).due <= now
        ]
        for slot in due:
            if slot.instance is not None:  # it may have ended meanwhile
                await self._ask(fleet, slot, slot.instance)
        if due:
            fleet.wake()

    async def _ask(self, fleet: "Fleet", slot: Slot, instance: Instance) -> None:
        look: DeviceLook | None = None
        try:
            look = await fleet.driver.look(instance)
        except DriverError as error:
            log.debug("%s", error)
        if slot.instance is not instance:
            return  # it ended meanwhile
        known = self._known_of(instance.instance, slot)
        readings, policy = fleet.desk.readings, policy_of(fleet.spec)
        after = after_look(policy, known, look, readings, instance.devices, time())
        self._known[instance.instance], slot.had_devices = after, after.had

    def _known_of(self, instance: str, slot: Slot) -> DeviceAccess:
        return self._known.get(instance) or DeviceAccess(slot.had_devices)

    def review(self, fleet: "Fleet", now: float) -> dict[str, Worn]:
        """The ready replicas to be replaced, by id."""
        policy, worn = policy_of(fleet.spec), dict[str, Worn]()
        if not any(known.gone for known in self._known.values()) and not self._found:
            return worn
        answers = answers_of(fleet.telemetry.all_of(fleet.workers.running))
        for slot in fleet.slots.values():
            instance = slot.instance
            if instance is None or slot.state is not ReplicaState.READY or slot.held:
                continue
            name, known = instance.instance, self._known_of(instance.instance, slot)
            why = detached(policy, known, instance.started_at, now)
            if not why and self._found.pop(name, None) is not None:
                slot.enter(ReplicaState.READY, "its container has its GPUs again", now)
            if why:
                counted = answers.get(name, Answers())
                if name not in self._found:
                    self._found[name] = (why, counted)
                    fleet.journal.add("replica.detached", slot.id, f"{why}: it is to be replaced")
                    slot.enter(ReplicaState.READY, f"{why}: it is to be replaced")
                first, before = self._found[name]
                worn[slot.id] = Worn(first, urgent=fails(before, counted))
        return worn


def policy_of(spec: FleetSpec) -> AccessPolicy:
    rules = spec.device_checks
    return AccessPolicy(rules.every, rules.failures, rules.pause)

"""After a controller's death: what it remembered and what runs become slots again; nothing starts twice."""

import asyncio

from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.slot import Slot
from tritonfleet.core.model import ExitStatus, ReplicaState
from tritonfleet.drivers.base import Instance
from tritonfleet.drivers.clock import steady_time as time

FIRST_PROBE_S = 3.0  # how long the routers' table waits for replicas whose state is not remembered
END_S = 10.0  # how long a start waits for what has ended, or should have, to be gone

RUNNING = (ReplicaState.STARTING, ReplicaState.LOADING, ReplicaState.READY, ReplicaState.DRAINING)


async def adopt(fleet: Fleet) -> int:
    """Fill ``fleet.slots``. Returns how many running replicas were found.

    A replica that was ready is taken as ready, with the models it had: the routers go on using it while the
    first health probes are under way.
    """
    running: dict[str, Instance] = {}
    ended: dict[str, Instance] = {}
    over: list[Instance] = []
    for instance in await fleet.driver.list():
        note_generation(fleet, instance)
        older = running.get(instance.replica)
        if not instance.running:
            ended[instance.replica] = instance
            over.append(instance)
            continue
        if older is not None:
            over.append(older)
        running[instance.replica] = instance
    unknown = []
    for name in sorted({*running, *fleet.remembered}):
        slot = _slot(fleet, name, running.get(name))
        fleet.slots[name] = slot
        if name in running:
            watch = _attach(fleet, slot, running[name])
            if watch is not None:
                unknown.append(watch)
        else:
            _settle(fleet, slot, ended.get(name))
    endings = [fleet.spawn_task(_end(fleet, instance)) for instance in over]
    if endings:  # one that cannot be ended must not keep the others from their care
        await asyncio.wait(endings, timeout=END_S)
    if running:
        names = ", ".join(f"{name} ({instance.handle})" for name, instance in sorted(running.items()))
        fleet.journal.add("controller.adopted", "controller", f"{len(running)} replicas that run: {names}")
    await _first_probes(unknown)
    fleet.publish()
    fleet.feed.open()
    for slot in fleet.slots.values():
        if slot.state is ReplicaState.DRAINING:
            slot.drain_revision = fleet.feed.revision
    fleet.save()
    return len(running)


async def _end(fleet: Fleet, instance: Instance) -> None:
    await fleet.lives.end(instance, 0.0)


def note_generation(fleet: Fleet, instance: Instance) -> None:
    known = fleet.generations.get(instance.replica, 0)
    fleet.generations[instance.replica] = max(known, instance.generation)


def _slot(fleet: Fleet, name: str, instance: Instance | None) -> Slot:
    remembered = fleet.remembered.get(name)
    if remembered is not None:
        return Slot.restored(name, remembered)
    pool = instance.pool if instance else name.rpartition("-")[0]
    return Slot(name, pool, ReplicaState.LOADING, "found running")


def _attach(fleet: Fleet, slot: Slot, instance: Instance) -> asyncio.Event | None:
    """Take over a running instance. Returns an event to wait for if its state is not known yet."""
    slot.generation, slot.config_hash = instance.generation, instance.config_hash
    same = fleet.remembered.get(slot.id)
    if same is None or same.generation != instance.generation or slot.state not in RUNNING:
        if slot.state is ReplicaState.STOPPING:
            slot.instance = instance
            fleet.lives.stop(slot, "it was being stopped when the controller ended")
            return None
        slot.had_devices = slot.had_devices and same is not None and same.generation == instance.generation
        slot.enter(ReplicaState.LOADING, "found running")
    elif slot.state is ReplicaState.STARTING:
        slot.enter(ReplicaState.LOADING, "found running")
    watch = fleet.lives.attach(slot, instance)
    return watch.probed if slot.state is ReplicaState.LOADING else None


def _settle(fleet: Fleet, slot: Slot, ended: Instance | None) -> None:
    """A remembered slot without a running process."""
    if slot.state in (ReplicaState.DRAINING, ReplicaState.STOPPING) and slot.held:
        slot.empty()
    elif slot.state in (ReplicaState.DRAINING, ReplicaState.STOPPING) and slot.after_stop == "forget":
        del fleet.slots[slot.id]
    elif slot.state is ReplicaState.STOPPING:
        slot.enter(ReplicaState.PENDING, "stopped while no controller ran")
    elif slot.state is ReplicaState.DRAINING:
        slot.enter(ReplicaState.PENDING, "ended while no controller ran")
    elif slot.state in RUNNING:
        status = ended.exit if ended is not None and ended.exit else ExitStatus(time())
        handle = ended.handle if ended is not None else f"{slot.id}.{slot.generation}"
        fleet.lives.failed(
            slot, "replica.exited", f"{handle} {status}, while no controller ran", by_device=False
        )
    elif slot.state in (ReplicaState.FAILED, ReplicaState.CRASH_LOOP):
        slot.retry_at = time()


async def _first_probes(events: list[asyncio.Event]) -> None:
    if not events:
        return
    try:
        async with asyncio.timeout(FIRST_PROBE_S):
            await asyncio.gather(*(event.wait() for event in events))
    except TimeoutError:
        return

"""What a person can ask of a running fleet: validated here, refused with the numbers, or carried out."""

from pathlib import Path

from tritonfleet.config import ConfigError, FleetSpec, load_fleet, pool_hash
from tritonfleet.config.router_spec import RouterSpec
from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.slot import Slot
from tritonfleet.core.model import ReplicaState
from tritonfleet.core.placement import lacking, occupancy
from tritonfleet.core.rollout import UndoRequest
from tritonfleet.core.wire import (
    Accepted,
    ApplyRequest,
    DrainRequest,
    Problem,
    RestartRequest,
    ScaleRequest,
)
from tritonfleet.drivers.clock import steady_time as time


class RefusedError(Exception):
    """A request that is not carried out."""

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.problem = Problem(kind, message, hint)


def scale(fleet: Fleet, request: ScaleRequest) -> Accepted:
    """Pin sizes, or end pins. All that is asked for, or, if one is refused, nothing."""
    sizes = {_pool(fleet, name): size for name, size in request.sizes.items()}
    paused = {pool: fleet.size_of(pool) for pool in (_pool(fleet, name) for name in request.pause)}
    freed = [_pool(fleet, name) for name in request.auto]
    if request.for_s is not None and request.for_s <= 0:
        raise RefusedError("invalid", f"{request.for_s:g} s is no time to pin a size for", "such as 30m")
    _check_sizes(fleet, fleet.spec, sizes)
    until = None if request.for_s is None else time() + request.for_s
    fleet.autoscaler.pin({**sizes, **paused}, request.by, until)
    for pool in freed:
        fleet.autoscaler.unpin(pool)
    limit = f" for {request.for_s:g} s" if request.for_s is not None else ""
    changes = [f"scaled {pool} to {size}{limit}" for pool, size in sizes.items()]
    changes += [f"held {pool} at {size}{limit}" for pool, size in paused.items()]
    changes += [f"{pool} is {_set_by(fleet, pool)} again" for pool in freed]
    kind = "pool.unpinned" if freed else "pool.scaled"
    subject = ", ".join([*sizes, *paused, *freed])
    event = fleet.journal.add(kind, subject, f"{', '.join(changes)} by {request.by}")
    fleet.wake()
    return Accepted(", ".join(changes).replace("scaled ", "scaling "), event.seq)


def _set_by(fleet: Fleet, pool: str) -> str:
    return "sized by its load" if fleet.autoscaler.autoscaled(pool) else "of the fleet file's size"


def _pool(fleet: Fleet, name: str) -> str:
    pools = fleet.spec.pools
    if name in pools:
        return name
    if not name and len(pools) == 1:
        return next(iter(pools))
    what = f"there is no pool {name!r}" if name else "the fleet has several pools: say which"
    raise RefusedError("not_found" if name else "invalid", what, f"pools: {', '.join(pools)}")


def _check_sizes(fleet: Fleet, spec: FleetSpec, sizes: dict[str, int]) -> None:
    for pool, size in sizes.items():
        bounds = spec.pools[pool].replicas
        if not bounds.min <= size <= bounds.max:
            raise RefusedError(
                "invalid",
                f"{pool} cannot be scaled to {size}: its bounds are {bounds.min}..{bounds.max}",
                f"change pools.{pool}.replicas in {fleet.file.name}, then `tritonfleet up`",
            )
    wanted = {
        pool: sizes.get(pool, fleet.size_of(pool) if pool in fleet.spec.pools else 0) for pool in spec.pools
    }
    short = lacking(
        wanted,
        {name: pool.replicas.per_device for name, pool in spec.pools.items()},
        fleet.devices,
        {name: pool.replicas.devices_per_replica for name, pool in spec.pools.items()},
    )
    if short:
        taken = {device.id: list(device.replicas) for device in fleet.desk.infos(fleet.replicas())}
        table = occupancy(fleet.devices, taken, fleet.desk.free())
        hint = "add devices, raise per_device, or scale another pool down"
        raise RefusedError("invalid", f"{short}\n{table}", hint)


def apply(fleet: Fleet, request: ApplyRequest) -> Accepted:
    """Bring the fleet to the state of a file."""
    path = Path(request.path)
    try:
        spec = load_fleet(path, request.environ)
    except ConfigError as error:
        raise RefusedError("invalid", f"{path.name} is not valid\n{error}") from error
    for pool in request.sizes:
        if pool not in spec.pools:
            raise RefusedError("not_found", f"there is no pool {pool!r}", f"pools: {', '.join(spec.pools)}")
    changes = _become(fleet, spec, path, "up", request.sizes)
    message = "; ".join(changes) or f"it already is as {path.name} says"
    event = fleet.journal.add("config.applied", "fleet", f"{path} by {request.by}: {message}")
    return Accepted(message, event.seq)


def undo(fleet: Fleet, request: UndoRequest) -> Accepted:
    """Bring the fleet back to an earlier revision of itself."""
    revisions = fleet.rollouts.revisions
    numbers = [revision.number for revision in revisions.all]
    there = f"there are: {', '.join(map(str, numbers))}; see `tritonfleet rollout history`"
    if request.revision is None:
        earlier = next((one for one, spec in revisions.deployed() if not revisions.runs_already(spec)), None)
        if earlier is None:
            raise RefusedError("conflict", "there is no other revision that was deployed", there)
        number = earlier.number
    else:
        number = request.revision
    spec = revisions.spec_of(number)
    if spec is None:
        raise RefusedError("not_found", f"there is no revision {number}", there)
    if revisions.runs_already(spec):
        raise RefusedError("conflict", f"the fleet already is as revision {number} says", there)
    changes = _become(fleet, spec, fleet.file, "undo", {}, f"back to revision {number}: ")
    event = fleet.journal.add("rollout.undone", "fleet", f"back to revision {number} by {request.by}")
    return Accepted(f"back to revision {number}: {'; '.join(changes)}", event.seq)


def _become(
    fleet: Fleet, spec: FleetSpec, file: Path, by: str, sizes: dict[str, int], why: str = ""
) -> list[str]:
    """From now on the fleet is to be as ``spec`` says. Returns what that changes, in words."""
    _check_unchanged(fleet.spec, spec)
    _check_sizes(fleet, spec, sizes)
    changes = _changes(fleet, spec, sizes)
    before, fleet.spec, fleet.file = fleet.spec, spec, file
    if _of_workers(spec.router) != _of_workers(before.router):
        fleet.workers.replace(spec.router, by)
    fleet.autoscaler.pin(sizes, by, None)
    fleet.sizes = {pool: size for pool, size in fleet.sizes.items() if pool in spec.pools}
    if not fleet.rollouts.revisions.runs_already(spec):
        told = "; ".join(_changes_of(before, spec)) or "settings of the fleet changed"
        fleet.rollouts.begin(spec, before, file, by, why + told)
    fleet.wake()
    return changes


def _check_unchanged(old: FleetSpec, new: FleetSpec) -> None:
    """What a running fleet cannot change."""
    fixed = {
        "name": (old.name, new.name),
        "driver": (old.driver, new.driver),
        "docker_host": (old.docker_host, new.docker_host),
        "devices": (old.devices, new.devices),
        "logs": (old.logs, new.logs),
        "metrics.listen": (str(old.metrics.listen), str(new.metrics.listen)),
        "router.listen": (str(old.router.listen), str(new.router.listen)),
        "router.external": (old.router.external, new.router.external),
        **_of_external(old.router, new.router),
    }
    changed = [f"{key}: {was} → {now}" for key, (was, now) in fixed.items() if was != now]
    if changed:
        raise RefusedError(
            "conflict",
            f"a running fleet cannot change {'; '.join(changed)}",
            "`tritonfleet down`, then `tritonfleet up`"
            + ("; and start the router's workers again, where they run" if new.router.external else ""),
        )


def _of_external(old: RouterSpec, new: RouterSpec) -> dict[str, tuple[object, object]]:
    """Workers that somebody else starts cannot be replaced by us."""
    if not old.external or _of_workers(old) == _of_workers(new):
        return {}
    keys = [key for key in RouterSpec.model_fields if getattr(_of_workers(old), key) != getattr(new, key)]
    return {f"router.{key}": (getattr(old, key), getattr(new, key)) for key in keys}


def _of_workers(router: RouterSpec) -> RouterSpec:
    """What a worker is started with: the rest reaches it with the table."""
    plain = RouterSpec.model_fields
    defaults = {name: plain[name].get_default() for name in ("policy", "queue", "retry")}
    return router.model_copy(update=defaults)


def _changes(fleet: Fleet, spec: FleetSpec, sizes: dict[str, int]) -> list[str]:
    return _changes_of(fleet.spec, spec) + [f"{pool} to {size}" for pool, size in sizes.items()]


def _changes_of(old: FleetSpec, new: FleetSpec) -> list[str]:
    changes = []
    for name in new.pools:
        if name not in old.pools:
            changes.append(f"new pool {name}")
        elif pool_hash(new, name) != pool_hash(old, name):
            changes.append(f"pool {name}: replicas are replaced one by one")
        elif new.pools[name] != old.pools[name]:
            changes.append(f"pool {name}: settings changed")
    changes += [f"pool {name} is removed" for name in old.pools if name not in new.pools]
    if _of_workers(new.router) != _of_workers(old.router):
        changes.append("router: workers are replaced one by one")
    if new.router.policy != old.router.policy:
        changes.append(f"policy {new.router.policy}")
    if rules := [key for key in ("queue", "retry") if getattr(new.router, key) != getattr(old.router, key)]:
        changes.append(f"router: {', '.join(rules)} changed")
    return changes


def _slot(fleet: Fleet, name: str) -> Slot:
    slot = fleet.slots.get(name)
    if slot is None:
        raise RefusedError(
            "not_found", f"there is no replica {name!r}", f"there are: {', '.join(fleet.slots)}"
        )
    return slot


def drain(fleet: Fleet, name: str, request: DrainRequest) -> Accepted:
    """Take a replica out and end it; its slot stays empty until `undrain`."""
    slot = _slot(fleet, name)
    hasten = request.force and slot.state is ReplicaState.DRAINING
    if slot.held and slot.state is not ReplicaState.READY and not hasten:
        raise RefusedError(
            "conflict", f"{name} is drained already", f"`tritonfleet undrain {name}` brings it back"
        )
    slot.held, slot.after_stop = True, "hold"
    reason = f"drained by {request.by}"
    if slot.state is ReplicaState.READY and not request.force:
        fleet.lives.drain(slot, reason, time(), request.deadline_s)
    elif _drains_on(slot, request.force):
        fleet.journal.add("replica.draining", name, f"{reason}: it drains already, and is emptied then")
    elif slot.state in (
        ReplicaState.STARTING,
        ReplicaState.LOADING,
        ReplicaState.READY,
        ReplicaState.DRAINING,
    ):
        fleet.lives.stop(slot, reason, force=request.force)
    elif slot.state is not ReplicaState.STOPPING:
        slot.retry_at = None
        slot.empty()
    fleet.wake()
    return Accepted(f"{name} drains, then stops", fleet.journal.seq)


def _drains_on(slot: Slot, force: bool) -> bool:
    """Whether it drains for another reason, which goes on: what is in flight there is nobody's to end."""
    return slot.state is ReplicaState.DRAINING and not force


def drain_device(fleet: Fleet, name: str, request: DrainRequest) -> Accepted:
    """Place nothing there until `undrain_device`; the replicas there drain and are launched elsewhere."""
    _check_device(fleet, name)
    known = fleet.desk.health.get(name)
    if known is not None and known.aside is not None and known.aside.until is None:
        raise RefusedError(
            "conflict", f"{name} is drained already", f"`tritonfleet undrain device/{name}` brings it back"
        )
    fleet.desk.set_aside(name, f"drained by {request.by}")
    reason = f"device {name} is drained by {request.by}"
    here = [slot for slot in fleet.slots.values() if name in slot.devices]
    for slot in here:
        slot.after_stop = "hold" if slot.held else "relaunch"
        if slot.state is ReplicaState.READY and not request.force:
            fleet.lives.drain(slot, reason, time(), request.deadline_s)
        elif slot.state is not ReplicaState.STOPPING and (
            slot.state is not ReplicaState.DRAINING or request.force
        ):
            fleet.lives.stop(slot, reason, force=request.force)
    fleet.wake()
    leaving = f"; leaving it: {', '.join(slot.id for slot in here)}" if here else ""
    return Accepted(f"nothing is placed on {name} any more{leaving}", fleet.journal.seq)


def undrain_device(fleet: Fleet, name: str) -> Accepted:
    """Replicas may be placed there again, whoever set it aside."""
    _check_device(fleet, name)
    known = fleet.desk.health.get(name)
    if known is None or known.aside is None:
        raise RefusedError(
            "conflict", f"{name} is not set aside", f"see `tritonfleet describe device/{name}`"
        )
    fleet.desk.take_back(name)
    fleet.wake()
    return Accepted(f"replicas may be placed on {name} again", fleet.journal.seq)


def _check_device(fleet: Fleet, name: str) -> None:
    names = [device.id for device in fleet.devices]
    if name not in names:
        raise RefusedError("not_found", f"there is no device {name!r}", f"there are: {', '.join(names)}")


def undrain(fleet: Fleet, name: str) -> Accepted:
    slot = _slot(fleet, name)
    if not slot.held:
        raise RefusedError("conflict", f"{name} is not drained: it is {slot.state}", "see `tritonfleet ps`")
    slot.held, slot.after_stop, slot.failures = False, "relaunch", 0
    if slot.state is ReplicaState.DRAINING:
        slot.after_stop, slot.drain_deadline = "forget", None
        slot.enter(ReplicaState.READY, "taken back before it was stopped")
        fleet.publish()
    event = fleet.journal.add("replica.undrained", name, "put back by hand")
    fleet.wake()
    return Accepted(f"{name} is back in the fleet", event.seq)


def restart_router(fleet: Fleet, request: RestartRequest) -> Accepted:
    """New workers in the place of the old ones, one by one; no call fails."""
    if fleet.spec.router.external:
        raise RefusedError(
            "conflict",
            "the router's workers are not the controller's: router.external says so",
            "restart them where they run",
        )
    fleet.workers.replace(fleet.spec.router, request.by)
    count = fleet.spec.router.workers
    what = "its worker is replaced" if count == 1 else f"its {count} workers are replaced, one by one"
    return Accepted(f"the router restarts: {what}", fleet.journal.seq)


def restart(fleet: Fleet, name: str, request: RestartRequest) -> Accepted:
    """Drain it, end it, launch it again in its slot."""
    slot = _slot(fleet, name)
    if slot.held:
        raise RefusedError("conflict", f"{name} is drained", f"`tritonfleet undrain {name}` brings it back")
    reason = f"restarted by {request.by}"
    if slot.state in (ReplicaState.STARTING, ReplicaState.LOADING, ReplicaState.READY, ReplicaState.DRAINING):
        slot.after_stop = "relaunch"
        slot.failures = 0
        if slot.state is ReplicaState.READY and not request.force:
            fleet.lives.drain(slot, reason, time())
        elif not _drains_on(slot, request.force):
            fleet.lives.stop(slot, reason, force=request.force)
    elif slot.state in (ReplicaState.FAILED, ReplicaState.CRASH_LOOP):
        slot.failures, slot.retry_at = 0, time()
        fleet.journal.add("replica.restarting", name, f"{reason}: its history of failures is forgotten")
    else:
        raise RefusedError(
            "conflict", f"{name} is {slot.state}: there is nothing to restart", "see `tritonfleet ps`"
        )
    fleet.wake()
    return Accepted(f"{name} restarts", fleet.journal.seq)

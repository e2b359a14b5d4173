"""(what is wanted, what is there, now) → what to do, each with its reason. Called again until it is content.

A pool's replicas are slots (``main-0``, ``main-1`` …). Too few: the lowest free ordinals are created. Too
many: first those that failed go, then those that are not ready, then the ready ones from the highest
ordinal down. A replica launched with an older configuration is replaced one at a time: a new one is started
beside it where a device is free, and only when more are ready than wanted is an old one drained. One that is
worn out is replaced in the same way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from tritonfleet.core.model import Device, Replica, ReplicaState
from tritonfleet.core.placement import DeviceView, place

LEAVING = (ReplicaState.DRAINING, ReplicaState.STOPPING)
BROKEN = (ReplicaState.FAILED, ReplicaState.CRASH_LOOP)
COMING = (ReplicaState.PENDING, ReplicaState.STARTING, ReplicaState.LOADING)


@dataclass(frozen=True, slots=True)
class PoolTarget:
    """``why`` says where the size comes from: "scaled by user", "min of the fleet file" …"""

    name: str
    size: int
    config_hash: str
    per_device: int = 1
    why: str = ""
    per_replica: int = 1  # devices of one replica


@dataclass(frozen=True, slots=True)
class Worn:
    """Why a ready replica is to be replaced by one of the same configuration. ``urgent``: it does harm, so
    it goes even if it is the last one ready and no device is free for another beside it."""

    reason: str
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Action:
    """``create`` a slot, ``launch`` it on ``devices``, leave it ``pending``, ``keep`` it although it is worn,
    ``drain`` it, ``stop`` its process, ``forget`` the slot (once its process is gone, if it has one)."""

    kind: Literal["create", "launch", "pending", "keep", "drain", "stop", "forget"]
    replica: str
    pool: str
    reason: str
    devices: tuple[str, ...] = ()


def reconcile(
    targets: Sequence[PoolTarget],
    replicas: Sequence[Replica],
    devices: Sequence[Device],
    *,
    held: frozenset[str] = frozenset(),
    returning: frozenset[str] = frozenset(),
    drained: frozenset[str] = frozenset(),
    view: DeviceView | None = None,
    worn: Mapping[str, Worn] = MappingProxyType({}),
    now: float,
) -> list[Action]:
    """``held``: slots that a person emptied and that stay so; ``returning``: slots that drain or stop only to
    be launched again; ``drained``: draining replicas of which every router says that nothing is in flight
    there any more; ``view``: more about the devices, as `placement.place` takes it; ``worn``: ready replicas
    to be replaced, by id."""
    known = {target.name: target for target in targets}
    actions: list[Action] = []
    for replica in replicas:
        actions += _finish_draining(replica, drained, now)
    for target in targets:
        own = [replica for replica in replicas if replica.pool == target.name]
        actions += _resize(target, own, held, returning, devices, replicas, targets, view, worn)
    for replica in replicas:
        if replica.pool not in known and replica.state not in LEAVING:
            actions.append(_let_go(replica, f"pool {replica.pool} is not in the fleet file any more"))
    going = {action.replica for action in actions}
    shares = _shares(replicas, known)
    for replica in sorted(replicas, key=lambda r: (r.pool, r.ordinal)):
        if replica.id in going or replica.id in held or replica.pool not in known:
            continue
        actions += _launch(replica, known[replica.pool], devices, shares, view, now)
    return actions


def _finish_draining(replica: Replica, drained: frozenset[str], now: float) -> list[Action]:
    if replica.state is not ReplicaState.DRAINING:
        return []
    if replica.id in drained:
        return [Action("stop", replica.id, replica.pool, "drained: nothing is in flight any more")]
    if replica.drain_deadline is not None and now >= replica.drain_deadline:
        left = "an unknown number of" if replica.in_flight is None else str(replica.in_flight)
        what = f"{left} requests in flight" if replica.in_flight != 0 else "a stream or a sequence open"
        return [Action("stop", replica.id, replica.pool, f"drain timeout with {what}")]
    return []


def _shares(replicas: Sequence[Replica], targets: Mapping[str, PoolTarget]) -> dict[str, float]:
    """Device id → how much of it is taken by replicas that have, or are about to have, a process on it."""
    shares: dict[str, float] = {}
    for replica in replicas:
        if replica.state is ReplicaState.PENDING or replica.state in BROKEN:
            continue
        target = targets.get(replica.pool)
        for device in replica.devices:
            shares[device] = shares.get(device, 0.0) + (1 / target.per_device if target else 1.0)
    return shares


def _let_go(replica: Replica, reason: str) -> Action:
    if replica.state is ReplicaState.READY:
        return Action("drain", replica.id, replica.pool, reason)
    if replica.state in (ReplicaState.STARTING, ReplicaState.LOADING):
        return Action("stop", replica.id, replica.pool, reason)
    return Action("forget", replica.id, replica.pool, reason)


def _removal_order(replica: Replica) -> tuple[int, int]:
    """The first to go sorts first."""
    rank = 0 if replica.state in BROKEN else 1 if replica.state in COMING else 2
    return rank, -replica.ordinal


def _resize(
    target: PoolTarget,
    replicas: Sequence[Replica],
    held: frozenset[str],
    returning: frozenset[str],
    devices: Sequence[Device],
    everyone: Sequence[Replica],
    targets: Sequence[PoolTarget],
    view: DeviceView | None,
    worn: Mapping[str, Worn],
) -> list[Action]:
    staying = held | returning
    active = [replica for replica in replicas if replica.state not in LEAVING or replica.id in staying]
    outdated = [replica for replica in active if _is_worn(replica, worn) or _is_outdated(replica, target)]
    current = [replica for replica in active if replica not in outdated]
    if len(active) < target.size:
        taken = {replica.ordinal for replica in replicas}
        free = (ordinal for ordinal in range(len(taken) + target.size + 1) if ordinal not in taken)
        reason = f"{target.size} wanted, {len(active)} there ({target.why})"
        return [
            Action("create", f"{target.name}-{next(free)}", target.name, reason)
            for _ in range(target.size - len(active))
        ]
    if outdated and len(active) - target.size <= 1:
        return _roll(target, current, outdated, replicas, devices, everyone, targets, held, view, worn)
    surplus = len(active) - target.size
    first = sorted(outdated, key=_removal_order) + sorted(current, key=_removal_order)
    reason = f"{target.size} wanted, {len(active)} there ({target.why})"
    return [_let_go(replica, reason) for replica in first[: max(surplus, 0)]]


def _is_outdated(replica: Replica, target: PoolTarget) -> bool:
    """Whether a process runs, or will, with another configuration than the one wanted now."""
    if replica.state is ReplicaState.PENDING or replica.state in LEAVING:
        return False
    return replica.config_hash != target.config_hash


def _is_worn(replica: Replica, worn: Mapping[str, Worn]) -> bool:
    return replica.id in worn and replica.state is ReplicaState.READY


def _is_coming(replica: Replica, *, room: bool) -> bool:
    """Whether waiting for it is any use: what waits for a device comes only if one is free."""
    return replica.state is not ReplicaState.READY and (room or replica.state is not ReplicaState.PENDING)


def _is_last(replica: Replica, replicas: Sequence[Replica]) -> bool:
    """Whether no other one of its pool is ready. ``replicas``: those of the pool."""
    return not any(other.state is ReplicaState.READY for other in replicas if other.id != replica.id)


def _roll(
    target: PoolTarget,
    current: Sequence[Replica],
    outdated: Sequence[Replica],
    replicas: Sequence[Replica],
    devices: Sequence[Device],
    everyone: Sequence[Replica],
    targets: Sequence[PoolTarget],
    held: frozenset[str],
    view: DeviceView | None,
    worn: Mapping[str, Worn],
) -> list[Action]:
    """The next step of replacing outdated and worn replicas: at most one more than wanted, never fewer ready
    by will where a device is free for the surplus one."""
    worst = min(outdated, key=_removal_order)
    reason = f"launched with configuration {worst.config_hash or 'unknown'}, wanted is {target.config_hash}"
    why_worn = None if _is_outdated(worst, target) else worn[worst.id]
    reason = why_worn.reason if why_worn else reason
    if worst.state is not ReplicaState.READY:
        return [_let_go(worst, reason)]
    if any(replica.state in LEAVING for replica in replicas):
        return []  # one at a time
    shares = _shares(everyone, {pool.name: pool for pool in targets})
    room = bool(place(devices, shares, target.per_device, target.per_replica, view=view))
    if any(_is_coming(replica, room=room) for replica in current if replica.id not in held):
        return []  # the replacement is on its way
    if len(current) + len(outdated) > target.size:
        return [_let_go(worst, reason)]
    if not room and why_worn and not why_worn.urgent and _is_last(worst, replicas):
        said = f"{reason}; it is the last one ready, and no device is free for a replacement beside it"
        return [Action("keep", worst.id, worst.pool, said)] if worst.reason != said else []
    if not room:
        return [_let_go(worst, f"{reason}; no free device for a replacement beside it")]
    taken = {replica.ordinal for replica in replicas}
    ordinal = next(number for number in range(len(taken) + 1) if number not in taken)
    why = f"replacement for {worst.id}: {reason}"
    return [Action("create", f"{target.name}-{ordinal}", target.name, why)]


def _launch(
    replica: Replica,
    target: PoolTarget,
    devices: Sequence[Device],
    shares: dict[str, float],
    view: DeviceView | None,
    now: float,
) -> list[Action]:
    if replica.state in BROKEN:
        if replica.retry_at is not None and now < replica.retry_at:
            return []
    elif replica.state is not ReplicaState.PENDING:
        return []
    found = place(devices, shares, target.per_device, target.per_replica, view=view)
    if not found:
        if replica.state is ReplicaState.PENDING and replica.reason == found.reason:
            return []
        return [Action("pending", replica.id, replica.pool, found.reason)]
    for name in found.ids:
        shares[name] = shares.get(name, 0.0) + 1 / target.per_device
    return [Action("launch", replica.id, replica.pool, found.reason, found.ids)]

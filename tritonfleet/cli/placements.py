"""Where new replicas would go: the controller's own decisions, taken ahead of it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from tritonfleet.cli.plan import PoolWish, wished_size
from tritonfleet.core.model import Device, Replica, ReplicaState
from tritonfleet.core.placement import DeviceView
from tritonfleet.core.reconcile import PoolTarget, reconcile
from tritonfleet.core.wire import FleetSnapshot


@dataclass(frozen=True, slots=True)
class Placed:
    """A replica that would be launched, on ``devices``; () where it would wait, for ``reason``."""

    replica: str
    devices: tuple[str, ...]
    reason: str


def placements(
    wishes: Sequence[PoolWish],
    snapshot: FleetSnapshot | None,
    devices: Sequence[Device],
    view: DeviceView,
    now: float,
) -> tuple[Placed, ...]:
    """Of the replicas that would be created first. Of those that replace others one by one it is the first.

    ``view``: more about the devices, as far as it is known.
    """
    running = {pool.name: pool for pool in snapshot.pools} if snapshot is not None else {}
    targets = [
        PoolTarget(
            wish.name,
            wished_size(wish, running.get(wish.name)),
            wish.config_hash,
            wish.per_device,
            "plan",
            wish.per_replica,
        )
        for wish in wishes
    ]
    there = list(snapshot.replicas) if snapshot is not None else []
    held = frozenset(replica.id for replica in there if replica.held)
    created = [
        Replica(action.replica, action.pool, 0, ReplicaState.PENDING, now, "", "")
        for action in reconcile(targets, there, devices, held=held, view=view, now=now)
        if action.kind == "create"
    ]
    ids = {replica.id for replica in created}
    return tuple(
        Placed(action.replica, action.devices, action.reason)
        for action in reconcile(targets, [*there, *created], devices, held=held, view=view, now=now)
        if action.replica in ids and action.kind in ("launch", "pending")
    )

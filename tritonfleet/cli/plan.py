"""What `up` would change: the file's fleet against the running one. Pure.

Only a preview, for `--dry-run` and for asking before ready replicas go: the controller decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tritonfleet.core.wire import FleetSnapshot, PoolSnapshot, ReplicaState


@dataclass(frozen=True, slots=True)
class PoolWish:
    """What the file (and ``--scale``) say of one pool. ``size`` None: the one `scale` pinned, or, if the pool
    is ``autoscaled`` now and is to be, the one that its load has set, in bounds; else ``initial``."""

    name: str
    minimum: int
    maximum: int
    initial: int
    config_hash: str
    size: int | None = None
    per_device: int = 1
    per_replica: int = 1  # devices of one replica
    autoscaled: bool = False  # whether its load sets its size


@dataclass(frozen=True, slots=True)
class Plan:
    """``changes`` in words; ``removed`` are the ids of ready replicas that would go without a successor,
    ``replaced`` those that would be replaced one by one."""

    changes: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()


def plan(wishes: Sequence[PoolWish], snapshot: FleetSnapshot | None, router_hash: str = "") -> Plan:
    """``snapshot`` is None when nothing runs; ``router_hash`` is what the file says of the router."""
    if snapshot is None:
        return Plan(
            tuple(
                f"start pool {w.name} with {_count(_size(w, None))}, configuration {w.config_hash}"
                for w in wishes
            )
        )
    changes: list[str] = []
    removed: list[str] = []
    replaced: list[str] = []
    running = {pool.name: pool for pool in snapshot.pools}
    ready = _ready_by_pool(snapshot)
    for wish in wishes:
        pool = running.get(wish.name)
        if pool is None:
            size = _size(wish, None)
            changes.append(f"start pool {wish.name} with {_count(size)}, configuration {wish.config_hash}")
            continue
        size = wished_size(wish, pool)
        here = ready.get(wish.name, [])
        if size != pool.desired:
            changes.append(f"scale pool {wish.name} from {pool.desired} to {size}")
        removed += here[size:]
        if wish.config_hash != pool.config_hash:
            replaced += here[:size]
            changes.append(
                f"replace the replicas of pool {wish.name} one by one: its configuration changes from "
                f"{pool.config_hash} to {wish.config_hash}"
            )
        if (wish.minimum, wish.maximum) != (pool.minimum, pool.maximum):
            changes.append(
                f"bounds of pool {wish.name}: {pool.minimum}..{pool.maximum} become "
                f"{wish.minimum}..{wish.maximum}"
            )
    for name in running.keys() - {wish.name for wish in wishes}:
        changes.append(f"remove pool {name} with {_count(len(ready.get(name, [])))} ready")
        removed += ready.get(name, [])
    if router_hash and snapshot.router.config_hash not in ("", router_hash):
        changes.append("the router's settings change")
    return Plan(tuple(changes), tuple(removed), tuple(replaced))


def wished_size(wish: PoolWish, running: PoolSnapshot | None) -> int:
    """The size a pool would have; ``running`` is what it is now."""
    kept = running is not None and (running.pinned or (running.autoscaled and wish.autoscaled))
    return _size(wish, running.desired if running is not None and kept else None)


def _size(wish: PoolWish, pinned: int | None) -> int:
    """As the controller decides it: the command line, else what `scale` pinned, else the file's."""
    if wish.size is not None:
        return wish.size
    return max(wish.minimum, min(wish.initial if pinned is None else pinned, wish.maximum))


def _count(number: int) -> str:
    return f"{number} replica" if number == 1 else f"{number} replicas"


def _ready_by_pool(snapshot: FleetSnapshot) -> Mapping[str, list[str]]:
    """Ids of ready replicas by pool, lowest ordinal first: the highest go first when a pool shrinks."""
    found: dict[str, list[str]] = {}
    for replica in sorted(snapshot.replicas, key=lambda replica: replica.ordinal):
        if replica.state is ReplicaState.READY:
            found.setdefault(replica.pool, []).append(replica.id)
    return found

"""When is a wait over? Pure: a snapshot goes in, a verdict with its reason comes out."""

from collections.abc import Collection
from dataclasses import dataclass

from tritonfleet.core.wire import FleetSnapshot, PoolSnapshot, Replica, ReplicaState, WorkerInfo

HOPELESS_AFTER = 3  # lives of a router worker that end at once, in a row


@dataclass(frozen=True, slots=True)
class Verdict:
    """``waiting_for`` is empty when everything awaited has come. ``broken`` are replicas, ``broken_workers``
    the router's workers, for which waiting is no use: they fail again and again."""

    waiting_for: str = ""
    broken: tuple[Replica, ...] = ()
    broken_workers: tuple[WorkerInfo, ...] = ()

    @property
    def done(self) -> bool:
        return not self.waiting_for


def is_amiss(worker: WorkerInfo) -> bool:
    """Whether a person has to look at it."""
    return not worker.running or worker.outdated or worker.short_lives >= HOPELESS_AFTER


def settled(snapshot: FleetSnapshot, pools: Collection[str] | None = None) -> Verdict:
    """Whether ``pools`` (None: all) have their desired size, every replica of it ready with the pool's
    present configuration or emptied by `drain`, none left over, and the routers know."""
    wanted = [pool for pool in snapshot.pools if pools is None or pool.name in pools]
    awaited = [text for pool in wanted if (text := _pool_awaits(snapshot, pool))]
    broken = tuple(
        replica
        for pool in wanted
        for replica in _of(snapshot, pool)
        if replica.state is ReplicaState.CRASH_LOOP and replica.config_hash == pool.config_hash
    )
    awaited += [
        f"router worker {worker.index}: {worker.reason or 'not running'}"
        for worker in snapshot.router.workers
        if not worker.running or worker.outdated
    ]
    if not awaited:
        awaited += [
            f"router worker {worker.index} to learn of the replicas"
            for worker in snapshot.router.workers
            if worker.table_revision < snapshot.table_revision
        ]
    workers = tuple(one for one in snapshot.router.workers if one.short_lives >= HOPELESS_AFTER)
    return Verdict("; ".join(awaited), broken, workers)


def _pool_awaits(snapshot: FleetSnapshot, pool: PoolSnapshot) -> str:
    """What is missing in one pool, in words; "" when nothing is."""
    replicas = _of(snapshot, pool)
    current = [
        replica
        for replica in replicas
        if replica.state is ReplicaState.READY and replica.config_hash == pool.config_hash
    ]
    held = [replica for replica in replicas if replica.held and replica.state is ReplicaState.PENDING]
    others = [replica for replica in replicas if replica not in current and replica not in held]
    if len(current) + len(held) == pool.desired and not others:
        return ""
    text = f"{pool.name}: {len(current)} of {pool.desired} ready"
    if others:
        text += " (" + ", ".join(f"{replica.id} {replica.state}" for replica in others) + ")"
    return text


def _of(snapshot: FleetSnapshot, pool: PoolSnapshot) -> list[Replica]:
    return [replica for replica in snapshot.replicas if replica.pool == pool.name]


def changed(
    before: dict[str, tuple[str, ReplicaState]], snapshot: FleetSnapshot
) -> tuple[list[Replica], list[str], dict[str, tuple[str, ReplicaState]]]:
    """Replicas whose state or process differs from ``before``, ids that are gone, and the new ``before``."""
    now = {replica.id: (replica.instance, replica.state) for replica in snapshot.replicas}
    news = [replica for replica in snapshot.replicas if before.get(replica.id) != now[replica.id]]
    return news, [name for name in before if name not in now], now

"""Rolling changes: whether the replicas of a new configuration come up, and the revisions a fleet has had.

`core.reconcile` replaces replicas one by one. Here is decided what that has come to: a launch of the new
configuration that fails again and again, or for a reason that no further try can mend, has failed the change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tritonfleet.core.model import Replica, ReplicaState
from tritonfleet.core.reconcile import BROKEN, LEAVING

State = Literal["rolling", "deployed", "failed"]


@dataclass(frozen=True, slots=True)
class LaunchFailure:
    """How a replica's last launch ended. ``hopeless``: it was not ready within its startup timeout, or cannot
    succeed before something is changed."""

    what: str
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class PoolProgress:
    """``updated``: ready with the pool's configuration; ``outdated``: not replaced yet, or leaving;
    ``replica``: the one that failed."""

    pool: str
    config_hash: str
    state: State
    reason: str
    wanted: int
    updated: int
    outdated: int
    replica: str = ""


@dataclass(frozen=True, slots=True)
class Revision:
    """One state that the fleet was asked to have. ``by``: "start", "up", "undo", or "rollback", which nobody
    asked for. ``status``: "rolling", "deployed", "rolled_back", "failed" (there was nothing to go back to),
    "superseded" by the next one. ``rolling``: the pools whose replicas it starts or replaces."""

    number: int
    at: float
    by: str
    file: str
    changes: str
    hashes: dict[str, str] = field(default_factory=dict)  # pool → configuration
    rolling: tuple[str, ...] = ()
    status: str = "rolling"
    reason: str = ""
    replica: str = ""  # the one that failed
    settled_at: float | None = None


@dataclass(frozen=True, slots=True)
class RolloutStatus:
    """``revisions`` oldest first; the last one is what the fleet is, or becomes, now."""

    revisions: tuple[Revision, ...]
    pools: tuple[PoolProgress, ...]


@dataclass(frozen=True, slots=True)
class UndoRequest:
    """Back to a revision; None: to the last one that was deployed and is not what runs now."""

    revision: int | None = None
    by: str = "user"


def last_asked(status: RolloutStatus) -> Revision | None:
    """What somebody wanted the fleet to be, whatever has become of it."""
    return next((one for one in reversed(status.revisions) if one.by != "rollback"), None)


def progress(
    pool: str,
    config_hash: str,
    size: int,
    replicas: Sequence[Replica],
    failures: Mapping[str, LaunchFailure],
) -> PoolProgress:
    """Of the change of ``pool`` to ``config_hash``. ``replicas``: those of the pool; ``failures`` by replica.

    It has failed when a replica of that configuration is in a crash loop or failed hopelessly. It is done
    when none of another one is left and all that have a device are ready; of a pool that sleeps that is not
    known before it wakes.
    """
    held = [one for one in replicas if one.held]
    active = [one for one in replicas if one.state not in LEAVING and not one.held]
    launched = [one for one in active if one.state is not ReplicaState.PENDING]
    current = [one for one in launched if one.config_hash == config_hash]
    ready = sum(one.state is ReplicaState.READY for one in current)
    outdated = len(launched) - len(current)
    outdated += sum(one.state in LEAVING and one.config_hash != config_hash for one in replicas)

    def told(state: State, reason: str, replica: str = "") -> PoolProgress:
        return PoolProgress(pool, config_hash, state, reason, size, ready, outdated, replica)

    for one in current:
        failure = failures.get(one.id, LaunchFailure(one.reason))
        if one.state is ReplicaState.CRASH_LOOP:
            return told("failed", f"{one.id} fails again and again: {failure.what}", one.id)
        if one.state in BROKEN and failure.hopeless:
            return told("failed", f"{one.id} failed: {failure.what}", one.id)
    count = f"{ready} of {size} ready with configuration {config_hash}"
    if outdated:
        return told("rolling", f"{count}, {outdated} to replace")
    if ready < len(current) or len(active) + len(held) < size:
        return told("rolling", count)
    if not replicas:
        return told(
            "rolling", f"no replica is wanted now; the next one shows what configuration {config_hash} does"
        )
    return told("deployed", count)

"""Rolling changes as they happen: each tick looks how the newest revision does; one that fails is taken back.

A pool that fails goes back to what the last revision that was deployed says of it; the other pools stay with
the new one. That is a revision of its own, so that history tells all that the fleet has been.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonfleet.config import FleetSpec, pool_hash
from tritonfleet.controller import saved
from tritonfleet.controller.journal import Journal
from tritonfleet.controller.revisions import Revisions
from tritonfleet.controller.saved import Write
from tritonfleet.core.rollout import PoolProgress, Revision, RolloutStatus, progress
from tritonfleet.drivers.clock import steady_time as time

if TYPE_CHECKING:
    from tritonfleet.controller.fleet import Fleet


class Rollouts:
    """Made before the fleet's loop; `start` says what the fleet is to be."""

    def __init__(self, path: Path, journal: Journal, write: Write = saved.write) -> None:
        self.revisions = Revisions(path, write)
        self._journal = journal

    def start(self, spec: FleetSpec, file: Path) -> FleetSpec:
        """The controller begins with this file. Returns what it is to run: that, unless it has been rolled
        back or undone since it was brought here, which only `up` overrules."""
        kept = self.revisions.instead_of(spec)
        if kept is not None:
            revision, running = kept
            said = f"{file.name} is as it was; revision {revision.number} ({revision.changes}) goes on"
            self._journal.add("rollout.kept", "fleet", f"{said}: `tritonfleet up` tries the file again")
            return running
        if not self.revisions.runs_already(spec):
            self.begin(spec, None, file, "start", "started with this file")
        return spec

    def begin(self, spec: FleetSpec, before: FleetSpec | None, file: Path, by: str, changes: str) -> Revision:
        """The fleet is to be as ``spec`` says from now on; ``before``: what it was, None for nothing."""
        hashes = {name: pool_hash(spec, name) for name in spec.pools}
        old = {name: pool_hash(before, name) for name in before.pools} if before else {}
        rolling = tuple(name for name, config in hashes.items() if old.get(name) != config)
        return self._add(Revision(0, time(), by, str(file), changes, hashes, rolling), spec)

    def _add(self, revision: Revision, spec: FleetSpec, **settled: Any) -> Revision:
        added = self.revisions.add(revision, spec, **settled)
        self._journal.add(
            "rollout.begun", "fleet", f"revision {added.number} by {added.by}: {added.changes}",
            revision=added.number,
        )  # fmt: skip
        return added

    def status(self, fleet: "Fleet") -> RolloutStatus:
        return RolloutStatus(self.revisions.all, tuple(_progress(fleet, name) for name in fleet.spec.pools))

    def review(self, fleet: "Fleet", now: float) -> None:
        """How the newest revision does; take back what fails of it."""
        current = self.revisions.current
        if current is None or current.status not in ("rolling", "failed"):
            return
        found = [_progress(fleet, name) for name in current.rolling if name in fleet.spec.pools]
        failed = next((one for one in found if one.state == "failed"), None)
        if failed is not None:
            self._failed(fleet, current, failed, now)
        elif all(one.state == "deployed" for one in found):
            said = "; ".join(f"{one.pool} {one.reason}" for one in found) or "nothing had to be replaced"
            self.revisions.change(current.number, status="deployed", reason=said, settled_at=now)
            self._journal.add("rollout.deployed", "fleet", f"revision {current.number}: {said}")

    def _failed(self, fleet: "Fleet", current: Revision, failed: PoolProgress, now: float) -> None:
        good = self._good(failed, current)
        if good is None:
            if current.status != "failed":
                self.revisions.change(
                    current.number, status="failed", reason=failed.reason, replica=failed.replica
                )
                said = f"revision {current.number}: {failed.reason}; there is nothing to go back to"
                self._journal.add("rollout.failed", failed.pool, f"{said}: it is tried again and again")
            return
        earlier, spec = good
        self._journal.add(
            "rollout.rolled_back", failed.pool,
            f"revision {current.number} is stopped, the pool goes back to revision {earlier.number}: "
            f"{failed.reason}", revision=current.number, to=earlier.number,
        )  # fmt: skip
        before = fleet.spec
        pools = {**before.pools, failed.pool: spec.pools[failed.pool]}
        fleet.spec = before.model_copy(update={"pools": pools})
        hashes = {name: pool_hash(fleet.spec, name) for name in pools}
        changes = f"pool {failed.pool} as in revision {earlier.number}"
        back = Revision(0, now, "rollback", current.file, changes, hashes, current.rolling)
        why = {"reason": failed.reason, "replica": failed.replica}
        self._add(back, fleet.spec, status="rolled_back", settled_at=now, **why)
        fleet.wake()

    def _good(self, failed: PoolProgress, current: Revision) -> tuple[Revision, FleetSpec] | None:
        """The newest revision that was deployed with another configuration of the pool. None, too, if this is
        where a rollback has brought it: what served before and now fails is not mended by going on back."""
        for revision, spec in self.revisions.deployed():
            if failed.pool not in spec.pools:
                continue
            if pool_hash(spec, failed.pool) != failed.config_hash:
                return revision, spec
            if current.by == "rollback":
                return None
        return None


def _progress(fleet: "Fleet", pool: str) -> PoolProgress:
    own = [replica for replica in fleet.replicas() if replica.pool == pool]
    failures = {slot.id: slot.failure for slot in fleet.slots.values() if slot.failure is not None}
    return progress(pool, pool_hash(fleet.spec, pool), fleet.size_of(pool), own, failures)

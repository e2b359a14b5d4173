"""Bringing a new replica up to date: what clients have set on the fleet is sent to it before it serves."""

import asyncio
import logging
from typing import TYPE_CHECKING

from tritonfleet.controller.slot import Slot
from tritonfleet.controller.watch import ReplicaWatch
from tritonfleet.core.answers import status_name
from tritonfleet.core.model import ReplicaState
from tritonfleet.core.settings import SHM, Setting

if TYPE_CHECKING:
    from tritonfleet.controller.fleet import Fleet

log = logging.getLogger(__name__)

ATTEMPTS = 3
RETRY_S = 0.5
ALREADY_EXISTS = 6  # gRPC status: a region that is registered already


async def replay(fleet: "Fleet", slot: Slot, watch: ReplicaWatch) -> None:
    """Send ``slot`` what it has not had of the fleet's settings, then look at it again: with nothing left
    it becomes ready in the same turn, so no change can slip in between. A setting that it does not take is
    tried again, then the launch has failed, as if the model had not loaded."""
    problem = ""
    for attempt in range(ATTEMPTS):
        if not _loads(slot, watch):
            return  # it ended or was given up meanwhile
        revision, left = fleet.settings.revision, fleet.settings.left_for(slot.pool, slot.settings_seen)
        again = f", again after {problem}" if problem else ""
        slot.enter(ReplicaState.LOADING, f"replaying {counted(len(left))}{again}")
        problem = await _send(fleet, slot, watch, left)
        if not _loads(slot, watch):
            return
        if not problem:
            slot.settings_seen = revision
            slot.settings_sent += len(left)
            fleet.lives.observe(slot, await watch.probe())
            return
        if attempt < ATTEMPTS - 1:
            await asyncio.sleep(RETRY_S)
    fleet.lives.failed(
        slot, "replica.failed", f"a setting of the fleet could not be replayed: {problem}", by_device=False
    )


def _loads(slot: Slot, watch: ReplicaWatch) -> bool:
    """Whether the slot is still that of the watched server, and waits for it."""
    loading = slot.state in (ReplicaState.STARTING, ReplicaState.LOADING)
    return loading and slot.instance is not None and slot.instance.instance == watch.instance


async def _send(fleet: "Fleet", slot: Slot, watch: ReplicaWatch, left: tuple[Setting, ...]) -> str:
    """Returns what went wrong, or ""."""
    timeout = fleet.pool_of(slot).startup_timeout
    for setting in left:
        answer = await watch.client.call(setting.path, setting.message, timeout, {})
        if answer.status in (0, ALREADY_EXISTS):
            if setting.kind in SHM and not setting.ending:
                fleet.settings.accepted(setting, watch.instance, fleet.lives.watches)
            continue
        problem = f"{setting}: {status_name(answer.status)}: {answer.text}"
        if not setting.dispensable(answer.status):
            return problem
        fleet.journal.add("setting.skipped", slot.id, f"the replica serves without {problem}")
    return ""


def counted(settings: int) -> str:
    return f"{settings} setting" if settings == 1 else f"{settings} settings"

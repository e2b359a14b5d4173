"""`down`: the routers finish their calls and end, then the replicas, then what they left on disk goes.

The routers go first: while they drain, every replica is still there for what is in flight, and new clients
are turned away by a closed port instead of by errors. Routers that are not ours to end (`router.external`)
are told to send nothing more, which they answer with UNAVAILABLE.
"""

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.lives import STOP_MARGIN_S
from tritonfleet.controller.slot import Slot
from tritonfleet.core.model import ReplicaState
from tritonfleet.core.wire import Accepted, DownRequest
from tritonfleet.drivers.clock import steady_time as time

log = logging.getLogger(__name__)

AGAIN_S = 2.0
POLL_S = 0.05  # between two looks at what routers have reported


class Shutdown:
    """Begins once; ``done`` is set when nothing of the fleet runs any more."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._task: asyncio.Task[None] | None = None
        self._force = asyncio.Event()
        self.done = asyncio.Event()

    def begin(self, request: DownRequest) -> Accepted:
        """A second request with ``force`` hastens the first."""
        fleet = self._fleet
        if request.force:
            self._force.set()
        if self._task is None:
            fleet.stopping = True
            how = "at once" if request.force else "draining first"
            event = fleet.journal.add("fleet.stopping", "fleet", f"down by {request.by}, {how}")
            self._task = asyncio.create_task(self._run(request))
            return Accepted(f"fleet {fleet.spec.name} goes down, {how}", event.seq)
        return Accepted("it is going down already", fleet.journal.seq)

    async def _run(self, request: DownRequest) -> None:
        """What fails is tried again: half a fleet that nobody looks after is no end."""
        while True:
            try:
                return await self._end(request)
            except Exception as error:  # `down` would wait for ever, and what is left run on
                log.exception("the fleet cannot be ended")
                self._fleet.journal.add("controller.error", "fleet", f"ending it is tried again: {error!r}")
            await asyncio.sleep(AGAIN_S)

    async def _end(self, request: DownRequest) -> None:
        fleet = self._fleet
        patience = fleet.spec.router.drain_timeout if request.timeout_s is None else request.timeout_s
        await self._unless_forced(fleet.workers.stop(patience))
        if self._force.is_set():
            await fleet.workers.stop(0.0)
        elif fleet.spec.router.external:  # they run on: what they hold ends before the replicas do
            await self._unless_forced(self._emptied(patience))
        stops = asyncio.gather(*(self._stop(slot) for slot in list(fleet.slots.values())))
        await self._unless_forced(stops)
        if self._force.is_set():
            await asyncio.gather(*(self._stop(slot) for slot in list(fleet.slots.values())))
        for instance in await fleet.driver.list():  # a launch that was under way
            await fleet.lives.end(instance, 0.0)
        fleet.slots.clear()
        fleet.journal.add("fleet.stopped", "fleet", "nothing of it runs any more")
        self.done.set()

    async def _emptied(self, patience: float) -> None:
        """Until no router has anything in flight, or ``patience`` is over; from now on they send nothing.
        What does not serve yet is ended meanwhile: or calls would come to it as soon as it does."""
        fleet, deadline = self._fleet, time() + patience
        serving = [slot for slot in fleet.slots.values() if slot.state.serving]
        coming = [slot for slot in fleet.slots.values() if not slot.state.serving]
        ended = asyncio.gather(*(self._stop(slot) for slot in coming))
        for slot in serving:
            fleet.lives.drain(slot, "the fleet goes down", time(), patience)
        while time() < deadline and not all(fleet.is_drained(slot, time()) for slot in serving):  # noqa: ASYNC110 # reports come four times a second
            await asyncio.sleep(POLL_S)
        await ended

    async def _unless_forced(self, work: Awaitable[Any]) -> None:
        """Wait for ``work``, or until somebody says force."""
        task: asyncio.Future[Any] = asyncio.ensure_future(work)
        forced = asyncio.create_task(self._force.wait())
        await asyncio.wait({task, forced}, return_when=asyncio.FIRST_COMPLETED)
        for other in (task, forced):
            other.cancel()
            with suppress(asyncio.CancelledError):
                await other

    async def _stop(self, slot: Slot) -> None:
        fleet = self._fleet
        slot.held, slot.after_stop = False, "forget"
        slot.retry_at = None
        slot.enter(ReplicaState.STOPPING, "the fleet goes down")
        if slot.launching is not None:  # a process that is just being made would be left behind
            await asyncio.wait({slot.launching})  # which, unlike gather, does not pass a cancel on to it
        instance = slot.instance
        if instance is None:
            return
        grace = 0.0 if self._force.is_set() else fleet.pool_of(slot).triton.exit_timeout + STOP_MARGIN_S
        status = await fleet.lives.end(instance, grace)
        fleet.journal.add("replica.stopped", slot.id, f"{status}: the fleet goes down")
        slot.instance = None

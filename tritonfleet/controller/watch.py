"""Asks one replica, again and again: is it ready, what are its counters. One task per running instance.

While it loads, a closed port costs one refused connection per question, so it is asked often; when it is
ready, at the pool's health interval. Statistics are read in between, at most every two seconds.
"""

import asyncio
import logging
from collections.abc import Callable

from tritonfleet.controller.slot import Reading, Slot
from tritonfleet.core.lifecycle import Probe
from tritonfleet.core.model import ReplicaState
from tritonfleet.core.stats import ModelCounters, rates
from tritonfleet.drivers.clock import steady_time as time
from tritonfleet.triton.capacity import read_capacity
from tritonfleet.triton.client import ProbeError, ReplicaClient

log = logging.getLogger(__name__)

LOADING_INTERVAL_S = 0.15
STATISTICS_INTERVAL_S = 2.0
COUNTS_LATE_S = 0.25  # by so much Triton counts a request after it has answered it, on a busy machine
COUNTS_LATEST_S = 2.0


class ReplicaWatch:
    """``observe`` is told every probe and ``counted`` every reading, in order; the last reading is kept in
    the slot."""

    def __init__(
        self,
        slot: Slot,
        client: ReplicaClient,
        *,
        interval_s: float,
        timeout_s: float,
        observe: Callable[[Slot, Probe], None],
        counted: Callable[[str, tuple[ModelCounters, ...]], None] = lambda _instance, _counters: None,
    ) -> None:
        self._slot, self.client = slot, client
        self.instance = slot.instance.instance if slot.instance else ""
        self._interval_s, self._timeout_s = interval_s, timeout_s
        self._observe, self._counted = observe, counted
        self.reading = asyncio.Lock()  # statistics are read one after the other: they must come in order
        self._slots_of: frozenset[str] = frozenset()  # the models whose slots are known
        self.probed = asyncio.Event()  # after the first answer, or the first lack of one

    async def run(self) -> None:
        try:
            while True:
                self._observe(self._slot, await self.probe())
                self.probed.set()
                ready = self._slot.state is ReplicaState.READY
                answers = ready and not self._slot.failed_probes  # or it is only probed, which is to be soon
                if answers:
                    await self._read_capacity()
                if answers and self._statistics_due():
                    await self.read_statistics()
                await asyncio.sleep(self._interval_s if ready else LOADING_INTERVAL_S)
        finally:
            await self.client.close()

    async def _read_capacity(self) -> None:
        """Whenever other models are ready than before."""
        ready = frozenset(model.name for model in self._slot.models if model.ready)
        if ready != self._slots_of:
            capacity = await read_capacity(self.client, sorted(ready), self._timeout_s)
            self._slot.slots, self._slot.instances = capacity.slots, capacity.instances
            self._slot.decoupled, self._slot.steps = capacity.decoupled, capacity.steps
            self._slots_of = ready

    async def probe(self) -> Probe:
        try:
            models = await self.client.models(self._timeout_s)
        except ProbeError as error:
            return Probe(time(), error=str(error), refused=error.refused)
        return Probe(time(), models)

    def _statistics_due(self) -> bool:
        reading = self._slot.reading
        return reading is None or time() - reading.at >= STATISTICS_INTERVAL_S

    async def read_statistics(self) -> None:
        """An answer that does not come leaves the last reading, which grows older: unknown is not idle. So
        does another's reading that takes long: whoever probes must not wait for it."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self.reading.acquire()
        except TimeoutError:
            return
        try:
            await self._read_statistics()
        finally:
            self.reading.release()

    async def read_last_statistics(self) -> None:
        """Before it is stopped: what it counts of requests that it answered just now is waited for, until
        two readings agree."""
        deadline = time() + COUNTS_LATEST_S
        before: dict[tuple[str, str], ModelCounters] | None = None
        while True:
            await self.read_statistics()
            now = self._slot.reading.counters if self._slot.reading else {}
            if now == before or time() >= deadline:
                return
            before = now
            await asyncio.sleep(COUNTS_LATE_S)

    async def _read_statistics(self) -> None:
        try:
            answer = await self.client.statistics(self._timeout_s)
        except ProbeError as error:
            log.debug("%s: no statistics: %s", self._slot.id, error)
            return
        now, before = time(), self._slot.reading
        counters = {(entry.model, entry.version): entry for entry in answer}
        if before is None:
            unknown = tuple(rates(None, entry, 0.0) for entry in answer)
            self._slot.reading = Reading(now, counters, unknown)
        else:
            self._slot.reading = before.followed_by(now, counters)
        self._counted(self.instance, answer)

"""Router workers that somebody else runs (`router.external`): a container of their own, a service.

Nothing is known of their processes but what they report. So silence has two meanings, which a time tells
apart: for `SILENT_S` a worker may be busy, or still looking for a controller that has just started, and what
it holds counts as unknown; after that it is gone.

Nor is it ours to see that there is one process for each index. One may be started beside another, which
finishes its calls or was forgotten: the younger is the worker then, and the older has a number of its own.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

from tritonfleet.config.router_spec import RouterSpec
from tritonfleet.controller.journal import Journal
from tritonfleet.controller.paths import FleetPaths
from tritonfleet.controller.router_command import markers, settings_digest
from tritonfleet.controller.telemetry import Telemetry
from tritonfleet.core.wire import RouterTelemetry, WorkerInfo
from tritonfleet.drivers import spawn
from tritonfleet.drivers.clock import steady_time as time

SILENT_S = 10.0  # a worker reports every second at least, and finds a new controller within one
LOOK_S = 0.5
OUTDATED = "it is of another version, or was started with other settings of `router`: start it again"
FIRST_SPARE = 64  # the number of a process in whose place there is another; indices are below


@dataclass(slots=True)
class _Seen:
    """A worker's process, by its last report. ``worker`` is the index it says it has."""

    worker: int
    pid: int
    started_at: float
    restarts: int = 0
    here: bool = False  # the journal knows that it is
    replaced: bool = False  # a younger one has its index
    told: bool = True  # it has reported, in ``replaced`` since then


class ExternalWorkers:
    """Starts none and ends none: takes those that report. See `router_workers.Workers`."""

    def __init__(
        self, fleet: str, spec: RouterSpec, paths: FleetPaths, journal: Journal, telemetry: Telemetry
    ) -> None:
        self._fleet, self._spec, self._paths = fleet, spec, paths
        self._journal, self._telemetry = journal, telemetry
        self._settings = settings_digest(spec)
        self._began = time()
        self._seen: dict[int, _Seen] = {}  # by index, or by a number of their own
        self._watching: asyncio.Task[None] | None = None

    @property
    def running(self) -> tuple[int, ...]:
        """All that may hold calls."""
        now = time()
        awaited = now - self._began <= SILENT_S
        return tuple(
            index
            for index in sorted({*range(self._spec.workers), *self._seen})
            if (awaited and index < self._spec.workers) or self._reports(index, now)
        )

    def _reports(self, index: int, now: float) -> bool:
        age = self._telemetry.age_s(index, now)
        return age is not None and age <= SILENT_S

    def number_of(self, report: RouterTelemetry) -> int:
        """The number that the process of this report has here: its index, unless that is a younger one's."""
        for number, seen in self._seen.items():
            if (seen.worker, seen.pid, seen.started_at) == report.process:
                seen.told = True
                return number
        number, new = report.worker, _Seen(report.worker, report.pid, report.started_at)
        before = self._seen.get(number)
        if before is not None and self._reports(number, time()):
            spare = next(spare for spare in count(FIRST_SPARE) if spare not in self._seen)
            if new.started_at < before.started_at:
                number, new.replaced = spare, True
            else:
                before.replaced, before.told = True, False
                self._move(number, spare)
        if before is not None and not new.replaced:
            new.restarts = before.restarts + 1
        self._seen[number] = new
        return number

    def _move(self, number: int, to: int) -> None:
        self._seen[to] = self._seen.pop(number)
        self._telemetry.rename(number, to)

    async def adopt(self) -> None:
        """End workers that an earlier controller has started, when the file did not say ``external``: they
        have the address."""
        for stray in spawn.find_session_leaders(markers(self._fleet, self._paths)):
            await spawn.terminate(stray, self._spec.drain_timeout)
        self._paths.routers_file.unlink(missing_ok=True)
        self._paths.siblings_file.touch(0o600)  # where the folder is read-only for them, they cannot make it

    def start(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    def replace(self, spec: RouterSpec, by: str) -> None:
        raise ValueError(f"asked by {by}: the {spec.workers} router workers are not the controller's")

    async def _watch(self) -> None:
        while True:
            self.look(time())
            await asyncio.sleep(LOOK_S)

    def look(self, now: float) -> None:
        """Note who came and who went since the last look."""
        for number, seen in list(self._seen.items()):
            if self._seen.get(number) is not seen:
                continue  # it has just been given back its index
            if self._reports(number, now):
                if not seen.here:
                    seen.here = True
                    self._tell("router.joined", seen, f"reports (pid {seen.pid}){self._beside(seen)}")
                continue
            self._telemetry.forget(number)
            if seen.here:
                seen.here = False
                if not seen.replaced:
                    self._tell("router.lost", seen, f"has not reported for {SILENT_S:g} s")
            if not seen.replaced:
                self._give_back(number)
            else:
                del self._seen[number]

    def _give_back(self, index: int) -> None:
        """The younger of two has gone: the other has the index again."""
        for number, seen in self._seen.items():
            if seen.replaced and seen.worker == index and seen.told:
                seen.replaced = False
                return self._move(number, index)
        return None

    def _beside(self, seen: _Seen) -> str:
        """What is odd about its index, in words."""
        if seen.worker >= self._spec.workers:
            return f", though router.workers is {self._spec.workers}"
        others = [one for one in self._seen.values() if one.worker == seen.worker and one is not seen]
        pids = ", ".join(str(one.pid) for one in others if one.here and one.told)
        return f", and so does pid {pids}" if pids else ""

    def _tell(self, kind: str, seen: _Seen, what: str) -> None:
        self._journal.add(kind, "router", f"worker {seen.worker} {what}", worker=seen.worker)

    async def stop(self, grace_s: float) -> None:  # noqa: ARG002 # the protocol has it
        """They are not ours to end: once the fleet is gone they answer UNAVAILABLE."""
        await self.close()

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None

    def infos(self, now: float) -> tuple[WorkerInfo, ...]:
        """Those that there are to be, and others that report."""
        others = [number for number, seen in self._seen.items() if seen.told and self._reports(number, now)]
        return tuple(self._info(number, now) for number in sorted({*range(self._spec.workers), *others}))

    def _info(self, index: int, now: float) -> WorkerInfo:
        report, seen = self._telemetry.of(index), self._seen.get(index)
        restarts = seen.restarts if seen is not None else 0
        if report is None or not self._reports(index, now):
            pid, started_at = (seen.pid, seen.started_at) if seen is not None else (0, 0.0)
            return WorkerInfo(index, pid, started_at, False, restarts, reason=self._missing(index))
        outdated = report.listening and report.settings != self._settings
        return WorkerInfo(
            index,
            report.pid,
            report.started_at,
            True,
            restarts,
            table_revision=report.table_revision,
            telemetry_age_s=self._telemetry.age_s(index, now),
            client_connections=report.client_connections,
            requests_total=report.requests_total,
            request_rate=self._telemetry.request_rate(index, now),
            reason=OUTDATED if outdated else "" if report.listening else "it finishes its calls and ends",
            outdated=outdated,
            leaving=seen is not None and seen.replaced and not report.listening,
        )

    def _missing(self, index: int) -> str:
        which = f" --worker {index}" if self._spec.workers > 1 else ""
        return f"does not report; `tritonfleet router{which}` starts it (router.external is true)"

"""Router workers that somebody else runs (`router.external`): a container of their own, a service.

Nothing is known of their processes but what they report. So silence has two meanings, which a time tells
apart: for `SILENT_S` a worker may be busy, or still looking for a controller that has just started, and what
it holds counts as unknown; after that it is gone.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from tritonfleet.config.router_spec import RouterSpec
from tritonfleet.controller.journal import Journal
from tritonfleet.controller.paths import FleetPaths
from tritonfleet.controller.router_command import markers
from tritonfleet.controller.telemetry import Telemetry
from tritonfleet.core.wire import WorkerInfo
from tritonfleet.drivers import spawn
from tritonfleet.drivers.clock import steady_time as time

SILENT_S = 10.0  # a worker reports every second at least, and finds a new controller within one
LOOK_S = 0.5


@dataclass(slots=True)
class _Seen:
    """A worker's process, by its last report."""

    pid: int
    started_at: float
    restarts: int = 0
    here: bool = True


class ExternalWorkers:
    """Starts none and ends none: takes those that report. See `router_workers.Workers`."""

    def __init__(
        self, fleet: str, spec: RouterSpec, paths: FleetPaths, journal: Journal, telemetry: Telemetry
    ) -> None:
        self._fleet, self._spec, self._paths = fleet, spec, paths
        self._journal, self._telemetry = journal, telemetry
        self._began = time()
        self._seen: dict[int, _Seen] = {}
        self._watching: asyncio.Task[None] | None = None

    @property
    def running(self) -> tuple[int, ...]:
        """All that may hold calls."""
        now = time()
        awaited = now - self._began <= SILENT_S
        return tuple(index for index in range(self._spec.workers) if awaited or self._reports(index, now))

    def _reports(self, index: int, now: float) -> bool:
        age = self._telemetry.age_s(index, now)
        return age is not None and age <= SILENT_S

    async def adopt(self) -> None:
        """End workers that an earlier controller has started, when the file did not say ``external``: they
        have the address."""
        for stray in spawn.find_session_leaders(markers(self._fleet, self._paths)):
            await spawn.terminate(stray, self._spec.drain_timeout)
        self._paths.routers_file.unlink(missing_ok=True)

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
        for index in range(self._spec.workers):
            report, seen = self._telemetry.of(index), self._seen.get(index)
            if report is not None and self._reports(index, now):
                if seen is None:
                    self._seen[index] = _Seen(report.pid, report.started_at)
                elif (seen.pid, seen.started_at) != (report.pid, report.started_at):
                    self._seen[index] = _Seen(report.pid, report.started_at, seen.restarts + 1)
                elif not seen.here:
                    seen.here = True
                else:
                    continue
                self._tell("router.joined", index, f"reports (pid {report.pid})")
            elif seen is not None and seen.here:
                seen.here = False
                self._telemetry.forget(index)
                self._tell("router.lost", index, f"has not reported for {SILENT_S:g} s")

    def _tell(self, kind: str, index: int, what: str) -> None:
        self._journal.add(kind, "router", f"worker {index} {what}", worker=index)

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
        return tuple(self._info(index, now) for index in range(self._spec.workers))

    def _info(self, index: int, now: float) -> WorkerInfo:
        report, seen = self._telemetry.of(index), self._seen.get(index)
        restarts = seen.restarts if seen is not None else 0
        if report is None or not self._reports(index, now):
            pid, started_at = (seen.pid, seen.started_at) if seen is not None else (0, 0.0)
            return WorkerInfo(index, pid, started_at, False, restarts, reason=self._missing(index))
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
        )

    def _missing(self, index: int) -> str:
        which = f" --worker {index}" if self._spec.workers > 1 else ""
        return f"does not report; `tritonfleet router{which}` starts it (router.external is true)"

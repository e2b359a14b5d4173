"""The router's worker processes: started, adopted after the controller's death, restarted when they end."""

import asyncio
import logging
import os
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tritonfleet.config.router_spec import RouterSpec
from tritonfleet.config.spec_types import Address
from tritonfleet.controller import saved
from tritonfleet.controller.external_workers import ExternalWorkers
from tritonfleet.controller.journal import Journal
from tritonfleet.controller.paths import FleetPaths
from tritonfleet.controller.router_command import markers, worker_command
from tritonfleet.controller.saved import SavedWorker, Write
from tritonfleet.controller.telemetry import Telemetry
from tritonfleet.core.model import ExitStatus
from tritonfleet.core.wire import RouterTelemetry, WorkerInfo
from tritonfleet.drivers import spawn
from tritonfleet.drivers.clock import steady_time as time
from tritonfleet.drivers.logs import last_error

log = logging.getLogger(__name__)

EXIT_CANNOT_LISTEN = 98
SHORT_LIFE_S = 5.0  # a worker that ends sooner is restarted with growing delays
FIRST_DELAY_S, LAST_DELAY_S = 0.1, 5.0
TAKE_OVER_S = 20.0  # from the launch of a worker to its first report, before its predecessor is told to end
TAKE_OVER_LOOK_S = 0.05
DRAIN_MARGIN_S = 5.0  # beyond router.drain_timeout before a worker that was told to end is killed


class Workers(Protocol):
    """The fleet's router workers, whoever runs them."""

    @property
    def running(self) -> tuple[int, ...]:
        """Those that may hold calls, by index."""

    def number_of(self, report: RouterTelemetry) -> int:
        """Which of them says this; by that number everything else here speaks of it."""

    async def adopt(self) -> None:
        """Called first. Raises AddressTakenError when none can be started."""

    def start(self) -> None:
        """From now on they are kept alive, or watched."""

    async def stop(self, grace_s: float) -> None:
        """End them, as far as they are ours; their calls have ``grace_s`` seconds."""

    async def close(self) -> None:
        """Stop watching; the workers run on."""

    def infos(self, now: float) -> tuple[WorkerInfo, ...]:
        """Every one for people and programs."""

    def replace(self, spec: RouterSpec, by: str) -> None:
        """New ones in the place of all, as ``spec`` says. Raises ValueError if they are not ours."""


def make_workers(
    fleet: str,
    spec: RouterSpec,
    paths: FleetPaths,
    journal: Journal,
    telemetry: Telemetry,
    write: Write = saved.write,
) -> Workers:
    if spec.external:
        return ExternalWorkers(fleet, spec, paths, journal, telemetry)
    return RouterWorkers(fleet, spec, paths, journal, telemetry, write)


class AddressTakenError(Exception):
    """The router's address cannot be listened on."""


@dataclass(slots=True)
class _Worker:
    index: int
    saved: SavedWorker | None = None
    running: bool = False
    reason: str = ""
    short_lives: int = 0  # in a row
    leaving: bool = False  # another has taken its place: it finishes its calls and is not started again


class RouterWorkers:
    """Keeps ``router.workers`` processes alive, and replaces them one by one (`replace`)."""

    def __init__(
        self,
        fleet: str,
        spec: RouterSpec,
        paths: FleetPaths,
        journal: Journal,
        telemetry: Telemetry,
        write: Write = saved.write,
    ) -> None:
        self._fleet, self._spec, self._paths = fleet, spec, paths
        self._journal, self._telemetry, self._write = journal, telemetry, write
        self._workers = [_Worker(index) for index in range(spec.workers)]
        self._tasks: list[asyncio.Task[None]] = []
        self._replacing: asyncio.Task[None] | None = None
        self._again = False
        self._stopping = False

    @property
    def running(self) -> tuple[int, ...]:
        return tuple(worker.index for worker in self._workers if worker.running)

    def number_of(self, report: RouterTelemetry) -> int:
        return report.worker

    async def adopt(self) -> None:
        """Find workers of an earlier controller; end those that are not wanted as they are. Raises
        AddressTakenError when there are none and the address is not free."""
        known = saved.read(self._paths.routers_file, dict[str, SavedWorker]) or {}
        alive = {int(name): found for name, found in known.items() if spawn.alive(found.identity)}
        fitting = [index for index, found in alive.items() if found.command == self._command(index)]
        # The newest: where there are more, the older ones were about to be replaced.
        fitting.sort(key=lambda index: alive[index].started_at, reverse=True)
        kept = sorted(fitting[: self._spec.workers])
        free = (index for index in range(64 + len(kept)) if index not in kept)
        while len(kept) < self._spec.workers:
            kept.append(next(free))
        self._workers = [_Worker(index, alive.get(index), index in fitting) for index in kept]
        for worker in self._workers:
            if not worker.running:
                worker.saved = None
        stale = [found for index, found in alive.items() if found not in [w.saved for w in self._workers]]
        await asyncio.gather(*(spawn.terminate(one.identity, self._spec.drain_timeout) for one in stale))
        ours = {worker.saved.identity for worker in self._workers if worker.saved is not None}
        for stray in spawn.find_session_leaders(markers(self._fleet, self._paths)):
            if stray not in ours:  # started by a controller that died before it could note it
                await spawn.terminate(stray, self._spec.drain_timeout)
        if not self.running:
            check_address(self._spec.listen)

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._keep(worker)) for worker in self._workers]

    def _command(self, index: int) -> tuple[str, ...]:
        return worker_command(self._fleet, self._spec, self._paths, index)

    async def _keep(self, worker: _Worker, *, told: bool = False) -> None:
        """Whatever fails, it is looked after again. ``told``: the journal knows that it was started."""
        while True:
            try:
                return await self._keep_alive(worker, told=told)
            except Exception as error:  # else a worker that ends is never started again
                log.exception("worker %d is not looked after for a while", worker.index)
                said = f"looking after worker {worker.index} failed and is begun again: {error!r}"
                self._journal.add("controller.error", "router", said)
            told = True
            await asyncio.sleep(LAST_DELAY_S)

    async def _keep_alive(self, worker: _Worker, *, told: bool) -> None:
        delay = 0.0
        while not self._stopping and not (worker.leaving and not worker.running):
            if worker.running:
                if not told:
                    what = f"worker {worker.index} runs (pid {_pid(worker)})"
                    self._journal.add("router.adopted", "router", what)
                told = False
            else:
                await asyncio.sleep(delay)
                if self._stopping or worker.leaving:  # replaced while it was to be started again
                    return
                if not await self._spawn(worker):
                    delay = LAST_DELAY_S
                    continue
            record = worker.saved
            if record is None:
                raise AssertionError("a worker that runs has an identity")
            ended = await spawn.wait_exit(record.identity)
            worker.running = False
            self._telemetry.forget(worker.index)
            if worker.leaving:
                self._workers.remove(worker)
                self._save()
                self._journal.add("router.stopped", "router", f"worker {worker.index} has finished its calls")
                return
            lived = time() - record.started_at
            delay = 0.0 if lived > SHORT_LIFE_S else min(max(delay * 2, FIRST_DELAY_S), LAST_DELAY_S)
            worker.short_lives = worker.short_lives + 1 if delay else 0
            if not self._stopping:
                self._tell_exit(worker, ended, delay)

    def _tell_exit(self, worker: _Worker, ended: spawn.ProcessExit, delay: float) -> None:
        how = str(ExitStatus(time(), ended.code, ended.signal))
        when = f"starting again in {delay:g} s" if delay else "starting again at once"
        if ended.code == EXIT_CANNOT_LISTEN:
            how += f": {self._spec.listen} is taken by another program"
        elif ended.code and (said := last_error(self._log(worker))):
            how += f": {said}"
        worker.reason = f"pid {_pid(worker)} {how}; {when}"
        said = f"worker {worker.index} (pid {_pid(worker)}) {how}; {when}"
        self._journal.add("router.exited", "router", said, worker=worker.index)

    async def _spawn(self, worker: _Worker) -> bool:
        command = self._command(worker.index)
        try:
            joins = any(other.running for other in self._workers)
            environ = {
                **os.environ,
                **markers(self._fleet, self._paths),
                "TRITONFLEET_JOINS": "1" if joins else "0",
            }
            identity = await spawn.spawn(command, environ, self._log(worker))
        except OSError as error:
            worker.reason = f"cannot be started: {error}"
            said = f"worker {worker.index} {worker.reason}"
            self._journal.add("router.exited", "router", said, worker=worker.index)
            return False
        restarts = worker.saved.restarts + 1 if worker.saved is not None else 0
        worker.saved = SavedWorker(identity, command, time(), restarts)
        worker.running, worker.reason = True, worker.reason if worker.short_lives else ""
        self._save()
        self._journal.add(
            "router.started", "router", f"worker {worker.index} on {self._spec.listen} (pid {identity.pid})"
        )
        return True

    def _log(self, worker: _Worker) -> Path:
        return self._paths.logs / f"router-{worker.index}.log"

    def _save(self) -> None:
        known = {str(worker.index): worker.saved for worker in self._workers if worker.saved is not None}
        self._write(self._paths.routers_file, known)

    # ------------------------------------------------------------ one by one

    def replace(self, spec: RouterSpec, by: str) -> None:
        """Start new workers, as ``spec`` says, in the place of all that run: each new one accepts before an
        old one is told to end. While that goes on already, it is done once more afterwards."""
        self._spec = spec
        self._tasks = [task for task in self._tasks if not task.done()]
        self._journal.add("router.restarting", "router", f"workers are replaced one by one by {by}")
        if self._replacing is not None and not self._replacing.done():
            self._again = True
        else:
            self._replacing = asyncio.create_task(self._replace_all())
            self._tasks.append(self._replacing)

    async def _replace_all(self) -> None:
        while True:
            self._again = False
            old = [worker for worker in self._workers if not worker.leaving]
            for number in range(max(len(old), self._spec.workers)):
                if number < self._spec.workers and not await self._add_worker():
                    return
                if number < len(old):
                    await self._end(old[number])
            if not self._again:
                return

    async def _add_worker(self) -> bool:
        """One more worker; returns when it accepts clients and has a table. False if it does not come up:
        then those that run stay."""
        taken = {worker.index for worker in self._workers}
        worker = _Worker(next(index for index in range(len(taken) + 1) if index not in taken))
        self._workers.append(worker)
        if not await self._spawn(worker):
            self._workers.remove(worker)
            return False
        self._tasks.append(asyncio.create_task(self._keep(worker, told=True)))
        try:
            async with asyncio.timeout(TAKE_OVER_S):
                while worker.running and not self._serves(worker):  # noqa: ASYNC110 # told by two sides
                    await asyncio.sleep(TAKE_OVER_LOOK_S)
        except TimeoutError:
            worker.reason = f"it did not report within {TAKE_OVER_S:g} s"
        if worker.running and self._serves(worker):
            return True
        why = f"worker {worker.index}: {worker.reason or 'it ended'}"
        self._journal.add("router.failed", "router", f"the replacement is given up, the workers stay: {why}")
        worker.leaving = True
        if worker.saved is not None and worker.running:
            await spawn.terminate(worker.saved.identity, 0.0)
        elif worker in self._workers:
            self._workers.remove(worker)
        return False

    def _serves(self, worker: _Worker) -> bool:
        report = self._telemetry.of(worker.index)
        if report is None or report.pid != _pid(worker):
            return False
        return report.listening and report.table_revision > 0

    async def _end(self, worker: _Worker) -> None:
        worker.leaving = True
        worker.reason = "it finishes its calls and ends"
        if worker.running and worker.saved is not None:
            await spawn.terminate(worker.saved.identity, self._spec.drain_timeout + DRAIN_MARGIN_S)
        elif worker in self._workers:
            self._workers.remove(worker)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM: each tells its clients, finishes their calls for up to ``grace_s``, and ends."""
        self._stopping = True
        if self._replacing is not None:
            self._replacing.cancel()
        alive = [worker.saved.identity for worker in self._workers if worker.running and worker.saved]
        await asyncio.gather(*(spawn.terminate(identity, grace_s) for identity in alive))
        await self.close()
        self._paths.routers_file.unlink(missing_ok=True)
        self._paths.board_file.unlink(missing_ok=True)
        self._paths.finishes_file.unlink(missing_ok=True)

    async def close(self) -> None:
        """Stop watching; the workers run on."""
        for task in self._tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def infos(self, now: float) -> tuple[WorkerInfo, ...]:
        return tuple(self._info(worker, now) for worker in self._workers)

    def _info(self, worker: _Worker, now: float) -> WorkerInfo:
        report = self._telemetry.of(worker.index)
        stays = worker.running and _age_s(worker) >= SHORT_LIFE_S and not worker.leaving
        info = WorkerInfo(
            worker.index,
            worker.saved.identity.pid if worker.saved else 0,
            worker.saved.started_at if worker.saved else 0.0,
            worker.running,
            worker.saved.restarts if worker.saved else 0,
            reason="" if stays else worker.reason,
            short_lives=0 if stays else worker.short_lives,
            leaving=worker.leaving,
        )
        if report is None:
            return info
        return replace(
            info,
            table_revision=report.table_revision,
            telemetry_age_s=self._telemetry.age_s(worker.index, now),
            client_connections=report.client_connections,
            requests_total=report.requests_total,
            request_rate=self._telemetry.request_rate(worker.index, now),
        )


def _pid(worker: _Worker) -> int:
    return worker.saved.identity.pid if worker.saved is not None else 0


def _age_s(worker: _Worker) -> float:
    return time() - worker.saved.started_at if worker.saved is not None else 0.0


def check_address(address: Address) -> None:
    """Bind once without SO_REUSEPORT, which would let us share the port with a stranger who set it too.
    Raises AddressTakenError."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
            probe.listen(1)
        except OSError as error:
            raise AddressTakenError(f"cannot listen on {address}: {error.strerror or error}") from error

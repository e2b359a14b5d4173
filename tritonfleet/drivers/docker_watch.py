"""Learns of containers' ends: by the daemon's events, and by looking when there are none.

An event only says *look now*; what counts is what the daemon then shows. So an event that was missed, because
the daemon restarted or the connection broke, costs at most `POLL_S`, and a daemon that is away ends nothing.
"""

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from time import time
from typing import Any

from tritonfleet.core.model import ExitStatus
from tritonfleet.drivers.base import DriverError
from tritonfleet.drivers.docker_container import LABEL, exit_of, has_ended, status_from_code
from tritonfleet.drivers.docker_engine import DaemonUnreachableError, DockerEngine, NotThereError, Stream

log = logging.getLogger(__name__)

POLL_S = 5.0
RETRY_S = 0.5  # between two tries to listen to a daemon that is away
LOOK = "cannot look at containers"
WITH_THE_DAEMON = (
    "it ended with the Docker daemon, which was stopped or restarted "
    '("live-restore": true in daemon.json keeps containers)'
)
REMOVED = "its container was removed behind the fleet's back (docker rm?)"


class ExitWatch:
    """One fleet's containers on one daemon."""

    def __init__(self, engine: DockerEngine, fleet: str) -> None:
        self._engine, self._fleet = engine, fleet
        self._awaited: dict[str, asyncio.Future[ExitStatus]] = {}
        self._codes: dict[str, int] = {}  # by container, as a `die` event told it
        self._heard_of: set[str] = set()  # containers with news
        self._woken = asyncio.Event()
        self.away = ""  # why the daemon could not be asked, the last time it was tried
        self._task: asyncio.Task[None] | None = None

    async def ended(self, container: str) -> ExitStatus:
        """Return when the container has ended or is gone; at once if so."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"docker events of {self._fleet}")
        future = self._awaited.get(container)
        if future is None:
            future = self._awaited[container] = asyncio.get_running_loop().create_future()
        self._woken.set()
        return await asyncio.shield(future)

    async def _run(self) -> None:
        stream: Stream | None = None
        try:
            while True:
                if stream is None or stream.ended.is_set():
                    stream = self._listen()
                    await stream.opened.wait()  # listen first, then look: nothing falls between
                self._woken.clear()
                try:
                    await self._look()
                except DaemonUnreachableError as error:
                    self.away = str(error)  # what runs there is unknown
                except DriverError as error:
                    log.debug("%s", error)
                except Exception:  # an answer of no known form must not hide all ends from now on
                    log.exception("containers could not be looked at")
                else:
                    self.away = self.away if stream.ended.is_set() else ""
                if stream.ended.is_set():
                    await asyncio.sleep(RETRY_S)
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._woken.wait()
        finally:
            if stream is not None:
                await stream.close()

    def _listen(self) -> Stream:
        loop = asyncio.get_running_loop()
        filters = {"type": "container", "label": f"{LABEL}fleet={self._fleet}", "event": ["die", "destroy"]}
        return Stream(
            self._engine,
            lambda client: client.events(decode=True, filters=filters),
            lambda event: loop.call_soon_threadsafe(self._heard, event),
            at_end=self._woken.set,
        )

    def _heard(self, event: dict[str, Any]) -> None:
        if event.get("Action") == "die":
            with suppress(KeyError, ValueError):
                self._codes[event["id"][:12]] = int(event["Actor"]["Attributes"]["exitCode"])
        self._heard_of.add(str(event.get("id", ""))[:12])
        self._woken.set()

    async def _look(self) -> None:
        """Settle what has ended among the awaited."""
        # A list is taken from a copy that the daemon renews only after it has told of an end; an inspection
        # waits for that. So what was heard of is inspected, and the list is for what was not.
        news, self._heard_of = self._heard_of, set()
        for name in news.intersection(self._unsettled()):
            await self._settle(name)
        awaited = self._unsettled()
        if not awaited or news:
            return
        label = {"label": f"{LABEL}fleet={self._fleet}"}
        rows = await self._engine.call(LOOK, lambda client: client.containers(all=True, filters=label))
        states = {row["Id"][:12]: row["State"] for row in rows}
        for name in awaited:
            if name not in states or has_ended(states[name]):
                await self._settle(name)

    async def _settle(self, container: str) -> None:
        try:
            found = await self._engine.call(LOOK, lambda client: client.inspect_container(container))
            if not has_ended(found["State"]["Status"]):
                return
            status = exit_of(found["State"], time())
            if self.away and found["State"]["Status"] != "created":
                said = "; ".join(part for part in (status.detail, WITH_THE_DAEMON) if part)
                status = replace(status, detail=said)
        except NotThereError:
            code = self._codes.get(container)
            status = ExitStatus(time(), detail=REMOVED)
            if code is not None:
                status = status_from_code(code, time(), REMOVED)
        future = self._awaited.get(container)
        if future is not None and not future.done():
            future.set_result(status)

    def _unsettled(self) -> list[str]:
        return [name for name, future in self._awaited.items() if not future.done()]

    def forget(self, container: str) -> None:
        self._codes.pop(container, None)
        future = self._awaited.get(container)
        if future is not None and future.done():
            del self._awaited[container]

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for future in self._awaited.values():
            future.cancel()
        self._awaited.clear()

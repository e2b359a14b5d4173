"""The worker's link to the controller: the table comes in as a stream, telemetry goes out.

The link may break at any time and for any length: the last table stays in force, and the link is tried
again for as long as the worker lives.
"""

import asyncio
import logging
import os
from time import time

import httpx
import msgspec

from tritonfleet.core.wire import RouterTable
from tritonfleet.router.dispatch import Dispatcher
from tritonfleet.router.telemetry import telemetry

log = logging.getLogger(__name__)

BUSY_INTERVAL_S = 0.25  # between reports while calls run or something changed
IDLE_INTERVAL_S = 1.0  # a sign of life
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 1.0
TABLE_SILENCE_S = 15.0  # the controller sends a line every few seconds; longer silence means it is gone


class ControlLink:
    """Keeps one dispatcher informed and its controller informed of it."""

    def __init__(self, dispatcher: Dispatcher, socket_path: str, worker: int, settings: str = "") -> None:
        self._dispatcher = dispatcher
        self._worker, self._path, self._settings = worker, socket_path, settings
        self._refused = ""  # why the controller takes no report, as it said last
        self._started_at = time()
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=socket_path),
            base_url="http://controller/v1",
            timeout=httpx.Timeout(5.0, read=TABLE_SILENCE_S),
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_table())
            tasks.create_task(self._report())

    async def close(self) -> None:
        await self._http.aclose()

    async def _follow_table(self) -> None:
        delay, connected = FIRST_RETRY_S, True
        while True:
            try:
                async with self._http.stream("GET", "/router/table") as response:
                    response.raise_for_status()
                    async for line in response.aiter_lines():
                        if line.strip():
                            self._take(line)
                        if not connected:
                            log.info("the controller is there")
                        connected, delay = True, FIRST_RETRY_S
            except (httpx.HTTPError, msgspec.MsgspecError) as error:
                if connected:
                    log.warning("no link to the controller at %s (%s): %s", self._path, error, self._so)
                connected = False
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RETRY_S)

    @property
    def _so(self) -> str:
        if self._dispatcher.table is None:
            return "calls are answered with UNAVAILABLE until it is there"
        return "going on with the last table"

    def _take(self, line: str) -> None:
        table = msgspec.json.decode(line, type=RouterTable)
        if self._dispatcher.table != table:
            self._dispatcher.apply(table)

    async def _report(self) -> None:
        last_totals: tuple[int, ...] = ()
        slept = 0.0
        while True:
            dispatcher = self._dispatcher
            totals = (
                dispatcher.requests_total,
                dispatcher.table.revision if dispatcher.table else 0,
                sum(replica.in_flight for replica in dispatcher.replicas.values()),
                len(dispatcher.clients),
                len(dispatcher.retired),
                dispatcher.listening,
            )
            if totals != last_totals or slept >= IDLE_INTERVAL_S:
                if await self._post():
                    last_totals = totals
                slept = 0.0
            await asyncio.sleep(BUSY_INTERVAL_S)
            slept += BUSY_INTERVAL_S

    async def _post(self) -> bool:
        report = telemetry(
            self._dispatcher,
            worker=self._worker,
            pid=os.getpid(),
            started_at=self._started_at,
            settings=self._settings,
        )
        try:
            response = await self._http.post(
                "/router/telemetry",
                content=msgspec.json.encode(report),
                headers={"content-type": "application/json"},
            )
        except httpx.HTTPError:
            return False  # _follow_table says so, once
        refused = "" if response.is_success else f"{response.status_code} {response.text}"
        if refused and refused != self._refused:
            log.warning(
                "the controller does not take this worker's reports, so it counts as gone there; "
                "are both of the same version? %s",
                refused,
            )
        self._refused = refused
        return not refused

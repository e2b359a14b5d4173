"""Where Prometheus scrapes: ``/metrics`` is the fleet's, ``/replicas`` relays that of every Triton."""

import asyncio
import socket

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tritonfleet.config.spec_types import Address
from tritonfleet.controller import relay
from tritonfleet.controller.api import Server, quiet
from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.metrics import CONTENT_TYPE, MetricsState, exposition
from tritonfleet.controller.snapshot import snapshot

FLEET_PATH, REPLICAS_PATH = "/metrics", "/replicas"
RETRY_S = 5.0  # between two tries to get a taken address


class MetricsAddressError(Exception):
    """The address of the metrics cannot be listened on."""


def state_of(fleet: Fleet, unanswered: dict[str, int]) -> MetricsState:
    reports = (fleet.telemetry.of(worker) for worker in fleet.workers.running)
    return MetricsState(
        snapshot(fleet),
        fleet.traffic,
        tuple(fleet.autoscaler.statuses()),
        tuple(report for report in reports if report is not None),
        fleet.autoscaler.decided,
        unanswered,
    )


class MetricsServer:
    """Listens from the start, so that a taken address is known before anything else is done. Raises
    MetricsAddressError, unless the fleet ``must_go_on``: then it tries until it gets the address."""

    def __init__(
        self, fleet: Fleet, address: Address, *, must_go_on: bool = False, retry_s: float = RETRY_S
    ) -> None:
        self._fleet, self._address, self._retry_s = fleet, address, retry_s
        self._unanswered: dict[str, int] = {}  # by replica
        self._socket: socket.socket | None = None
        self._stopped = asyncio.Event()
        try:
            self._socket = listening(address)
        except MetricsAddressError as error:
            if not must_go_on:
                raise
            fleet.journal.add(
                "metrics.unavailable", "controller", f"{error}. The fleet goes on without metrics"
            )
        routes = [Route(FLEET_PATH, self._metrics), Route(REPLICAS_PATH, self._replicas)]
        self._server = Server(quiet(Starlette(routes=routes)))

    @property
    def port(self) -> int:
        """0 while it has no address."""
        return int(self._socket.getsockname()[1]) if self._socket else 0

    async def serve(self) -> None:
        while self._socket is None:
            try:
                async with asyncio.timeout(self._retry_s):
                    await self._stopped.wait()
                    return
            except TimeoutError:
                self._try_again()
        await self._server.serve(sockets=[self._socket])

    def _try_again(self) -> None:
        try:
            self._socket = listening(self._address)
        except MetricsAddressError:
            return
        self._fleet.journal.add("metrics.available", "controller", f"{self._address} was freed: it listens")

    def stop(self) -> None:
        self._stopped.set()
        self._server.should_exit = True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    async def _metrics(self, _request: Request) -> Response:
        return Response(exposition(state_of(self._fleet, self._unanswered)), media_type=CONTENT_TYPE)

    async def _replicas(self, _request: Request) -> Response:
        there = [(slot.id, slot.instance) for slot in self._fleet.slots.values() if slot.state.serving]
        places = [(name, one.host, one.metrics_port) for name, one in there if one is not None]
        texts, silent = await relay.fetch(relay.urls(places))
        for name in silent:
            self._unanswered[name] = self._unanswered.get(name, 0) + 1
        return Response(relay.merged(texts), media_type=CONTENT_TYPE)


def listening(address: Address) -> socket.socket:
    """A socket that has the address. Raises MetricsAddressError, which names the key and what to do."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((address.host, address.port))
        found.listen(128)
    except OSError as error:
        found.close()
        raise MetricsAddressError(
            f"metrics.listen: cannot listen on {address}: {error.strerror or error}; free it, or write "
            "another port there"
        ) from error
    return found

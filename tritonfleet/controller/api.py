"""The control API: HTTP and JSON on a unix socket that only its owner may use. Routes are in `core.wire`."""

import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tritonfleet.controller import commands, launches
from tritonfleet.controller.commands import RefusedError
from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.fleet_rpc import FleetRpc
from tritonfleet.controller.history import TrafficHistory, reports_of
from tritonfleet.controller.shutdown import Shutdown
from tritonfleet.controller.snapshot import snapshot
from tritonfleet.core.board import Board
from tritonfleet.core.rollout import UndoRequest
from tritonfleet.core.wire import (
    ApplyRequest,
    DownRequest,
    DrainRequest,
    Problem,
    RestartRequest,
    RouterTelemetry,
    RpcRequest,
    ScaleRequest,
)

log = logging.getLogger(__name__)

STATUS = {"not_found": 404, "invalid": 422, "conflict": 409, "internal": 500}
BOARD_EVENTS = 100  # the newest; the dashboard shows a few of them, and those of one replica
GRACEFUL_S = 2  # how long open answers may take when the server ends
T = TypeVar("T")


def application(fleet: Fleet, shutdown: Shutdown, history: TrafficHistory | None = None) -> Starlette:
    api = _Api(fleet, shutdown, history or TrafficHistory())
    routes = [
        Route("/v1/board", api.board),
        Route("/v1/snapshot", api.snapshot),
        Route("/v1/scale", api.scale, methods=["POST"]),
        Route("/v1/autoscale", api.autoscale),
        Route("/v1/apply", api.apply, methods=["POST"]),
        Route("/v1/replicas/{id}/drain", api.drain, methods=["POST"]),
        Route("/v1/replicas/{id}/undrain", api.undrain, methods=["POST"]),
        Route("/v1/replicas/{id}/restart", api.restart, methods=["POST"]),
        Route("/v1/devices/{id}/drain", api.drain_device, methods=["POST"]),
        Route("/v1/devices/{id}/undrain", api.undrain_device, methods=["POST"]),
        Route("/v1/replicas/{id}/launch", api.launch),
        Route("/v1/pools/{name}/launch", api.pool_launch),
        Route("/v1/rollout", api.rollout),
        Route("/v1/rollout/undo", api.undo, methods=["POST"]),
        Route("/v1/router/restart", api.restart_router, methods=["POST"]),
        Route("/v1/down", api.down, methods=["POST"]),
        Route("/v1/events", api.events),
        Route("/v1/router/table", api.table),
        Route("/v1/router/telemetry", api.telemetry, methods=["POST"]),
        Route("/v1/router/rpc", api.rpc, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {RefusedError: _refused, HTTPException: _http_error, Exception: _internal}
    return Starlette(routes=routes, exception_handlers=handlers)


class _Api:
    def __init__(self, fleet: Fleet, shutdown: Shutdown, history: TrafficHistory) -> None:
        self._fleet, self._shutdown, self._rpc = fleet, shutdown, FleetRpc(fleet)
        self._history = history

    async def board(self, _request: Request) -> Response:
        fleet = self._fleet
        traffic = self._history.traffic(list(reports_of(fleet)))
        statuses = tuple(fleet.autoscaler.statuses())
        events = tuple(fleet.journal.since(fleet.journal.seq - BOARD_EVENTS))
        return _answer(Board(snapshot(fleet), traffic, statuses, events))

    async def snapshot(self, _request: Request) -> Response:
        return _answer(snapshot(self._fleet))

    async def scale(self, request: Request) -> Response:
        return self._changed(commands.scale, await _body(request, ScaleRequest))

    async def autoscale(self, _request: Request) -> Response:
        return _answer(self._fleet.autoscaler.statuses())

    async def apply(self, request: Request) -> Response:
        return self._changed(commands.apply, await _body(request, ApplyRequest))

    async def rollout(self, _request: Request) -> Response:
        return _answer(self._fleet.rollouts.status(self._fleet))

    async def launch(self, request: Request) -> Response:
        return _answer(await launches.launched(self._fleet, request.path_params["id"]))

    async def pool_launch(self, request: Request) -> Response:
        return _answer(launches.next_launch(self._fleet, request.path_params["name"]))

    async def undo(self, request: Request) -> Response:
        return self._changed(commands.undo, await _body(request, UndoRequest))

    async def drain(self, request: Request) -> Response:
        body = await _body(request, DrainRequest)
        return self._changed(lambda fleet, _: commands.drain(fleet, request.path_params["id"], body), body)

    async def undrain(self, request: Request) -> Response:
        return self._changed(lambda fleet, _: commands.undrain(fleet, request.path_params["id"]), None)

    async def restart(self, request: Request) -> Response:
        body = await _body(request, RestartRequest)
        return self._changed(lambda fleet, _: commands.restart(fleet, request.path_params["id"], body), body)

    async def drain_device(self, request: Request) -> Response:
        body, name = await _body(request, DrainRequest), request.path_params["id"]
        return self._changed(lambda fleet, _: commands.drain_device(fleet, name, body), body)

    async def undrain_device(self, request: Request) -> Response:
        name = request.path_params["id"]
        return self._changed(lambda fleet, _: commands.undrain_device(fleet, name), None)

    async def restart_router(self, request: Request) -> Response:
        return self._changed(commands.restart_router, await _body(request, RestartRequest))

    def _changed(self, command: Callable[[Fleet, Any], Any], body: object) -> Response:
        if self._fleet.stopping:
            raise RefusedError("conflict", "the fleet is going down", "wait for it, then `tritonfleet up`")
        return _answer(command(self._fleet, body))

    async def down(self, request: Request) -> Response:
        return _answer(self._shutdown.begin(await _body(request, DownRequest)))

    async def events(self, request: Request) -> Response:
        try:
            since = int(request.query_params.get("since", "0"))
        except ValueError:
            raise RefusedError(
                "invalid", "since must be a number", "the seq of the last event seen"
            ) from None
        if request.query_params.get("follow", "") in ("1", "true"):
            return _lines(self._fleet.journal.follow(since))
        lines = [msgspec.json.encode(event) for event in self._fleet.journal.since(since)]
        return Response(b"".join(line + b"\n" for line in lines), media_type="application/x-ndjson")

    async def table(self, _request: Request) -> Response:
        return _lines(self._fleet.feed.follow())

    async def telemetry(self, request: Request) -> Response:
        self._fleet.take_telemetry(await _body(request, RouterTelemetry))
        return Response(status_code=204)

    async def rpc(self, request: Request) -> Response:
        return _answer(await self._rpc.answer(await _body(request, RpcRequest)))


async def _body(request: Request, kind: type[T]) -> T:
    data = await request.body()
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except msgspec.MsgspecError as error:
        raise RefusedError("invalid", f"the request's body is not a {kind.__name__}: {error}") from error


def _answer(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _lines(values: AsyncIterator[Any]) -> Response:
    async def encoded() -> AsyncIterator[bytes]:
        async for value in values:
            yield msgspec.json.encode(value) + b"\n"

    return StreamingResponse(encoded(), media_type="application/x-ndjson")


async def _refused(_request: Request, error: RefusedError) -> Response:
    return _answer(error.problem, STATUS[error.problem.kind])


async def _http_error(request: Request, error: HTTPException) -> Response:
    kind = "not_found" if error.status_code == 404 else "invalid"
    return _answer(Problem(kind, f"{request.method} {request.url.path}: {error.detail}"), error.status_code)


async def _internal(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _answer(Problem("internal", f"the controller failed: {error!r}", "its log has the details"), 500)


class ControlServer:
    """uvicorn on our own socket, without its signal handlers."""

    def __init__(self, app: Starlette, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)  # of a controller that died: the fleet's lock is ours
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            self._socket.bind(str(path))
        finally:
            os.umask(before)
        self._server = Server(quiet(app))

    async def serve(self) -> None:
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        self._server.should_exit = True

    def close(self) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)


def quiet(app: Starlette) -> uvicorn.Config:
    """How this process serves HTTP: no logs of its own, and an end that does not wait for long."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=GRACEFUL_S,
        ws="none",
    )


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The controller handles signals itself."""
        yield

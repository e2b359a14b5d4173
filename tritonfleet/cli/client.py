"""The typed client of the control API: requests go in as `core.wire` data, answers come out as such.

One `ControlClient` speaks to one fleet's controller over its unix socket. Every refusal becomes a
`CliError` with the exit code its kind deserves; a socket nobody listens on becomes exit code 4 with the
command that starts the fleet.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

import msgspec

from tritonfleet.cli import unix_http
from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.core.wire import (
    Accepted,
    ApplyRequest,
    AutoscaleStatus,
    DownRequest,
    DrainRequest,
    Event,
    FleetSnapshot,
    Problem,
    RestartRequest,
    ScaleRequest,
)

if TYPE_CHECKING:
    from tritonfleet.core.board import Board
    from tritonfleet.core.launched import Launched
    from tritonfleet.core.rollout import RolloutStatus, UndoRequest
    from tritonfleet.core.wire import RpcAnswer, RpcRequest

EVENT_SILENCE_S = 3600.0  # a followed event stream may be silent for long
RPC_TIMEOUT_S = 900.0
FIRST_ERROR = 400  # HTTP status

_KIND_CODES = {
    "not_found": ExitCode.USAGE,
    "invalid": ExitCode.USAGE,
    "conflict": ExitCode.FAILED,
    "internal": ExitCode.FAILED,
}

T = TypeVar("T")


class UnreachableError(CliError):
    """Nobody answers at the control socket."""

    def __init__(self, fleet: str, path: Path, why: str) -> None:
        super().__init__(
            ExitCode.UNREACHABLE,
            f"the controller of fleet {fleet!r} does not answer at {path} ({why})",
            hint="start it, or adopt what still runs: tritonfleet up -d",
        )
        self.why = why


class ControlClient:
    """A context manager, though nothing stays open between two requests: who uses it need not know."""

    def __init__(self, fleet: str, path: Path) -> None:
        self.fleet = fleet
        self.socket = path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def __repr__(self) -> str:
        return f"<ControlClient of {self.fleet} at {self.socket}>"

    def snapshot(self) -> FleetSnapshot:
        return self._ask("GET", "/snapshot", FleetSnapshot)

    def board(self) -> "Board":
        from tritonfleet.core.board import Board

        return self._ask("GET", "/board", Board)

    def scale(self, request: ScaleRequest) -> Accepted:
        return self._ask("POST", "/scale", Accepted, request)

    def autoscale(self) -> list[AutoscaleStatus]:
        return self._ask("GET", "/autoscale", list[AutoscaleStatus])

    def apply(self, request: ApplyRequest) -> Accepted:
        return self._ask("POST", "/apply", Accepted, request)

    def rollout(self) -> "RolloutStatus":
        from tritonfleet.core.rollout import RolloutStatus

        return self._ask("GET", "/rollout", RolloutStatus)

    def launched(self, kind: str, name: str) -> "Launched | None":
        """Of a replica, or of a pool's next one (``kind``: "replicas", "pools"); None when the controller is
        older than the question."""
        from tritonfleet.core.launched import Launched

        try:
            return self._ask("GET", f"/{kind}/{quote(name, safe='')}/launch", Launched)
        except UnreachableError:
            raise
        except CliError:
            return None

    def undo(self, request: "UndoRequest") -> Accepted:
        return self._ask("POST", "/rollout/undo", Accepted, request)

    def drain(self, replica: str, request: DrainRequest) -> Accepted:
        return self._ask("POST", f"/replicas/{quote(replica, safe='')}/drain", Accepted, request)

    def undrain(self, replica: str) -> Accepted:
        return self._ask("POST", f"/replicas/{quote(replica, safe='')}/undrain", Accepted)

    def drain_device(self, device: str, request: DrainRequest) -> Accepted:
        return self._ask("POST", f"/devices/{quote(device, safe='')}/drain", Accepted, request)

    def undrain_device(self, device: str) -> Accepted:
        return self._ask("POST", f"/devices/{quote(device, safe='')}/undrain", Accepted)

    def restart_router(self, request: RestartRequest) -> Accepted:
        return self._ask("POST", "/router/restart", Accepted, request)

    def restart(self, replica: str, request: RestartRequest) -> Accepted:
        return self._ask("POST", f"/replicas/{quote(replica, safe='')}/restart", Accepted, request)

    def down(self, request: DownRequest) -> Accepted:
        return self._ask("POST", "/down", Accepted, request)

    def rpc(self, request: "RpcRequest") -> "RpcAnswer":
        """What a client's call that speaks of the whole fleet would get; a model may take minutes to load."""
        from tritonfleet.core.wire import RpcAnswer

        return self._ask("POST", "/router/rpc", RpcAnswer, request, read_s=RPC_TIMEOUT_S)

    def events(self, since: int = 0, *, follow: bool = False) -> Iterator[Event]:
        """Events with a number above ``since``, oldest first; with ``follow``, until the stream ends."""
        target = f"/v1/events?since={since}" + ("&follow=1" if follow else "")
        timeouts = unix_http.Timeouts(read=EVENT_SILENCE_S) if follow else unix_http.Timeouts()
        begun = False
        try:
            with unix_http.asked(self.socket, "GET", target, timeouts=timeouts) as answer:
                begun = True
                if answer.status >= FIRST_ERROR:
                    raise refusal(answer.status, answer.body())
                for line in answer.lines():
                    if line.strip():
                        yield msgspec.json.decode(line, type=Event)
        except unix_http.FAILURES as error:
            if not begun:
                raise self._unreachable(error) from error
            # else the controller went away in the middle of a line: the stream has ended
        except msgspec.MsgspecError as error:
            raise self._foreign(error) from error

    def _ask(
        self, method: str, path: str, expected: type[T], body: Any = None, *, read_s: float | None = None
    ) -> T:
        content = msgspec.json.encode(body) if body is not None else None
        timeouts = unix_http.Timeouts() if read_s is None else unix_http.Timeouts(read=read_s)
        try:
            with unix_http.asked(self.socket, method, "/v1" + path, content, timeouts) as answer:
                status, got = answer.status, answer.body()
        except unix_http.FAILURES as error:
            raise self._unreachable(error) from error
        if status >= FIRST_ERROR:
            raise refusal(status, got)
        try:
            return msgspec.json.decode(got, type=expected)
        except msgspec.MsgspecError as error:
            raise self._foreign(error) from error

    def _unreachable(self, error: Exception) -> UnreachableError:
        if isinstance(error, FileNotFoundError):
            why = "it is not running"
        else:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return UnreachableError(self.fleet, self.socket, why)

    def _foreign(self, error: Exception) -> CliError:
        return CliError(
            ExitCode.FAILED,
            f"the controller's answer is not understood: {error}",
            hint="controller and command line may be of different versions: compare `tritonfleet version` "
            "with `tritonfleet ps -o json`",
        )


def refusal(status: int, body: bytes) -> CliError:
    """The error that a 4xx or 5xx answer stands for."""
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.MsgspecError:
        text = body.decode(errors="replace").strip()[:300]
        return CliError(ExitCode.FAILED, f"the controller answered {status}: {text}")
    return CliError(_KIND_CODES.get(problem.kind, ExitCode.FAILED), problem.message, hint=problem.hint)

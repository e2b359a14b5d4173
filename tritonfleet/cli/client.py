"""The typed client of the control API: requests go in as `core.wire` data, answers come out as such.

One `ControlClient` speaks to one fleet's controller over its unix socket. Every refusal becomes a
`CliError` with the exit code its kind deserves; a socket nobody listens on becomes exit code 4 with the
command that starts the fleet.
"""

import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.core.board import Board
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

REQUEST_TIMEOUT_S = 30.0  # a request only records a wish, so this is far more than any needs
CONNECT_TIMEOUT_S = 2.0
EVENT_SILENCE_S = 3600.0  # a followed event stream may be silent for long

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


class ControlClient:
    """A context manager; not for use by several threads."""

    def __init__(self, fleet: str, path: Path) -> None:
        self.fleet = fleet
        self.socket = path
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)),
            base_url="http://controller/v1",
            timeout=httpx.Timeout(REQUEST_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ControlClient of {self.fleet} at {self.socket}>"

    def close(self) -> None:
        self._http.close()

    def snapshot(self) -> FleetSnapshot:
        return self._ask("GET", "/snapshot", FleetSnapshot)

    def board(self) -> Board:
        return self._ask("GET", "/board", Board)

    def scale(self, request: ScaleRequest) -> Accepted:
        return self._ask("POST", "/scale", Accepted, request)

    def autoscale(self) -> list[AutoscaleStatus]:
        return self._ask("GET", "/autoscale", list[AutoscaleStatus])

    def apply(self, request: ApplyRequest) -> Accepted:
        return self._ask("POST", "/apply", Accepted, request)

    def drain(self, replica: str, request: DrainRequest) -> Accepted:
        return self._ask("POST", f"/replicas/{quote(replica, safe='')}/drain", Accepted, request)

    def undrain(self, replica: str) -> Accepted:
        return self._ask("POST", f"/replicas/{quote(replica, safe='')}/undrain", Accepted)

    def restart(self, replica: str, request: RestartRequest) -> Accepted:
        return self._ask("POST", f"/replicas/{quote(replica, safe='')}/restart", Accepted, request)

    def down(self, request: DownRequest) -> Accepted:
        return self._ask("POST", "/down", Accepted, request)

    def events(self, since: int = 0, *, follow: bool = False) -> Iterator[Event]:
        """Events with a number above ``since``, oldest first; with ``follow``, until the stream ends."""
        self._knock()
        query: dict[str, str] = {"since": str(since)}
        timeout = httpx.Timeout(REQUEST_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        if follow:
            query["follow"] = "1"
            timeout = httpx.Timeout(REQUEST_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, read=EVENT_SILENCE_S)
        try:
            with self._http.stream("GET", "/events", params=query, timeout=timeout) as response:
                if response.is_error:
                    response.read()
                    raise refusal(response)
                for line in response.iter_lines():
                    if line.strip():
                        yield msgspec.json.decode(line, type=Event)
        except httpx.RemoteProtocolError:
            return  # the controller went away in the middle of a line: the stream has ended
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        except msgspec.MsgspecError as error:
            raise self._foreign(error) from error

    def _ask(self, method: str, path: str, answer: type[T], body: Any = None) -> T:
        content = msgspec.json.encode(body) if body is not None else None
        self._knock()
        headers = {"content-type": "application/json"} if content is not None else None
        try:
            response = self._http.request(method, path, content=content, headers=headers)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.is_error:
            raise refusal(response)
        try:
            return msgspec.json.decode(response.content, type=answer)
        except msgspec.MsgspecError as error:
            raise self._foreign(error) from error

    def _knock(self) -> None:
        """Raise UnreachableError if nobody listens: httpx would leave the refused socket to the collector."""
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(CONNECT_TIMEOUT_S)
                probe.connect(str(self.socket))
        except FileNotFoundError:
            raise UnreachableError(self.fleet, self.socket, "it is not running") from None
        except OSError as error:
            raise UnreachableError(self.fleet, self.socket, error.strerror or str(error)) from error

    def _unreachable(self, error: httpx.TransportError) -> UnreachableError:
        return UnreachableError(self.fleet, self.socket, str(error) or type(error).__name__)

    def _foreign(self, error: Exception) -> CliError:
        return CliError(
            ExitCode.FAILED,
            f"the controller's answer is not understood: {error}",
            hint="controller and command line may be of different versions: compare `tritonfleet version` "
            "with `tritonfleet ps -o json`",
        )


def refusal(response: httpx.Response) -> CliError:
    """The error that a 4xx or 5xx answer stands for."""
    try:
        problem = msgspec.json.decode(response.content, type=Problem)
    except msgspec.MsgspecError:
        text = response.text.strip()[:300]
        return CliError(ExitCode.FAILED, f"the controller answered {response.status_code}: {text}")
    return CliError(_KIND_CODES.get(problem.kind, ExitCode.FAILED), problem.message, hint=problem.hint)

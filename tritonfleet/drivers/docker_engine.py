"""The Docker Engine as the driver uses it: the SDK's calls off the event loop, its errors with remedies.

The `docker` SDK is synchronous. Calls run in a small pool of threads; streams (events, a container's output)
last for hours and get a thread of their own each, so that they never use up the pool.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import docker
import requests
import urllib3
from docker import errors, utils
from docker.constants import DEFAULT_DOCKER_API_VERSION

from tritonfleet.drivers.base import DriverError
from tritonfleet.drivers.docker_ssh import SshRelay

DEFAULT_HOST = "unix:///var/run/docker.sock"
CALL_TIMEOUT_S = 60.0
THREADS = 8
_THIS_HOST = ("localhost", "127.0.0.1", "::1")
FIRST_RETRY_S, LAST_RETRY_S = 0.2, 3.0

Client = Any  # docker.APIClient; the SDK ships no types
T = TypeVar("T")
_STREAM_ENDS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    errors.DockerException,
    OSError,
    ValueError,
)


def other_host(host: str, environ: Mapping[str, str]) -> str:
    """The name of the host that this daemon runs on if that is another one than ours, else ""."""
    name = _host_name(host or environ.get("DOCKER_HOST", ""))
    return "" if name in _THIS_HOST else name


def _host_name(url: str) -> str:
    """The host in a Docker host's URL; "" if it is a socket."""
    parts = urlsplit(url)
    return parts.hostname or "" if parts.scheme in ("ssh", "tcp", "http", "https") else ""


class DaemonUnreachableError(DriverError):
    """There is no daemon that answers. What its containers do is unknown, not over."""


class NotThereError(DriverError):
    """The daemon has no such container."""


class NameTakenError(DriverError):
    """A container of that name exists."""


class PortTakenError(DriverError):
    """A port that was free a moment ago is not."""


class DockerEngine:
    """One daemon. ``host`` as in DOCKER_HOST: unix://, tcp:// (with DOCKER_TLS_VERIFY and DOCKER_CERT_PATH in
    ``environ``), ssh:// (by the ssh command); "" is what ``environ`` says, else the local socket."""

    def __init__(self, host: str, environ: Mapping[str, str], *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self.host = host or environ.get("DOCKER_HOST", "") or DEFAULT_HOST
        self._environ = {**environ, "DOCKER_HOST": self.host}
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="docker")
        self._client: Client = None
        self._relay: SshRelay | None = None
        self._connecting = threading.Lock()

    @property
    def remote_name(self) -> str:
        """The name to reach the daemon's host by when it is not reached by a socket, else ""."""
        return _host_name(self.host)

    def connect(self) -> Client:
        """The client, connected. Blocks; raises what the SDK raises, and OSError."""
        self._knock()
        with self._connecting:
            if self._client is None:
                if self.host.startswith("ssh://") and self._relay is None:
                    self._relay = SshRelay(self.host)
                    self._environ["DOCKER_HOST"] = self._relay.host
                self._client = _client(self._environ, self._timeout_s)
            return self._client

    def _knock(self) -> None:
        """Raise OSError when nobody listens on a local socket: the SDK would leave the socket that failed to
        the garbage collector, and tell less well why."""
        kind, _, path = self.host.partition("://")
        if kind == "unix":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(self._timeout_s)
                probe.connect(path)

    def now(self, what: str, work: Callable[[Client], T]) -> T:
        """``work`` in this very thread. Raises DriverError beginning with ``what``."""
        try:
            return work(self.connect())
        except DriverError:
            raise
        except (errors.DockerException, requests.RequestException, OSError) as error:
            raise explained(error, what, self.host) from error

    async def call(self, what: str, work: Callable[[Client], T]) -> T:
        """``work`` in a thread; if the caller is cancelled it runs on to its end."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.now, what, work)

    async def call_patiently(self, what: str, work: Callable[[Client], T]) -> T:
        """The same, waiting for a daemon that is away: for what must happen sooner or later."""
        delay = FIRST_RETRY_S
        while True:
            try:
                return await self.call(what, work)
            except DaemonUnreachableError:
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_RETRY_S)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._connecting:
            if self._client is not None:
                self._client.close()
                self._client = None
            if self._relay is not None:
                self._relay.close()
                self._relay = None


def _client(environ: Mapping[str, str], timeout_s: float) -> Client:
    """A client that speaks the daemon's version of the API."""

    def of(version: str) -> Client:
        client = docker.APIClient(version=version, timeout=timeout_s, **utils.kwargs_from_env(environ))
        # Else REQUESTS_CA_BUNDLE would be believed in place of the authority in DOCKER_CERT_PATH, and a
        # daemon in the same network be looked for through HTTP_PROXY.
        client.trust_env = False
        return client

    first = of(DEFAULT_DOCKER_API_VERSION)  # one that is to find the version itself asks while it is made
    try:
        return of(first.version(api_version=False)["ApiVersion"])
    finally:
        first.close()


class Stream:
    """Something the daemon says as it happens, handed to ``take`` in a thread, until its end or `close`.
    ``opened`` is set when the daemon has begun to answer, or never will; ``at_end`` is called on the loop."""

    def __init__(
        self,
        engine: DockerEngine,
        opens: Callable[[Client], Any],
        take: Callable[[Any], object],
        *,
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine, self._opens, self._take, self._at_end = engine, opens, take, at_end
        self._loop = asyncio.get_running_loop()
        self._source: Any = None
        self._closed = False
        self._lock = threading.Lock()
        self.opened, self.ended = asyncio.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._read, name="docker stream", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for item in self._items():
                self._take(item)
        except _STREAM_ENDS:
            pass  # the daemon went away, or we closed it: whoever needs more opens another
        finally:
            self._tell(self._finish)

    def _items(self) -> Iterator[Any]:
        source = self._opens(self._engine.connect())
        with self._lock:
            self._source = source
        if self._closed:
            self._shut()
        self._tell(self.opened.set)
        try:
            yield from source
        finally:
            source._response.close()  # noqa: SLF001 # the SDK closes it only when it is broken off

    def _tell(self, what: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is gone: nobody is left to be told
            self._loop.call_soon_threadsafe(what)

    def _finish(self) -> None:
        self.ended.set()
        self.opened.set()
        self._at_end()

    def _shut(self) -> None:
        with self._lock:
            source, self._source = self._source, None
        if source is not None:
            with suppress(*_STREAM_ENDS, AttributeError):  # AttributeError: it has just ended by itself
                source.close()

    async def close(self) -> None:
        """Returns when the thread has ended."""
        self._closed = True
        self._shut()
        await asyncio.to_thread(self._thread.join, CALL_TIMEOUT_S)


def explained(error: Exception, what: str, host: str) -> DriverError:
    """What went wrong between us and the daemon, and what a person can do about it."""
    if isinstance(error, errors.APIError):
        return _refused(error, what)
    causes = list(_causes(error))
    text = f"{what}: "
    if any(isinstance(cause, PermissionError) for cause in causes):
        return DaemonUnreachableError(
            f"{text}permission denied on {host}",
            remedy="`sudo usermod -aG docker $USER`, then log in again",
            transient=False,
        )
    if any(isinstance(cause, FileNotFoundError | ConnectionRefusedError) for cause in causes):
        return DaemonUnreachableError(
            f"{text}no Docker daemon at {host}",
            remedy="start it (`sudo systemctl start docker`), or set docker_host or DOCKER_HOST",
        )
    if any(isinstance(cause, requests.Timeout) for cause in causes):
        return DaemonUnreachableError(
            f"{text}the Docker daemon at {host} does not answer", remedy="look at `journalctl -u docker`"
        )
    if (
        isinstance(error, errors.DockerException)
        and not isinstance(error, errors.APIError)
        and "api version" not in str(error).lower()
    ):
        return DriverError(
            f"{text}{error}", transient=False
        )  # a host that cannot be understood, certificates
    try_it = f"try `docker -H {host} version`"
    return DaemonUnreachableError(f"{text}the Docker daemon at {host}: {causes[-1]}", remedy=try_it)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from; urllib3 keeps the origin among the arguments."""
    seen: list[BaseException] = []
    todo = [error]
    while todo:
        found = todo.pop()
        if found in seen:
            continue
        seen.append(found)
        yield found
        todo += [inner for inner in (found.__cause__, found.__context__) if inner is not None]
        todo += [inner for inner in found.args if isinstance(inner, BaseException)]
        todo += [inner for inner in (getattr(found, "reason", None),) if isinstance(inner, BaseException)]


# What the daemon says → our class, our words, the remedy, and whether trying again can help.
_REFUSALS: tuple[tuple[str, type[DriverError], str, str, bool], ...] = (
    (
        "could not select device driver", DriverError,
        "the Docker daemon cannot give GPUs to containers",
        "install nvidia-container-toolkit, `sudo nvidia-ctk runtime configure --runtime=docker`, "
        "`sudo systemctl restart docker`",
        False,
    ),
    (
        "nvidia-container-cli", DriverError,
        "the NVIDIA container runtime refused the device",
        "compare `devices` with `nvidia-smi -L`; after a driver update restart the host",
        False,
    ),
    (
        "no space left on device", DriverError,
        "no space left on the Docker host", "`docker system df`, then `docker system prune`", True,
    ),
    (
        "docker-init", DriverError,
        "the Docker host has no docker-init", "install the package tini there", False,
    ),
    (
        "bind source path does not exist", DriverError,
        "the model repository is not on the Docker host", "put it there under the same path", False,
    ),
    (
        "error setting rlimit", DriverError,
        "the Docker daemon may not raise limits", "write `ulimits: {}` under the pool's triton", False,
    ),
    ("unable to find user", DriverError, "the image has no such user", "correct triton.user", False),
    ("port is already allocated", PortTakenError, "a port is taken", "", True),
    ("address already in use", PortTakenError, "a port is taken", "", True),
)  # fmt: skip


def _refused(error: errors.APIError, what: str) -> DriverError:
    said = str(error.explanation or error)
    for words, kind, message, remedy, transient in _REFUSALS:
        if words in said:
            return kind(f"{what}: {message}: {said}", remedy=remedy, transient=transient)
    if "is already in use by container" in said:
        return NameTakenError(f"{what}: {said}")
    if error.status_code == requests.codes.not_found and "No such container" in said:
        return NotThereError(f"{what}: {said}")
    return DriverError(f"{what}: {said}", remedy="look at `journalctl -u docker`")

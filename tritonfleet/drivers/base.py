"""The driver contract: how the controller starts, finds, watches and stops server processes.

A driver remembers nothing that matters: what it started carries its own truth (a state file checked
against the live process, container labels), so that `list` after the controller's death finds exactly
what runs. Every driver, the scriptable fake included, passes ``tests/contract/``.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from tritonfleet.core.device_access import DeviceLook
from tritonfleet.core.image_pull import ImagePull
from tritonfleet.core.launched import Launched
from tritonfleet.core.model import Device, ExitStatus
from tritonfleet.core.replica_tls import ReplicaTls, ServerTls


@dataclass(frozen=True, slots=True)
class ContainerSettings:
    """What only a container engine needs to know. ``shm_size`` in bytes; ``user`` "" is the image's own;
    ``ulimits``: name and limit, -1 is unlimited; None is what NVIDIA recommends, where there is a GPU."""

    image: str = ""
    shm_size: int = 1 << 30
    user: str = ""
    ulimits: tuple[tuple[str, int], ...] | None = None


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Everything needed to launch one replica. ``exit_timeout_s`` is Triton's own
    ``--exit-timeout-secs``; a stop that is not forced always waits longer than that."""

    fleet: str
    pool: str
    replica: str
    generation: int
    config_hash: str
    devices: tuple[Device, ...]
    model_repository: str  # absolute path
    models: tuple[str, ...] = ("*",)  # names to load; "*" means all of the repository
    args: tuple[str, ...] = ()  # further tritonserver arguments, verbatim, last (so they win)
    env: dict[str, str] = field(default_factory=dict)
    exit_timeout_s: int = 30
    container: ContainerSettings = ContainerSettings()
    tls: ServerTls | None = None  # its gRPC is by TLS

    @property
    def instance(self) -> str:
        return f"{self.replica}.{self.generation}"


@dataclass(frozen=True, slots=True)
class Instance:
    """One launched server process, running or ended, as the driver's records and the system show it."""

    fleet: str
    pool: str
    replica: str
    generation: int
    config_hash: str
    devices: tuple[str, ...]
    handle: str  # "pid 4242", a container id
    host: str
    grpc_port: int
    http_port: int
    metrics_port: int
    started_at: float
    exit_timeout_s: int
    exit: ExitStatus | None = None  # None while it runs
    tls: ReplicaTls | None = None  # how it is spoken to; None: without TLS

    @property
    def instance(self) -> str:
        return f"{self.replica}.{self.generation}"

    @property
    def running(self) -> bool:
        return self.exit is None


class DriverError(Exception):
    """A driver could not do what was asked. ``remedy`` says what a person can do about it.

    ``transient`` is False when trying again cannot help until a person acts (no such binary, no such
    image): the controller then backs off at its longest delay instead of climbing to it. ``by_device`` is
    False where it is the host's doing (a full disk, no free port), which no other device would have spared.
    """

    def __init__(
        self, message: str, *, remedy: str = "", transient: bool = True, by_device: bool = True
    ) -> None:
        super().__init__(message)
        self.by_device = by_device
        self.remedy = remedy
        self.transient = transient


class Driver(Protocol):
    """One fleet's processes on one engine. All calls are safe to cancel."""

    name: str

    @property
    def away(self) -> str:
        """Why nothing is known of what runs: the engine that runs it does not answer. "" while it does."""

    async def capacity(self) -> tuple[Device, ...]:
        """The devices replicas can be pinned to, in the order to prefer them."""

    async def start(self, spec: LaunchSpec) -> Instance:
        """Launch and return as soon as the process exists: loading models is watched by the controller.

        Raises DriverError; then nothing of the launch is left behind. Starting an instance name that
        already exists is a DriverError.
        """

    async def list(self) -> list[Instance]:
        """Every instance of this fleet that was started and not removed, running or ended, however many
        controllers ago. Ordered by replica and generation."""

    async def wait(self, instance: Instance) -> ExitStatus:
        """Return when it has ended (at once if it has). Several waiters are fine."""

    async def stop(self, instance: Instance, grace_s: float) -> ExitStatus:
        """Ask it to exit, wait up to ``grace_s`` seconds, then kill it and everything it started.
        ``grace_s=0`` kills at once. Idempotent: an ended instance returns its status."""

    async def remove(self, instance: Instance) -> None:
        """Forget an ended instance: its record and what it left in the system (shared memory) go, its log
        stays. Idempotent; raises DriverError while it still runs."""

    async def launch_of(self, instance: Instance) -> Launched:
        """How it was launched, as the system shows it of what runs, whoever launched it. Raises DriverError
        when it does not run."""

    def logs(self, replica: str, *, tail: int | None = 100, follow: bool = False) -> AsyncIterator[str]:
        """Lines of a replica's log over all its generations, oldest first, without line ends. With
        ``follow``, goes on until cancelled, across rotation and restarts."""

    async def look(self, instance: Instance) -> DeviceLook | None:
        """Ask a new process beside the server, where it runs, which GPUs it sees. None where that can tell
        nothing: no GPU was given, or what is given cannot be taken away. Raises DriverError without an
        answer."""

    def pulls(self) -> tuple[ImagePull, ...]:
        """The last pull of each image that this driver had to pull; none where there are no images."""

    async def maintain(self) -> None:
        """Called about every ten seconds: rotate logs and the like. Must be cheap and never raise."""

    async def close(self) -> None:
        """Let go of watchers and files. Running instances go on running."""

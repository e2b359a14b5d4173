"""The nouns of a fleet, as frozen data: what decisions take and what the control API shows.

Times are seconds since the epoch (``time.time()``) unless a name ends in ``_s`` (a duration in
seconds). Everything here is plain data: decisions in this package take it and return it, drivers
and the controller fill it in, and the wire format (`tritonfleet.core.wire`) is its JSON.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class ReplicaState(StrEnum):
    """Where a replica is in its life.

    ``pending → starting → loading → ready → draining → stopping → (gone)``, and ``failed`` from
    any of them, which becomes ``crash_loop`` when it repeats.
    """

    PENDING = "pending"  # wanted; waits for a free device slot
    STARTING = "starting"  # the driver has been asked to launch it
    LOADING = "loading"  # the server process runs; not all of its models are ready
    READY = "ready"  # every model it should serve is ready; the router may choose it
    DRAINING = "draining"  # the router sends nothing new; what is in flight finishes
    STOPPING = "stopping"  # the server was told to exit
    FAILED = "failed"  # exited or was given up on; starts again when its backoff ends
    CRASH_LOOP = "crash_loop"  # failed repeatedly; still retried, at the longest delays

    @property
    def serving(self) -> bool:
        """Whether the router may hold requests there (draining included)."""
        return self in (ReplicaState.READY, ReplicaState.DRAINING)


class DeviceKind(StrEnum):
    CPU = "cpu"
    GPU = "gpu"
    MIG = "mig"


@dataclass(frozen=True, slots=True)
class Device:
    """One place where replicas can be pinned: a GPU, a MIG slice, or a CPU slot.

    ``id`` is what the fleet file and the driver call it: ``cpu0``, a GPU index such as ``0``, or a
    ``GPU-…``/``MIG-…`` UUID. ``memory_bytes`` is 0 where it is not known.
    """

    id: str
    kind: DeviceKind
    name: str = ""
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """What the driver of a GPU or MIG slice said of it at ``at``. None where it does not say: a slice has no
    utilization of its own, GPUs for desktops have no ECC memory."""

    at: float
    memory_bytes: int | None = None  # in all
    memory_used_bytes: int | None = None  # by every process, also those that are none of ours
    utilization: float | None = None  # 0..1: the share of time that a kernel ran, over the last second or so
    temperature_c: float | None = None
    power_w: float | None = None
    ecc_errors: int | None = None  # uncorrected, since the driver was loaded
    trouble: str = ""  # why there is no reading: "GPU is lost" …

    @property
    def free_bytes(self) -> int | None:
        if self.memory_bytes is None or self.memory_used_bytes is None:
            return None
        return max(0, self.memory_bytes - self.memory_used_bytes)


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model on one replica, as its repository index reports it."""

    name: str
    ready: bool
    versions: tuple[str, ...] = ()  # the ready versions
    reason: str = ""  # Triton's words when it is not ready


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a server process ended. ``code`` is None when a signal ended it or nobody could tell."""

    at: float
    code: int | None = None
    signal: int | None = None
    detail: str = ""  # anything the driver knows besides: "out of memory", last error line …

    def __str__(self) -> str:
        if self.signal is not None:
            how = f"killed by {_SIGNALS.get(self.signal, f'signal {self.signal}')}"
        elif self.code is not None:
            how = f"exited with code {self.code}"
        else:
            how = "exited (code unknown: another process started it)"
        return f"{how}: {self.detail}" if self.detail else how


# The signal numbers of Linux, for messages; `signal.Signals` would do, but enum look-ups raise.
_SIGNALS = {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE",
            9: "SIGKILL", 11: "SIGSEGV", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica of a pool, as decisions and people see it.

    ``id`` (``main-0``) names the slot and survives restarts; ``generation`` counts the launches of
    that slot, so ``instance`` (``main-0.3``) names one server process and is never reused.
    """

    id: str
    pool: str
    generation: int
    state: ReplicaState
    since: float  # when it entered this state
    reason: str  # why it is in this state, in words
    config_hash: str  # of what it was launched with
    devices: tuple[str, ...] = ()
    host: str = ""
    grpc_port: int = 0
    http_port: int = 0
    metrics_port: int = 0
    handle: str = ""  # the driver's name for the process: "pid 4242", a container id
    started_at: float | None = None  # of this generation
    ready_at: float | None = None  # of this generation
    restarts: int = 0  # launches after an unwanted exit
    retry_at: float | None = None  # failed/crash_loop: when the next launch is due
    drain_deadline: float | None = None  # draining: when waiting ends
    in_flight: int | None = None  # as the routers count it; None when no router has reported lately
    models: tuple[ModelStatus, ...] = ()
    held: bool = False  # emptied by `drain`: once stopped it stays so until `undrain`
    tls: bool = False  # whether its gRPC port is spoken to by TLS

    @property
    def instance(self) -> str:
        return f"{self.id}.{self.generation}"

    @property
    def ordinal(self) -> int:
        return int(self.id.rpartition("-")[2])


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the journal: who did what, when, and why."""

    seq: int  # grows by one per event of a fleet
    at: float
    type: str  # dotted: "replica.ready", "pool.scaled", "controller.started"
    subject: str  # replica id, pool name, "router", "controller"
    reason: str  # in words, with the numbers
    data: dict[str, str | int | float | bool | None] = field(default_factory=dict)

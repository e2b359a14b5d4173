"""What `doctor` knows when it judges: plain data that `gather` found, so that every verdict can be tested."""

from dataclasses import dataclass, field
from typing import Literal

from tritonfleet.core.certificates import Certificate
from tritonfleet.core.model import Device, DeviceReading
from tritonfleet.core.wire import FleetSnapshot
from tritonfleet.drivers.docker_facts import DockerFacts
from tritonfleet.triton.repository import Repository


@dataclass(frozen=True, slots=True)
class HostFacts:
    """``clock_synchronized`` None: the kernel does not say. Sizes in bytes, None: no such file."""

    python: tuple[int, int, int] = (3, 11, 0)
    machine: str = "x86_64"
    glibc: str = ""
    clock_synchronized: bool | None = True
    shm_bytes: int | None = 1 << 30
    shm_free: int | None = 1 << 30
    open_files: tuple[int, int] = (65536, 65536)  # soft, hard
    state_dir: str = ""
    state_error: str = ""
    state_free: int = 1 << 40


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The tritonserver that processes of this host would run."""

    binary: str = ""
    kind: str = ""
    version: str = ""
    backends: frozenset[str] | None = None
    error: str = ""
    remedy: str = ""
    said: str = ""  # what it said instead of its usage, when it was run


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """``driver`` "": NVML does not answer. ``nodes``: whether /dev/nvidia… is there all the same;
    ``unlinked``: those of which /dev/char has no link."""

    driver: str = ""
    trouble: str = ""
    nodes: bool = False
    devices: tuple[Device, ...] = ()
    readings: dict[str, DeviceReading] = field(default_factory=dict)
    unlinked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AddressFacts:
    """An address that the fleet is to listen on. ``error``: why it cannot, "" if it can."""

    key: str
    address: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class PoolFacts:
    name: str
    folder: str
    repository: Repository | None = None
    error: str = ""
    image: str = ""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """``error``: all that is wrong with it. ``devices``, ``lacking``: as file and host together say.
    ``certificates`` as they were ``at`` that time, in epoch seconds."""

    path: str
    there: bool = True
    error: str = ""
    fleet: str = ""
    driver: Literal["process", "docker"] = "process"
    devices: tuple[Device, ...] = ()
    device_error: str = ""
    device_remedy: str = ""
    lacking: str = ""
    pools: tuple[PoolFacts, ...] = ()
    addresses: tuple[AddressFacts, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class FleetFacts:
    """The running fleet. ``snapshot`` None: no controller answers, ``error`` says why. ``answer``: what a
    client gets at the router's address, "" if all is well, None where nobody asked; ``unasked``: why not;
    ``by_tls``: that was a handshake and no more."""

    name: str = ""
    snapshot: FleetSnapshot | None = None
    error: str = ""
    left_behind: bool = False
    answer: str | None = None
    unasked: str = ""
    by_tls: bool = False


@dataclass(frozen=True, slots=True)
class ProbeFacts:
    """What `--gpu` proved of one device, or what went wrong."""

    device: str
    proved: str = ""
    error: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    version: str
    host: HostFacts
    server: ServerFacts
    gpu: GpuFacts
    file: FileFacts
    fleet: FleetFacts
    docker: DockerFacts | None = None  # None: not looked for
    probes: tuple[ProbeFacts, ...] | None = None  # None: not asked for

"""What a controller must find again after its own death, beside the driver's records: small JSON files,
written whole or not at all."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tritonfleet.core.device_health import DeviceHealth
from tritonfleet.core.model import ModelStatus, ReplicaState
from tritonfleet.drivers.spawn import ProcessIdentity

log = logging.getLogger(__name__)

T = TypeVar("T")
Write = Callable[[Path, Any], None]


@dataclass(frozen=True, slots=True)
class SavedSlot:
    """A replica's memory. ``state`` is what it was in; the process itself is in the driver's records."""

    pool: str
    generation: int
    state: ReplicaState
    reason: str = ""
    ready_at: float | None = None
    restarts: int = 0
    failures: int = 0
    held: bool = False
    after_stop: str = "forget"
    cold_start_s: float | None = None
    models: tuple[ModelStatus, ...] = ()
    drain_deadline: float | None = None
    had_devices: bool = False


@dataclass(frozen=True, slots=True)
class SavedPin:
    """Who pinned a pool's size, and when that ends by itself (epoch seconds)."""

    by: str = ""
    until: float | None = None


@dataclass(frozen=True, slots=True)
class SavedFleet:
    """``sizes``: what `scale` pinned; ``pins``: more about these; ``generations``: the last one used by each
    slot that ever was; ``devices``: those where launches failed, or that are set aside."""

    revision: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    slots: dict[str, SavedSlot] = field(default_factory=dict)
    pins: dict[str, SavedPin] = field(default_factory=dict)
    devices: dict[str, DeviceHealth] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SavedWorker:
    """A router worker's process, and the command line it was started with."""

    identity: ProcessIdentity
    command: tuple[str, ...]
    started_at: float
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class SavedController:
    identity: ProcessIdentity
    file: str
    started_at: float


def write(path: Path, value: Any) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(msgspec.json.encode(value))
    beside.replace(path)


def read(path: Path, kind: type[T]) -> T | None:
    """None when there is none, or only what some file systems make of a new file when the power fails: then
    nothing of the fleet runs either, and it must come up without a person. Raises ValueError, naming the
    file, when it cannot be understood."""
    try:
        data = path.read_bytes()
        if not data.strip(b"\0"):
            log.error("%s is empty, as after a power loss: what it said is lost", path)
            return None
        return msgspec.json.decode(data, type=kind)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise ValueError(
            f"{path} cannot be understood ({error}); move it away and start again: what runs is adopted"
        ) from error

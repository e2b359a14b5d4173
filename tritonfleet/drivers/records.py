"""The process driver's records: one JSON file per instance, written whole or not at all."""

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tritonfleet.core.model import ExitStatus
from tritonfleet.core.replica_tls import ReplicaTls
from tritonfleet.drivers.base import DriverError, Instance, LaunchSpec
from tritonfleet.drivers.spawn import ProcessIdentity
from tritonfleet.triton.launch import Ports


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one launch. ``pid`` is 0 from the intent until the process exists."""

    fleet: str
    pool: str
    replica: str
    generation: int
    config_hash: str
    devices: tuple[str, ...]
    grpc_port: int
    http_port: int
    metrics_port: int
    shm_prefix: str
    started_at: float
    exit_timeout_s: int
    pid: int = 0
    start_ticks: int = 0
    boot_id: str = ""
    exit: ExitStatus | None = None
    env_set: tuple[str, ...] = ()  # names of what its launch set beyond what it inherited
    tls: ReplicaTls | None = None

    @classmethod
    def of(cls, spec: LaunchSpec, ports: Ports, *, shm_prefix: str, now: float) -> "Record":
        return cls(
            spec.fleet, spec.pool, spec.replica, spec.generation, spec.config_hash,
            tuple(device.id for device in spec.devices), ports.grpc, ports.http, ports.metrics,
            shm_prefix, now, spec.exit_timeout_s, tls=spec.tls.client if spec.tls else None,
        )  # fmt: skip

    @property
    def ports(self) -> tuple[int, int, int]:
        return self.grpc_port, self.http_port, self.metrics_port

    @property
    def identity(self) -> ProcessIdentity | None:
        return ProcessIdentity(self.pid, self.start_ticks, self.boot_id) if self.pid else None

    def instance_data(self, host: str) -> Instance:
        return Instance(
            self.fleet, self.pool, self.replica, self.generation, self.config_hash, self.devices,
            f"pid {self.pid}" if self.pid else "not launched", host, self.grpc_port, self.http_port,
            self.metrics_port, self.started_at, self.exit_timeout_s, self.exit, self.tls,
        )  # fmt: skip


class RecordStore:
    """Records by instance name in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, instance: str) -> Path:
        return self._folder / f"{instance}.json"

    def read(self, instance: str) -> Record | None:
        """None when there is no such record. Raises DriverError when it is damaged."""
        try:
            return msgspec.json.decode(self._path(instance).read_bytes(), type=Record)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise DriverError(
                f"{self._path(instance)} is damaged: {error}",
                remedy=f"end the process whose environment holds TRITONFLEET_INSTANCE={instance}, if there "
                "is one, and delete the file",
                transient=False,
            ) from error

    def all(self) -> list[Record]:
        names = sorted(path.stem for path in self._folder.glob("*.json"))
        return [record for name in names if (record := self.read(name)) is not None]

    def write(self, record: Record) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(f"{record.replica}.{record.generation}")
        beside = path.with_suffix(".new")
        with beside.open("wb") as file:
            file.write(msgspec.json.encode(record))
            file.flush()
            os.fsync(file.fileno())  # or a power loss may leave the new name on an empty file
        beside.replace(path)

    def remove(self, instance: str) -> None:
        path = self._path(instance)
        path.with_suffix(".new").unlink(missing_ok=True)  # of a write that was cut short
        path.unlink(missing_ok=True)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

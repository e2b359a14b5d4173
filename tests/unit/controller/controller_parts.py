"""A fleet without processes: a driver and clients that do as a test says, around the real controller."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic, time
from typing import Any

from tritonfleet.config import FleetSpec
from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.paths import FleetPaths
from tritonfleet.core.device_access import DeviceLook
from tritonfleet.core.image_pull import ImagePull
from tritonfleet.core.launched import Launched, masked
from tritonfleet.core.model import Device, DeviceKind, ExitStatus, ModelStatus
from tritonfleet.core.stats import ModelCounters
from tritonfleet.core.wire import ReplicaTelemetry, RouterTelemetry
from tritonfleet.drivers.base import DriverError, Instance, LaunchSpec
from tritonfleet.triton.client import ProbeError, RawAnswer

READY = (ModelStatus("digits", True, ("1",)), ModelStatus("echo", True, ("1",)))


@dataclass
class PaperServer:
    """One instance. ``models`` None: its port is closed; ``error``: what it answers instead."""

    spec: LaunchSpec
    instance: Instance
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    exit: ExitStatus | None = None
    models: tuple[ModelStatus, ...] | None = None
    error: str = ""
    requests: int = 0
    grace_s: float | None = None  # of the last `stop`
    look: DeviceLook | None = None

    def end(self, **how: Any) -> None:
        if self.exit is None:
            self.exit = ExitStatus(time(), **how)
        self.ended.set()

    def kill(self) -> None:
        self.end(signal=9)


class PaperDriver:
    """See `tritonfleet.drivers.base.Driver`. ``starts`` holds launches back until it is set."""

    name = "paper"

    def __init__(self, slots: int = 4) -> None:
        self.devices = tuple(Device(f"cpu{index}", DeviceKind.CPU) for index in range(slots))
        self.away = ""
        self.servers: dict[str, PaperServer] = {}
        self.launched: list[str] = []
        self.removed: list[str] = []
        self.refusal: DriverError | None = None
        self.starts = asyncio.Event()
        self.starts.set()
        self.stops = asyncio.Event()
        self.stops.set()
        self.come_up_ready = True
        self.on_device: list[str] = []

    def __getitem__(self, instance: str) -> PaperServer:
        return self.servers[instance]

    async def capacity(self) -> tuple[Device, ...]:
        return self.devices

    async def start(self, spec: LaunchSpec) -> Instance:
        await self.starts.wait()
        if self.refusal is not None:
            raise self.refusal
        assert spec.instance not in self.servers
        port = 30_000 + 10 * len(self.launched)
        instance = Instance(
            spec.fleet, spec.pool, spec.replica, spec.generation, spec.config_hash,
            tuple(device.id for device in spec.devices), f"pid {port}", "127.0.0.1", port, port + 1,
            port + 2, time(), spec.exit_timeout_s,
        )  # fmt: skip
        self.launched.append(spec.instance)
        server = self.servers[spec.instance] = PaperServer(spec, instance)
        server.models = READY if self.come_up_ready else None
        running = [s.instance.devices for s in self.servers.values() if s.exit is None]
        assert len(running) == len(set(running)), f"two processes on one device: {running}"
        return instance

    async def list(self) -> list[Instance]:
        found = [replace(server.instance, exit=server.exit) for server in self.servers.values()]
        return sorted(found, key=lambda instance: (instance.replica, instance.generation))

    async def launch_of(self, instance: Instance) -> Launched:
        server = self.servers[instance.instance]
        if server.exit is not None:
            raise DriverError("it does not run")
        return masked(("tritonserver", *server.spec.args), server.spec.env)

    async def wait(self, instance: Instance) -> ExitStatus:
        server = self.servers[instance.instance]
        await server.ended.wait()
        assert server.exit is not None
        return server.exit

    async def stop(self, instance: Instance, grace_s: float) -> ExitStatus:
        server = self.servers[instance.instance]
        server.grace_s = grace_s
        if grace_s > 0:
            await self.stops.wait()
        server.end(code=0)
        assert server.exit is not None
        return server.exit

    async def remove(self, instance: Instance) -> None:
        server = self.servers.pop(instance.instance, None)
        assert server is None or server.exit is not None, "removed while it runs"
        self.removed.append(instance.instance)

    async def logs(self, replica: str, *, tail: int | None = 100, follow: bool = False) -> AsyncIterator[str]:
        yield f"log of {replica}"

    async def look(self, instance: Instance) -> DeviceLook | None:
        return self.servers[instance.instance].look

    def pulls(self) -> tuple[ImagePull, ...]:
        return ()

    async def maintain(self) -> None:
        return

    async def close(self) -> None:
        return


class PaperClient:
    def __init__(self, server: PaperServer) -> None:
        self._server = server
        self.closed = False

    async def models(self, timeout: float) -> tuple[ModelStatus, ...]:
        if self._server.error:
            raise ProbeError(self._server.error)
        if self._server.models is None or self._server.exit is not None:
            raise ProbeError("nothing listens", refused=True)
        return self._server.models

    async def statistics(self, timeout: float) -> tuple[ModelCounters, ...]:
        return (
            ModelCounters("digits", "1", *[self._server.requests] * 3, 0, 0, self._server.requests, *[0] * 5),
        )

    async def call(
        self, path: str, message: bytes, timeout: float | None, metadata: Mapping[str, str]
    ) -> RawAnswer:
        return RawAnswer(12, "a paper server knows no RPC")

    async def close(self) -> None:
        self.closed = True


def spec_of(folder: Path, *, router: dict[str, Any] | None = None, **pool: Any) -> FleetSpec:
    """One pool ``main`` with delays that suit a test."""
    main = {
        "model_repository": str(folder),
        "replicas": {"min": 0, "initial": 2, "max": 6},
        "drain_timeout": 30,
        "health": {"interval": 0.02, "timeout": 1, "failures": 3},
        "restart": {"backoff": 0.05, "max_backoff": 0.2, "crash_loop_after": 3, "reset_after": 60},
        **pool,
    }
    return FleetSpec.model_validate(
        {"version": 1, "name": "paper", "router": router or {}, "pools": {"main": main}}
    )


def paths_of(folder: Path) -> FleetPaths:
    paths = FleetPaths.of("paper", {"TRITONFLEET_STATE_DIR": str(folder / "state")})
    paths.make()
    return paths


def fleet_of(folder: Path, driver: PaperDriver, spec: FleetSpec | None = None) -> Fleet:
    return Fleet(
        spec or spec_of(folder),
        folder / "tritonfleet.yaml",
        paths_of(folder),
        driver,
        driver.devices,
        lambda instance: PaperClient(driver[instance.instance]),
    )


async def until(condition: Callable[[], Any], what: str = "", timeout_s: float = 20.0) -> Any:
    """Poll until ``condition`` holds; bounded, for a test must end."""
    deadline = monotonic() + timeout_s
    while not (value := condition()):
        assert monotonic() < deadline, f"not within {timeout_s:g} s: {what or condition}"
        await asyncio.sleep(0.005)
    return value


def states(fleet: Fleet) -> dict[str, str]:
    return {replica.id: replica.state.value for replica in fleet.replicas()}


def kinds(fleet: Fleet, subject: str = "") -> list[str]:
    return [event.type for event in fleet.journal.since(0) if not subject or event.subject == subject]


def reasons(fleet: Fleet, kind: str) -> list[str]:
    return [event.reason for event in fleet.journal.since(0) if event.type == kind]


def report(
    revision: int, in_flight: dict[str, int] | None = None, *, worker: int = 0, **more: Any
) -> RouterTelemetry:
    """What a worker says: ``in_flight`` by instance."""
    rows = tuple(
        ReplicaTelemetry(instance, count, 0, 0.0, 2, True) for instance, count in (in_flight or {}).items()
    )
    values = {
        "pid": 4242, "started_at": 0.0, "client_connections": 1, "requests_total": 0, "refused_total": 0,
        "retries_total": 0, **more,
    }  # fmt: skip
    return RouterTelemetry(worker, table_revision=revision, replicas=rows, calls=(), **values)


@contextmanager
def worker_that_runs(fleet: Fleet) -> Iterator[None]:
    """The fleet believes in one router worker, whose reports a test writes."""
    (worker,) = fleet.workers._workers
    worker.running = True
    try:
        yield
    finally:
        worker.running = False

"""A driver without processes, for tests of what drivers are used by: it does on request what real servers do
by accident (start slowly, crash, refuse to start, hang when told to stop), and it passes the driver contract.

A `Script` says how the launches behave. An `Engine` holds what runs, as the host does for real drivers:
drivers that share one see the same instances, so adoption after a controller's death can be played.

Delays run on the event loop's clock (a loop whose time a test controls runs the fake in that time); the
stamps in instances and exits come from ``clock``, the wall clock unless told otherwise.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from tritonfleet.core.device_access import DeviceLook
from tritonfleet.core.image_pull import ImagePull
from tritonfleet.core.launched import Launched, masked
from tritonfleet.core.model import Device, ExitStatus, ModelStatus
from tritonfleet.core.stats import ModelCounters
from tritonfleet.drivers.base import DriverError, Instance, LaunchSpec
from tritonfleet.triton.client import ProbeError, RawAnswer

HOST = "127.0.0.1"
FIRST_PID, FIRST_PORT = 1000, 20_000


@dataclass(frozen=True, slots=True)
class Crash:
    """An end that nobody asked for, ``after_s`` seconds after the launch."""

    after_s: float
    code: int | None = 1
    signal: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one launch behaves. Unless told otherwise it is ready at once and exits with 0 when asked to."""

    ready_after_s: float = 0.0  # until then nothing listens on its ports
    crash: Crash | None = None
    refuse: DriverError | None = None  # `start` raises this
    hang: bool = False  # takes no notice of SIGTERM: only the kill ends it
    exit_after_s: float = 0.0  # how long it takes to exit when asked to
    models: tuple[str, ...] = ("echo",)
    unready: Mapping[str, str] = field(default_factory=dict)  # model → Triton's reason
    answer_after_s: float = 0.0  # how long it thinks about every question
    probe_error: str = ""  # every question fails with this, though it listens
    look: DeviceLook | None = None  # what a process beside it sees of its GPUs


class Script:
    """Behaviours by instance (``main-0.2``), else by replica (``main-0``), else ``default``.

    May be changed at any time; a launch keeps what it was given, `FakeProcess.behaviour` changes that.
    """

    def __init__(self, default: Behaviour | None = None, **behaviours: Behaviour) -> None:
        self.default = default or Behaviour()
        self.behaviours: dict[str, Behaviour] = dict(behaviours)

    def of(self, spec: LaunchSpec) -> Behaviour:
        by_replica = self.behaviours.get(spec.replica, self.default)
        return self.behaviours.get(spec.instance, by_replica)


class FakeProcess:
    """One launch: its instance, how it behaves from now on, and the counters its statistics show."""

    def __init__(self, launched: Instance, behaviour: Behaviour, clock: Callable[[], float]) -> None:
        self.launched, self.behaviour, self._clock = launched, behaviour, clock
        self.counters: dict[str, ModelCounters] = {}  # by model; absent ones are shown as zeros
        self.ended: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self._born = asyncio.get_running_loop().time()
        if behaviour.crash is not None:
            crash = behaviour.crash
            self._later(crash.after_s, code=crash.code, signal_number=crash.signal, detail=crash.detail)

    @property
    def running(self) -> bool:
        return not self.ended.done()

    @property
    def listening(self) -> bool:
        age = asyncio.get_running_loop().time() - self._born
        return self.running and age >= self.behaviour.ready_after_s

    def instance(self) -> Instance:
        """Its data as it is now."""
        known = self.launched
        return Instance(
            known.fleet, known.pool, known.replica, known.generation, known.config_hash, known.devices,
            known.handle, known.host, known.grpc_port, known.http_port, known.metrics_port, known.started_at,
            known.exit_timeout_s, None if self.running else self.ended.result(), known.tls,
        )  # fmt: skip

    def end(self, *, code: int | None = None, signal_number: int | None = None, detail: str = "") -> None:
        """It ends now, like this. Does nothing to one that has ended."""
        if self.running:
            self.ended.set_result(ExitStatus(self._clock(), code, signal_number, detail))

    def kill(self) -> None:
        """As ``kill -9`` by somebody."""
        self.end(signal_number=signal.SIGKILL)

    def terminate(self) -> None:
        """As SIGTERM."""
        if self.running and not self.behaviour.hang:
            self._later(self.behaviour.exit_after_s, code=0)

    def _later(
        self, delay_s: float, *, code: int | None, signal_number: int | None = None, detail: str = ""
    ) -> None:
        asyncio.get_running_loop().call_later(
            delay_s, lambda: self.end(code=code, signal_number=signal_number, detail=detail)
        )


class FakeClient:
    """What a `FakeProcess` answers to the controller: see `tritonfleet.triton.client.ReplicaClient`."""

    def __init__(self, process: FakeProcess) -> None:
        self._process = process

    async def _ask(self, timeout: float) -> None:
        delay_s = self._process.behaviour.answer_after_s
        await asyncio.sleep(min(delay_s, timeout))
        if delay_s > timeout:
            raise ProbeError(f"no answer within {timeout:g} s")
        if not self._process.listening:
            known = self._process.launched
            raise ProbeError(f"nothing listens on {known.host}:{known.grpc_port}", refused=True)
        if self._process.behaviour.probe_error:
            raise ProbeError(self._process.behaviour.probe_error)

    async def models(self, timeout: float) -> tuple[ModelStatus, ...]:
        await self._ask(timeout)
        behaviour = self._process.behaviour
        return tuple(
            ModelStatus(name, False, reason=behaviour.unready[name])
            if name in behaviour.unready
            else ModelStatus(name, True, ("1",))
            for name in sorted({*behaviour.models, *behaviour.unready})
        )

    async def statistics(self, timeout: float) -> tuple[ModelCounters, ...]:
        await self._ask(timeout)
        behaviour, counters = self._process.behaviour, self._process.counters
        ready = sorted(set(behaviour.models) - set(behaviour.unready))
        nothing = (0,) * 11
        return tuple(counters.get(name) or ModelCounters(name, "1", *nothing) for name in ready)

    async def call(
        self, path: str, message: bytes, timeout: float | None, metadata: Mapping[str, str]
    ) -> RawAnswer:
        """No RPC but those above: UNIMPLEMENTED, as Triton answers what it does not know."""
        try:
            await self._ask(timeout or 1.0)
        except ProbeError as error:
            return RawAnswer(14, str(error))
        return RawAnswer(12, f"{path} with {len(message)} bytes and {len(metadata)} metadata")

    async def close(self) -> None:
        """Nothing is held."""


class Engine:
    """What runs, whoever started it: the fake's operating system. `processes` is by fleet and instance."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.processes: dict[tuple[str, str], FakeProcess] = {}
        self.launches: list[LaunchSpec] = []  # every start that was asked for, refused ones too
        self._logs: dict[tuple[str, str], list[str]] = {}
        self._grown = asyncio.Event()

    def launch(self, spec: LaunchSpec, behaviour: Behaviour) -> FakeProcess:
        number = len(self.launches)
        self.launches.append(spec)
        if behaviour.refuse is not None:
            raise behaviour.refuse
        port = FIRST_PORT + 3 * number
        launched = Instance(
            spec.fleet, spec.pool, spec.replica, spec.generation, spec.config_hash,
            tuple(device.id for device in spec.devices), f"pid {FIRST_PID + number}", HOST,
            port, port + 1, port + 2, self.clock(), spec.exit_timeout_s,
            tls=spec.tls.client if spec.tls else None,
        )  # fmt: skip
        process = FakeProcess(launched, behaviour, self.clock)
        self.processes[spec.fleet, spec.instance] = process
        self.log(spec.fleet, spec.replica, f"--- {spec.instance} started")
        return process

    def log(self, fleet: str, replica: str, line: str) -> None:
        """The replica's server writes a line."""
        self._logs.setdefault((fleet, replica), []).append(line)
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    async def read(self, fleet: str, replica: str, tail: int | None, follow: bool) -> AsyncIterator[str]:
        lines = self._logs.setdefault((fleet, replica), [])
        position = 0 if tail is None else max(0, len(lines) - tail)
        while True:
            while position < len(lines):
                position += 1
                yield lines[position - 1]
            if not follow:
                return
            await self._grown.wait()


class FakeDriver:
    """See `tritonfleet.drivers.base.Driver`. Without an ``engine`` it has one to itself."""

    name = "fake"

    def __init__(
        self,
        fleet: str,
        devices: tuple[Device, ...],
        script: Script | None = None,
        *,
        engine: Engine | None = None,
    ) -> None:
        self._fleet, self._devices = fleet, devices
        self.away = ""
        self.script = script or Script()
        self.engine = engine or Engine()

    def process(self, instance: str) -> FakeProcess:
        """The launch of that name (``main-0.1``). Raises KeyError."""
        return self.engine.processes[self._fleet, instance]

    def client(self, instance: Instance) -> FakeClient:
        return FakeClient(self.process(instance.instance))

    async def capacity(self) -> tuple[Device, ...]:
        return self._devices

    async def start(self, spec: LaunchSpec) -> Instance:
        await asyncio.sleep(0)
        if (self._fleet, spec.instance) in self.engine.processes:
            raise DriverError(f"{spec.instance} exists already", remedy="start it under a new generation")
        return self.engine.launch(spec, self.script.of(spec)).instance()

    async def list(self) -> list[Instance]:
        await asyncio.sleep(0)
        mine = [
            process.instance()
            for (fleet, _), process in self.engine.processes.items()
            if fleet == self._fleet
        ]
        return sorted(mine, key=lambda instance: (instance.replica, instance.generation))

    async def wait(self, instance: Instance) -> ExitStatus:
        process = self.engine.processes.get((self._fleet, instance.instance))
        if process is None:
            return instance.exit or ExitStatus(self.engine.clock(), detail="it was removed")
        return await asyncio.shield(process.ended)

    async def launch_of(self, instance: Instance) -> Launched:
        process = self.engine.processes.get((self._fleet, instance.instance))
        if process is None or not process.running:
            raise DriverError(f"{instance.instance} does not run")
        [spec] = [one for one in self.engine.launches if one.instance == instance.instance][-1:]
        loaded = [f"--load-model={model}" for model in spec.models]
        return masked(
            ["tritonserver", f"--model-repository={spec.model_repository}", *loaded, *spec.args],
            spec.env, spec.container.image,
        )  # fmt: skip

    async def stop(self, instance: Instance, grace_s: float) -> ExitStatus:
        process = self.engine.processes.get((self._fleet, instance.instance))
        if process is not None and process.running:
            if grace_s > 0:
                process.terminate()
                await asyncio.wait([process.ended], timeout=grace_s)
            process.kill()
        return await self.wait(instance)

    async def remove(self, instance: Instance) -> None:
        await asyncio.sleep(0)
        process = self.engine.processes.get((self._fleet, instance.instance))
        if process is None:
            return
        if process.running:
            raise DriverError(f"{instance.instance} still runs ({instance.handle})", remedy="stop it first")
        del self.engine.processes[self._fleet, instance.instance]

    def logs(self, replica: str, *, tail: int | None = 100, follow: bool = False) -> AsyncIterator[str]:
        return self.engine.read(self._fleet, replica, tail, follow)

    async def look(self, instance: Instance) -> DeviceLook | None:
        await asyncio.sleep(0)
        return self.process(instance.instance).behaviour.look

    def pulls(self) -> tuple[ImagePull, ...]:
        return ()

    async def maintain(self) -> None:
        """Nothing grows."""

    async def close(self) -> None:
        """Nothing is held: what runs, runs on in the engine."""

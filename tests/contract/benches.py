"""The drivers under contract, each with the hands that a test lays on what it started."""

import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import docker_daemon

from tritonfleet.drivers import logs
from tritonfleet.drivers.base import ContainerSettings, Driver, Instance, LaunchSpec
from tritonfleet.drivers.devices import cpu_slots
from tritonfleet.drivers.docker import DockerDriver
from tritonfleet.drivers.fake import Behaviour, Crash, Engine, FakeDriver, Script
from tritonfleet.drivers.process import ProcessDriver
from tritonfleet.triton.client import ReplicaClient, TritonClient

ECHO = Path(__file__).parents[2] / "model_repository" / "echo"
WAIT_S = 60.0
BROKEN = """
class TritonPythonModel:
    def initialize(self, _args):
        raise RuntimeError("the weights are missing")

    def execute(self, requests):
        return requests
"""


class Bench(Protocol):
    """One fleet on one engine. ``driver`` makes a new driver object each time, as a new controller does."""

    fleet: str

    def driver(self, fleet: str = "") -> Driver: ...
    def client(self, instance: Instance) -> ReplicaClient: ...
    def kill(self, instance: Instance) -> None: ...
    def freeze(self, instance: Instance) -> None: ...
    def say(self, instance: Instance, line: str) -> None: ...
    def spec(self, replica: str = "main-0", generation: int = 1, *, broken: bool = False) -> LaunchSpec: ...


class ProcessBench:
    """Real servers, real signals."""

    def __init__(self, folder: Path) -> None:
        self.fleet = "t" + os.urandom(4).hex()
        self.state_dir = folder / "state" / self.fleet
        self.repository = folder / "models"
        shutil.copytree(ECHO, self.repository / "echo")
        broken = self.repository / "broken"
        (broken / "1").mkdir(parents=True)
        config = (ECHO / "config.pbtxt").read_text().replace('name: "echo"', 'name: "broken"')
        (broken / "config.pbtxt").write_text(config)
        (broken / "1" / "model.py").write_text(BROKEN)
        self._drivers: list[ProcessDriver] = []

    def driver(self, fleet: str = "") -> ProcessDriver:
        name = fleet or self.fleet
        self._drivers.append(ProcessDriver(name, self.state_dir.with_name(name), cpu_slots(4)))
        return self._drivers[-1]

    def client(self, instance: Instance) -> TritonClient:
        return TritonClient(instance.host, instance.grpc_port)

    def spec(self, replica: str = "main-0", generation: int = 1, *, broken: bool = False) -> LaunchSpec:
        return LaunchSpec(
            self.fleet, "main", replica, generation, "hash", cpu_slots(1), str(self.repository),
            ("broken",) if broken else ("echo",), exit_timeout_s=5,
        )  # fmt: skip

    def kill(self, instance: Instance) -> None:
        os.kill(pid_of(instance), signal.SIGKILL)

    def freeze(self, instance: Instance) -> None:
        os.kill(pid_of(instance), signal.SIGSTOP)
        deadline = time.monotonic() + WAIT_S
        while _state(pid_of(instance)) != "T":  # until it has stopped, a SIGTERM still ends it
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def say(self, instance: Instance, line: str) -> None:
        logs.append_line(self.state_dir / "logs" / f"{instance.replica}.log", line)

    async def end(self) -> None:
        last = self.driver()
        for instance in await last.list():
            await last.stop(instance, 0)
            await last.remove(instance)
        for driver in self._drivers:
            await driver.close()


class DockerBench(ProcessBench):
    """Real servers in real containers."""

    def driver(self, fleet: str = "") -> DockerDriver:  # type: ignore[override] # another real one
        name = fleet or self.fleet
        made = DockerDriver(name, self.state_dir.parent / name, cpu_slots(4))
        self._drivers.append(made)  # type: ignore[arg-type] # only `close` is asked of it
        return made

    def spec(self, replica: str = "main-0", generation: int = 1, *, broken: bool = False) -> LaunchSpec:
        spec = super().spec(replica, generation, broken=broken)
        return replace(spec, container=ContainerSettings(docker_daemon.IMAGE, shm_size=64 << 20))

    def kill(self, instance: Instance) -> None:
        docker_daemon.ask(lambda client: client.kill(identity_of(instance), "SIGKILL"))

    def freeze(self, instance: Instance) -> None:
        docker_daemon.ask(lambda client: client.kill(identity_of(instance), "SIGSTOP"))

    async def end(self) -> None:
        try:
            await super().end()
        finally:
            docker_daemon.remove_all(self.fleet)


class FakeBench:
    def __init__(self) -> None:
        self.fleet = "fake"
        self.engine = Engine()
        self.script = Script(
            Behaviour(ready_after_s=0.05),
            **{"main-9": Behaviour(crash=Crash(0.05, detail="model broken: the weights are missing"))},
        )

    def driver(self, fleet: str = "") -> FakeDriver:
        return FakeDriver(fleet or self.fleet, cpu_slots(4), self.script, engine=self.engine)

    def client(self, instance: Instance) -> ReplicaClient:
        return self.driver().client(instance)

    def spec(self, replica: str = "main-0", generation: int = 1, *, broken: bool = False) -> LaunchSpec:
        replica = "main-9" if broken else replica
        return LaunchSpec(self.fleet, "main", replica, generation, "hash", cpu_slots(1), "/models", ("echo",))

    def kill(self, instance: Instance) -> None:
        self.engine.processes[self.fleet, instance.instance].kill()

    def freeze(self, instance: Instance) -> None:
        process = self.engine.processes[self.fleet, instance.instance]
        process.behaviour = replace(process.behaviour, hang=True)

    def say(self, instance: Instance, line: str) -> None:
        self.engine.log(self.fleet, instance.replica, line)


def identity_of(instance: Instance) -> str:
    return instance.handle.removeprefix("container ")


def pid_of(instance: Instance) -> int:
    return int(instance.handle.removeprefix("pid "))


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

"""What the process driver does beyond the contract, with processes that cost nothing in Triton's place.

The stand-in is an executable named by ``TRITONFLEET_TRITONSERVER``; its environment says how it behaves.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tritonfleet.drivers import process as module
from tritonfleet.drivers import spawn
from tritonfleet.drivers.base import DriverError, Instance, LaunchSpec
from tritonfleet.drivers.devices import cpu_slots
from tritonfleet.drivers.process import ProcessDriver
from tritonfleet.drivers.records import Record, RecordStore

BOUND_S = 30.0
STAND_IN = """#!/bin/sh
echo "serving $*"
[ -n "$CHILD" ] && { sleep 60 & echo "child $!"; }
[ -n "$EXIT" ] && exit "$EXIT"
exec sleep 60
"""


class Fleet:
    """One fleet's state folder and stand-in, and drivers upon them."""

    def __init__(self, folder: Path) -> None:
        self.name = "t" + os.urandom(4).hex()
        self.state_dir = folder / "state" / self.name
        self.server = folder / "tritonserver"
        self.server.write_text(STAND_IN)
        self.server.chmod(0o755)
        self.environ = {**os.environ, "TRITONFLEET_TRITONSERVER": str(self.server)}
        self.drivers: list[ProcessDriver] = []

    def driver(self, **options: int) -> ProcessDriver:
        self.drivers.append(
            ProcessDriver(self.name, self.state_dir, cpu_slots(2), environ=self.environ, **options)
        )
        return self.drivers[-1]

    def spec(self, generation: int = 1, **env: str) -> LaunchSpec:
        return LaunchSpec(
            self.name, "main", "main-0", generation, "hash", cpu_slots(1), "/models", ("echo",), env=env
        )

    @property
    def record(self) -> Path:
        return self.state_dir / "instances" / "main-0.1.json"

    def edit(self, **changes: object) -> None:
        self.record.write_text(json.dumps({**json.loads(self.record.read_text()), **changes}))

    @property
    def log(self) -> str:
        return (self.state_dir / "logs" / "main-0.log").read_text()


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    marker = f"TRITONFLEET_FLEET={made.name}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        if marker in spawn.environment_of(int(entry.name)):
            os.kill(int(entry.name), signal.SIGKILL)
    for driver in made.drivers:
        await driver.close()


def pid_of(instance: Instance) -> int:
    return int(instance.handle.removeprefix("pid "))


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND_S
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


class TestRecordsAndProcesses:
    async def test_a_pid_that_somebody_else_has_now_is_ended_and_nothing_is_killed(
        self, fleet: Fleet
    ) -> None:
        bystander = await fleet.driver().start(fleet.spec())
        fleet.edit(start_ticks=1)
        adopted = fleet.driver()
        (found,) = await adopted.list()
        assert not found.running
        await adopted.stop(found, 0)
        await adopted.remove(found)
        assert await adopted.list() == []
        assert spawn.identify(pid_of(bystander)) is not None

    async def test_a_record_of_an_earlier_boot_is_ended(self, fleet: Fleet) -> None:
        await fleet.driver().start(fleet.spec())
        fleet.edit(boot_id="an earlier boot")
        assert [found.running for found in await fleet.driver().list()] == [False]

    async def test_an_intent_finds_its_process_by_its_markers(self, fleet: Fleet) -> None:
        """The controller died after the launch and before it wrote the pid."""
        started = await fleet.driver().start(fleet.spec())
        fleet.edit(pid=0, start_ticks=0, boot_id="")
        adopted = fleet.driver()
        assert await adopted.list() == [started]
        assert json.loads(fleet.record.read_text())["pid"] == pid_of(started)
        assert (await adopted.stop(started, 0)).signal == signal.SIGKILL

    @pytest.mark.parametrize("asked", ["wait", "stop", "remove"])
    async def test_an_intent_that_was_never_listed_is_no_dead_one(self, fleet: Fleet, asked: str) -> None:
        started = await fleet.driver().start(fleet.spec())
        fleet.edit(pid=0, start_ticks=0, boot_id="")
        adopted = fleet.driver()
        if asked == "remove":
            with pytest.raises(DriverError, match="still runs"):
                await adopted.remove(started)
        elif asked == "stop":
            assert (await adopted.stop(started, 0)).signal == signal.SIGKILL
        else:
            waiting = asyncio.create_task(adopted.wait(started))
            await asyncio.sleep(0)
            os.kill(pid_of(started), signal.SIGKILL)
            assert (await waiting).signal == signal.SIGKILL

    async def test_an_intent_without_a_process_was_never_launched(self, fleet: Fleet) -> None:
        """The controller died before the launch."""
        driver = fleet.driver()
        started = await driver.start(fleet.spec())
        await driver.stop(started, 0)
        fleet.edit(pid=0, start_ticks=0, boot_id="", exit=None)
        adopted = fleet.driver()
        (found,) = await adopted.list()
        assert found.exit is not None
        assert found.exit.detail == "the controller ended before it was launched"
        await adopted.remove(found)
        assert not fleet.record.exists()

    async def test_the_end_of_what_another_process_started_has_no_code(self, fleet: Fleet) -> None:
        code = (
            "import asyncio, sys; from pathlib import Path\n"
            "from tritonfleet.drivers.process import ProcessDriver\n"
            "from tritonfleet.drivers.base import LaunchSpec\n"
            "spec = LaunchSpec(sys.argv[1], 'main', 'main-0', 1, 'hash', (), '/models')\n"
            "driver = ProcessDriver(sys.argv[1], Path(sys.argv[2]), ())\n"
            "print(asyncio.run(driver.start(spec)).handle)"
        )
        other = [sys.executable, "-c", code, fleet.name, str(fleet.state_dir)]
        controller = await asyncio.to_thread(
            subprocess.run, other, env=fleet.environ, capture_output=True, text=True, check=True
        )
        driver = fleet.driver()
        (found,) = await driver.list()
        assert found.running
        assert found.handle == controller.stdout.strip()
        status = await driver.stop(found, BOUND_S)
        assert (status.code, status.signal) == (None, None)
        assert str(status) == "exited (code unknown: another process started it)"
        assert [again.exit for again in await fleet.driver().list()] == [status]

    async def test_what_a_dead_server_left_in_its_session_is_ended(self, fleet: Fleet) -> None:
        driver = fleet.driver()
        started = await driver.start(fleet.spec(CHILD="1"))
        await until(lambda: "child " in fleet.log)
        child = int(fleet.log.split("child ")[1].split()[0])
        os.kill(pid_of(started), signal.SIGKILL)
        await driver.wait(started)
        await until(lambda: (found := spawn.identify(child)) is None or not spawn.alive(found))

    async def test_remove_of_one_that_nobody_waited_for_leaves_no_zombie(self, fleet: Fleet) -> None:
        driver = fleet.driver()
        started = await driver.start(fleet.spec(EXIT="3"))
        identity = spawn.identify(pid_of(started))
        assert identity is not None
        await until(lambda: not spawn.alive(identity))
        await driver.remove(started)
        assert spawn.identify(pid_of(started)) is None

    async def test_remove_takes_the_shared_memory_of_this_instance(
        self, fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shm = tmp_path / "shm"
        shm.mkdir()
        monkeypatch.setattr(module, "SHM", shm)
        driver = fleet.driver()
        started = await driver.start(fleet.spec())
        prefix = json.loads(fleet.record.read_text())["shm_prefix"]
        assert prefix.startswith(f"tf-{fleet.name}-")
        for name in (f"{prefix}1", f"{prefix}2", f"tf-{fleet.name}-other"):
            (shm / name).touch()
        await driver.stop(started, 0)
        await driver.remove(started)
        assert [path.name for path in shm.iterdir()] == [f"tf-{fleet.name}-other"]
        assert fleet.log, "its log stays"


class TestStarting:
    async def test_the_command_and_environment_it_gets(self, fleet: Fleet) -> None:
        driver = fleet.driver()
        started = await driver.start(replace(fleet.spec(), args=("--log-verbose=1",)))
        await until(lambda: "serving" in fleet.log)
        head, serving = fleet.log.splitlines()
        assert head.startswith("--- main-0.1 started 20")
        assert f"--grpc-port={started.grpc_port} " in serving
        assert "--load-model=echo" in serving
        assert serving.endswith("--log-verbose=1")
        # While a process becomes another (`exec`) its environment reads as empty.
        await until(lambda: bool(spawn.environment_of(pid_of(started))))
        environment = spawn.environment_of(pid_of(started))
        assert {
            f"TRITONFLEET_FLEET={fleet.name}".encode(),
            b"TRITONFLEET_REPLICA=main-0",
            b"TRITONFLEET_INSTANCE=main-0.1",
            b"CUDA_VISIBLE_DEVICES=",
        } <= environment

    async def test_a_server_that_cannot_be_executed_leaves_nothing(self, fleet: Fleet) -> None:
        fleet.server.write_text("#!/nowhere/interpreter\n")
        driver = fleet.driver()
        with pytest.raises(DriverError, match=r"cannot start main-0\.1: .*tritonserver") as failed:
            await driver.start(fleet.spec())
        assert failed.value.transient
        assert await driver.list() == []
        assert not fleet.record.exists()

    async def test_no_server_at_all_does_not_pass_by_itself(self, fleet: Fleet, tmp_path: Path) -> None:
        fleet.environ["TRITONFLEET_TRITONSERVER"] = str(tmp_path / "nothing")
        with pytest.raises(DriverError, match="which is no executable file") as failed:
            await fleet.driver().start(fleet.spec())
        assert not failed.value.transient
        assert failed.value.remedy == "correct or unset it"

    async def test_a_name_is_free_again_after_a_failure(self, fleet: Fleet, tmp_path: Path) -> None:
        fleet.environ["TRITONFLEET_TRITONSERVER"] = str(tmp_path / "nothing")
        driver = fleet.driver()
        for _ in range(2):
            with pytest.raises(DriverError, match="no executable file"):
                await driver.start(fleet.spec())

    async def test_without_a_free_port_it_says_so(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tritonfleet.drivers.ports.TRIES", 0)
        with pytest.raises(DriverError, match=r"cannot start main-0\.1: no 3 free ports"):
            await fleet.driver().start(fleet.spec())

    async def test_a_damaged_record_is_an_error_with_the_remedy(self, fleet: Fleet) -> None:
        fleet.record.parent.mkdir(parents=True)
        fleet.record.write_text("{")
        with pytest.raises(DriverError, match=r"main-0\.1\.json is damaged"):
            await fleet.driver().list()


class TestMaintain:
    async def test_it_rotates_a_log_that_is_being_written(self, fleet: Fleet) -> None:
        driver = fleet.driver(log_max_bytes=10, log_keep=1)
        await driver.start(fleet.spec())
        await until(lambda: "serving" in fleet.log)
        before = fleet.log
        await driver.maintain()
        assert fleet.log == ""
        assert (fleet.state_dir / "logs" / "main-0.log.1").read_text() == before
        everything = [line async for line in driver.logs("main-0", tail=None)]
        assert "\n".join(everything) == before.rstrip()

    async def test_a_log_that_cannot_be_rotated_is_left(self, fleet: Fleet) -> None:
        folder = fleet.state_dir / "logs"
        (folder / "main-0.log.1").mkdir(parents=True)
        (folder / "main-0.log").write_text("x" * 20)
        await fleet.driver(log_max_bytes=10, log_keep=1).maintain()
        assert (folder / "main-0.log").read_text() == "x" * 20


async def test_on_a_disk_that_fills_up_nothing_unknown_runs(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The intent was written, the process was not noted any more."""
    driver, write = fleet.driver(), RecordStore.write

    def full(self: RecordStore, record: Record) -> None:
        if record.pid:
            raise OSError(28, "No space left on device")
        write(self, record)

    monkeypatch.setattr(RecordStore, "write", full)
    with pytest.raises(DriverError, match=r"cannot note main-0\.1: .*No space left") as failed:
        await driver.start(fleet.spec())
    assert not failed.value.by_device
    assert spawn.find_session_leaders({"TRITONFLEET_FLEET": fleet.name}) == []
    assert await driver.list() == []


async def test_on_a_full_disk_an_end_is_noticed(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = fleet.driver()
    instance = await driver.start(fleet.spec(EXIT="3"))

    def full(_self: RecordStore, _record: Record) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecordStore, "write", full)
    status = await asyncio.wait_for(driver.wait(instance), BOUND_S)
    assert status.code == 3
    await driver.remove(instance)
    assert not fleet.record.exists()

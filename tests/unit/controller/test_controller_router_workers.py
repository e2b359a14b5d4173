"""The router's processes: real ones, killed, adopted, and in one another's way."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from controller_parts import paths_of, report, spec_of, until

from tritonfleet.controller.journal import Journal
from tritonfleet.controller.router_workers import AddressTakenError, RouterWorkers, check_address
from tritonfleet.controller.telemetry import Telemetry
from tritonfleet.drivers import spawn

pytestmark = pytest.mark.processes


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Parts:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.fleet = "rw" + os.urandom(4).hex()
        self.paths = paths_of(folder)
        self.journal = Journal(self.paths.journal)

    def workers(self, **router: Any) -> RouterWorkers:
        given = {"listen": f"127.0.0.1:{self.port}", "drain_timeout": 1, **router}
        spec = spec_of(self.folder, router=given).router
        return RouterWorkers(self.fleet, spec, self.paths, self.journal, Telemetry())

    @asynccontextmanager
    async def running(self, **router: Any) -> AsyncIterator[RouterWorkers]:
        workers = self.workers(**router)
        await workers.adopt()
        workers.start()
        try:
            await until(lambda: len(workers.running) == len(workers.infos(0)) and listens(self.port))
            yield workers
        finally:
            await workers.close()

    def reasons(self, kind: str) -> list[str]:
        return [event.reason for event in self.journal.since(0) if event.type == kind]

    def processes(self) -> set[int]:
        return {found.pid for found in spawn.find_session_leaders({"TRITONFLEET_FLEET": self.fleet})}


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    parts = Parts(tmp_path)
    yield parts
    for pid in parts.processes():
        os.kill(pid, signal.SIGKILL)
        await spawn.wait_exit(spawn.identify(pid) or spawn.ProcessIdentity(pid, 0, ""))


def pids(workers: RouterWorkers) -> list[int]:
    return [info.pid for info in workers.infos(0.0)]


async def test_a_killed_worker_is_back_and_the_reason_told(parts: Parts) -> None:
    async with parts.running() as workers:
        (first,) = pids(workers)
        os.kill(first, signal.SIGKILL)
        await until(lambda: pids(workers) != [first] and workers.running and listens(parts.port))
        (info,) = workers.infos(0.0)
        assert info.restarts == 1
        (said,) = parts.reasons("router.exited")
        assert said.startswith(f"worker 0 (pid {first}) killed by SIGKILL; starting again")
        await workers.stop(5)
    assert parts.processes() == set()
    assert not parts.paths.routers_file.exists()


async def test_several_share_the_port(parts: Parts) -> None:
    async with parts.running(workers=2) as workers:
        assert len(set(pids(workers))) == 2
        await workers.stop(5)


async def test_the_next_controller_takes_them_over(parts: Parts) -> None:
    async with parts.running(workers=2) as workers:
        before = pids(workers)
    async with parts.running(workers=2) as workers:
        assert pids(workers) == before
        await until(lambda: len(parts.reasons("router.adopted")) == 2)
        os.kill(before[0], signal.SIGKILL)
        await until(lambda: before[0] not in pids(workers) and len(workers.running) == 2)
        assert pids(workers)[1] == before[1]
        await workers.stop(5)
    assert parts.processes() == set()


async def test_workers_of_another_configuration_are_replaced(parts: Parts) -> None:
    async with parts.running(workers=2) as workers:
        before = pids(workers)
    async with parts.running(workers=1, connections_per_replica=3) as workers:
        assert not set(pids(workers)) & set(before)
        assert len(parts.processes()) == 1
        await workers.stop(5)


async def test_one_that_was_started_but_never_noted_is_ended(parts: Parts) -> None:
    """The controller died between the launch and the note of it."""
    async with parts.running() as workers:
        before = pids(workers)
    parts.paths.routers_file.unlink()
    async with parts.running() as workers:
        assert pids(workers) != before
        assert parts.processes() == set(pids(workers))
        await workers.stop(5)


async def test_an_address_that_is_taken_is_told_before_anything_starts(parts: Parts) -> None:
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # even one that would share
        stranger.bind(("127.0.0.1", parts.port))
        stranger.listen()
        with pytest.raises(AddressTakenError, match=rf"cannot listen on 127\.0\.0\.1:{parts.port}: Address"):
            await parts.workers().adopt()
    assert parts.processes() == set()


def test_an_address_of_another_host_cannot_be_listened_on(tmp_path: Path) -> None:
    address = spec_of(tmp_path, router={"listen": "192.0.2.1:8001"}).router.listen
    with pytest.raises(AddressTakenError, match=r"192\.0\.2\.1:8001: Cannot assign"):
        check_address(address)


async def test_one_whose_port_is_taken_later_says_so_and_does_not_spin(parts: Parts) -> None:
    async with parts.running() as workers:
        (first,) = pids(workers)
        os.kill(first, signal.SIGKILL)
        with socket.socket() as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

            def bound() -> bool:
                try:
                    stranger.bind(("127.0.0.1", parts.port))
                except OSError:
                    return False
                stranger.listen()
                return True

            await until(bound)
            await until(
                lambda: any("is taken by another program" in r for r in parts.reasons("router.exited"))
            )
            tries = len(parts.reasons("router.started"))
            await asyncio.sleep(0.3)
            assert len(parts.reasons("router.started")) - tries <= 3
        await until(lambda: workers.running and listens(parts.port))
        await workers.stop(5)


async def test_one_that_ends_at_once_says_why_and_how_often(parts: Parts) -> None:
    workers = parts.workers(tls={"cert": "/no/such.pem", "key": "/no/such.key"})
    await workers.adopt()
    workers.start()
    await until(lambda: workers.infos(0.0)[0].short_lives >= 3)
    await workers.close()
    said = parts.reasons("router.exited")[0]
    assert "exited with code 2: the certificate files of router.tls do not fit: /no/such.pem with" in said
    assert "No such file or directory; starting again in 0.1 s" in said
    (info,) = workers.infos(0.0)
    assert info.reason.startswith("pid ")
    await workers.stop(5)


async def test_workers_are_told_the_certificates(parts: Parts) -> None:
    plain = parts.workers()._command(0)
    assert not [word for word in plain if word.startswith("--tls")]
    mutual = parts.workers(tls={"cert": "/c.pem", "key": "/c.key", "client_ca": "/ca.pem"})._command(0)
    assert mutual[-6:] == ("--tls-cert", "/c.pem", "--tls-key", "/c.key", "--tls-client-ca", "/ca.pem")


# ---------------------------------------------------------------- one by one


@asynccontextmanager
async def reporting(workers: RouterWorkers) -> AsyncIterator[None]:
    """What every running worker would report if a controller listened."""

    async def report_all() -> None:
        while True:
            for info in workers.infos(0.0):
                if info.running:
                    workers._telemetry.take(report(worker=info.index, pid=info.pid, revision=1), 0.0)
            await asyncio.sleep(0.02)

    task = asyncio.create_task(report_all())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_each_new_worker_serves_before_an_old_one_ends(parts: Parts) -> None:
    async with parts.running(workers=2) as workers, reporting(workers):
        before = pids(workers)
        most, fewest = 0, 99
        workers.replace(workers._spec, "test")
        while set(pids(workers)) & set(before) or len(workers.running) > 2:
            most, fewest = max(most, len(workers.running)), min(fewest, len(workers.running))
            await asyncio.sleep(0.01)
        assert (fewest, most) == (2, 3)
        assert len(workers.running) == 2
        assert parts.reasons("router.exited") == []
        assert parts.reasons("router.stopped") == [f"worker {n} has finished its calls" for n in (0, 1)]
        assert parts.processes() == set(pids(workers))
        await workers.stop(5)


async def test_their_number_changes_with_the_file(parts: Parts) -> None:
    async with parts.running() as workers, reporting(workers):
        for count in (3, 1):
            workers.replace(workers._spec.model_copy(update={"workers": count}), "test")
            await until(lambda: workers._replacing is not None and workers._replacing.done())
            assert len(workers.running) == count
            assert parts.processes() == set(pids(workers))
        await workers.stop(5)


async def test_a_replacement_that_does_not_serve_is_given_up(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tritonfleet.controller.router_workers.TAKE_OVER_S", 0.3)
    async with parts.running() as workers:
        before = pids(workers)
        workers.replace(workers._spec, "test")
        await until(lambda: bool(parts.reasons("router.failed")))
        await until(lambda: parts.processes() == set(before))
        await until(lambda: pids(workers) == before)
        (why,) = parts.reasons("router.failed")
        assert why.endswith("the workers stay: worker 1: it did not report within 0.3 s")
        await workers.stop(5)


async def test_one_that_is_replaced_while_it_waits_to_start_again_does_not_come_back(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would know of it: it would accept clients beside the others, and outlive `down`."""
    module = "tritonfleet.controller.router_workers"
    monkeypatch.setattr(f"{module}.FIRST_DELAY_S", 5.0)
    async with parts.running() as workers, reporting(workers):
        (first,) = pids(workers)
        os.kill(first, signal.SIGKILL)
        await until(lambda: bool(parts.reasons("router.exited")))
        waiting = list(workers._tasks)
        workers.replace(workers._spec, "test")
        await until(lambda: workers._replacing is not None and workers._replacing.done())
        await asyncio.wait_for(asyncio.gather(*waiting), 20)
        assert parts.processes() == set(pids(workers))
        assert len(workers.running) == 1
        await workers.stop(5)
    assert parts.processes() == set()


async def test_one_that_waits_to_start_again_does_not_start_while_the_others_finish(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `down` nobody would end it."""
    monkeypatch.setattr("tritonfleet.controller.router_workers.FIRST_DELAY_S", 1.0)
    async with parts.running(workers=2) as workers:
        terminated = spawn.terminate

        async def slowly(identity: spawn.ProcessIdentity, grace_s: float) -> None:
            await asyncio.gather(
                terminated(identity, grace_s), asyncio.sleep(2.0)
            )  # a call that takes its time

        monkeypatch.setattr(spawn, "terminate", slowly)
        os.kill(pids(workers)[0], signal.SIGKILL)
        await until(lambda: bool(parts.reasons("router.exited")))
        await workers.stop(5)
        monkeypatch.setattr(spawn, "terminate", terminated)
    assert parts.processes() == set()


async def test_one_is_looked_after_again_after_a_failure(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "tritonfleet.controller.router_workers"
    monkeypatch.setattr(f"{module}.LAST_DELAY_S", 0.1)
    waited, troubles = spawn.wait_exit, [OSError(24, "Too many open files")]

    async def wait_exit(identity: spawn.ProcessIdentity) -> spawn.ProcessExit:
        if troubles:
            raise troubles.pop()
        return await waited(identity)

    monkeypatch.setattr(spawn, "wait_exit", wait_exit)
    async with parts.running() as workers:
        (first,) = pids(workers)
        await until(lambda: not troubles)
        os.kill(first, signal.SIGKILL)
        await until(lambda: pids(workers) != [first] and workers.running and listens(parts.port))
        await workers.stop(5)


async def test_a_controller_that_died_between_keeps_the_newest(parts: Parts) -> None:
    async with parts.running() as workers, reporting(workers):
        (old,) = pids(workers)
        assert await workers._add_worker()
        (new,) = set(pids(workers)) - {old}
    async with parts.running() as workers:
        assert pids(workers) == [new]
        await until(lambda: parts.processes() == {new})
        await workers.stop(5)


async def test_workers_are_told_of_the_access_log(parts: Parts) -> None:
    assert "--access-log" not in parts.workers()._command(0)
    command = parts.workers(access_log={"path": "/a.jsonl", "sample": 0.25})._command(0)
    at = command.index("--access-log")
    assert command[at : at + 4] == ("--access-log", "/a.jsonl", "--access-sample", "0.25")
    command = parts.workers(traces={"endpoint": "http://h:1", "sample": 0.5})._command(0)
    at = command.index("--trace-endpoint")
    assert command[at : at + 4] == ("--trace-endpoint", "http://h:1", "--trace-sample", "0.5")

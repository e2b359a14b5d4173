"""Several workers that know of each other's requests: real processes, replicas that count."""

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from router_parts import RawClient, Request, ScriptedReplica, raw_client, until

from tritonfleet.core.wire import RouterTable, TableReplica
from tritonfleet.router.board import CELL, COLUMNS, ROW, SIZE, Board

pytestmark = pytest.mark.processes

REPLICAS = 4


class Workers:
    """``count`` worker processes, each with its own port, so that a test says who gets what."""

    def __init__(self, folder: Path, replicas: list[ScriptedReplica], policy: str, *, board: bool) -> None:
        self.folder, self.board = folder, folder / "board"
        rows = [
            TableReplica(f"m-{i}", f"m-{i}.1", "m", "127.0.0.1", one.port, False, ())
            for i, one in enumerate(replicas)
        ]
        (folder / "table").write_bytes(msgspec.json.encode(RouterTable("b", 1, policy, tuple(rows))))
        self.arguments = ["--board", str(self.board)] if board else []
        self.processes: list[subprocess.Popen[bytes]] = []

    async def start(self) -> int:
        """One more worker; its port, when it listens and has its connections."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        command = [
            *(sys.executable, "-m", "tritonfleet.router", "--listen", f"127.0.0.1:{port}", "--workers", "2"),
            *("--table", str(self.folder / "table"), "--drain-timeout", "1", *self.arguments),
        ]
        self.processes.append(_launch(command))
        async with asyncio.timeout(30):
            while True:
                try:
                    async with raw_client(port) as client:
                        await client.finished(client.request(b"warm"))
                        return port
                except OSError:
                    await asyncio.sleep(0.05)

    def rows(self) -> list[int]:
        """In flight by row, of rows that are in use."""
        data = self.board.read_bytes()
        found = []
        for start in range(0, SIZE, ROW * 8):
            cells = [data[at : at + CELL * 8] for at in range(start, start + COLUMNS * CELL * 8, CELL * 8)]
            used = [struct.unpack("=Qddd", cell) for cell in cells if any(cell)]
            if used:
                found.append(int(sum(in_flight for _name, in_flight, _work, _at in used)))
        return found

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def _launch(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


@asynccontextmanager
async def workers_of(
    folder: Path, replicas: list[ScriptedReplica], *, board: bool = True, policy: str = "least_requests"
) -> AsyncIterator[Workers]:
    for replica in replicas:
        await replica.start()
    workers = Workers(folder, replicas, policy, board=board)
    try:
        yield workers
    finally:
        workers.stop()
        for replica in replicas:
            await replica.stop()


def holding(held: Counter[int], number: int) -> ScriptedReplica:
    """A replica that answers nothing but "warm" and counts what it holds."""

    def on_request(request: Request) -> None:
        if request.body[5:] == b"warm":
            request.answer()
        else:
            held[number] += 1

    return ScriptedReplica(on_request)


@pytest.mark.parametrize("policy", ["least_requests", "least_work"])
@pytest.mark.parametrize("board", [True, False])
async def test_a_worker_avoids_what_another_has_made_busy(tmp_path: Path, board: bool, policy: str) -> None:
    held: Counter[int] = Counter()
    replicas = [holding(held, number) for number in range(REPLICAS)]
    async with (
        workers_of(tmp_path, replicas, board=board, policy=policy) as workers,
        AsyncExitStack() as stack,
    ):
        for sent in (2, 4):
            client = await stack.enter_async_context(raw_client(await workers.start()))
            for _ in range(2):
                client.request(b"hold")
            await until(lambda sent=sent: held.total() == sent)
            if board:
                await until(lambda sent=sent: sum(workers.rows()) == sent)
        assert (max(held.values()) == 1) is board


async def test_the_row_of_a_worker_that_was_killed_is_cleared(tmp_path: Path) -> None:
    held: Counter[int] = Counter()
    replicas = [holding(held, number) for number in range(REPLICAS)]
    async with workers_of(tmp_path, replicas) as workers:
        await workers.start()
        async with raw_client(await workers.start()) as client:
            for _ in range(3):
                client.request(b"hold")
            await until(lambda: workers.rows() == [0, 3])
            os.kill(workers.processes[1].pid, signal.SIGKILL)
            await until(lambda: workers.rows() == [0])
        await workers.start()
        assert workers.rows() == [0, 0]
        workers.processes[0].terminate()
        await until(lambda: workers.processes[0].poll() is not None)
        assert workers.processes[0].returncode == 0
        assert workers.rows() == [0]


class Load:
    """So many calls by so many clients, each one after the other; what the replicas saw of it."""

    def __init__(self) -> None:
        self.calls: Counter[int] = Counter()  # by replica
        self.misplaced = 0  # calls that met a busy replica while another was idle
        self.busy: Counter[int] = Counter()

    def replica(self, number: int) -> ScriptedReplica:
        def on_request(request: Request) -> None:
            if request.body[5:] == b"warm":
                request.answer()
                return
            self.calls[number] += 1
            self.misplaced += self.busy[number] > 0 and any(self.busy[n] == 0 for n in range(REPLICAS))
            self.busy[number] += 1
            asyncio.get_running_loop().call_later(0.005, done, request)

        def done(request: Request) -> None:
            self.busy[number] -= 1
            request.answer()

        return ScriptedReplica(on_request)

    async def run(self, folder: Path, workers: int, *, board: bool, clients: int, calls: int = 300) -> None:
        replicas = [self.replica(number) for number in range(REPLICAS)]
        async with workers_of(folder, replicas, board=board) as running:
            ports = [await running.start() for _ in range(workers)]
            if board and workers > 1:  # each looks for the others' cells once a second
                await asyncio.sleep(1.5)
            left = iter(range(calls))
            await asyncio.gather(*(self._client(ports[n % workers], left) for n in range(clients)))

    async def _client(self, port: int, left: Iterator[int]) -> None:
        async with raw_client(port) as client:
            await self._ask(client, left)

    async def _ask(self, client: RawClient, left: Iterator[int]) -> None:
        for _ in left:
            assert (await client.finished(client.request(b"x")))[0] == 0


async def load_of(folder: Path, workers: int, *, board: bool, clients: int) -> Load:
    load = Load()
    await load.run(folder, workers, board=board, clients=clients)
    assert load.calls.total() == 300
    return load


@pytest.mark.slow
async def test_two_workers_leave_as_few_replicas_idle_as_one_does(tmp_path: Path) -> None:
    """Three clients and four replicas: somebody is always idle. Without the board every worker sees a part
    only, and sends to the busy."""
    blind = await load_of(tmp_path, 2, board=False, clients=REPLICAS - 1)
    two = await load_of(tmp_path, 2, board=True, clients=REPLICAS - 1)
    assert two.misplaced <= 0.1 * 300
    assert two.misplaced < blind.misplaced / 2


@pytest.mark.slow
async def test_two_workers_spread_as_one_does(tmp_path: Path) -> None:
    one = await load_of(tmp_path, 1, board=False, clients=4 * REPLICAS)
    two = await load_of(tmp_path, 2, board=True, clients=4 * REPLICAS)
    print(one.calls, two.calls)
    for number in range(REPLICAS):
        assert abs(two.calls[number] - one.calls[number]) <= 0.1 * one.calls[number]


def test_a_board_needs_its_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Board(tmp_path / "no" / "folder")

"""Processes by their identity: started, recognised, waited for, ended. Real ones, of Python and sh."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tritonfleet.drivers import leftovers, spawn
from tritonfleet.drivers.spawn import ProcessExit, ProcessIdentity

BOUND_S = 30.0
MARKERS = {"TRITONFLEET_INSTANCE": f"spawn-test-{os.getpid()}", "TRITONFLEET_FLEET": "spawn-test"}
Launch = Callable[..., Awaitable[ProcessIdentity]]


@pytest.fixture
async def launch(tmp_path: Path) -> AsyncIterator[Launch]:
    """Starts Python code (its output in ``tmp_path/log``), and ends it and its session after the test."""
    started: list[ProcessIdentity] = []

    async def launch(code: str) -> ProcessIdentity:
        env = {**os.environ, **MARKERS}
        started.append(await spawn.spawn([sys.executable, "-c", code], env, tmp_path / "logs" / "log"))
        return started[-1]

    yield launch
    for identity in started:
        await spawn.terminate(identity, 0, MARKERS)
        await spawn.wait_exit(identity)


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND_S
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def written(folder: Path) -> str:
    return (folder / "logs" / "log").read_text()


async def test_it_leads_a_session_and_appends_both_outputs_to_its_log(launch: Launch, tmp_path: Path) -> None:
    code = "import os, sys; print(os.getsid(0), sys.stdin.read()); sys.stderr.write('to stderr')"
    for _ in range(2):
        identity = await launch(code)
        assert await spawn.wait_exit(identity) == ProcessExit(code=0)
    assert written(tmp_path).count("to stderr") == 2
    assert f"{identity.pid} \n" in written(tmp_path)
    assert (tmp_path / "logs" / "log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise SystemExit(3)", ProcessExit(code=3)),
        ("import os; os.kill(os.getpid(), 9)", ProcessExit(signal=9)),
    ],
)
async def test_a_child_s_status_is_learned_once(launch: Launch, code: str, expected: ProcessExit) -> None:
    identity = await launch(code)
    assert await spawn.wait_exit(identity) == expected
    assert not spawn.alive(identity)
    assert await spawn.wait_exit(identity) == ProcessExit(), "reaped: nobody can tell any more"


async def test_signals_that_we_ignore_or_block_are_its_own_again(launch: Launch, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        identity = await launch("import time; print('up', flush=True); time.sleep(60)")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        signal.signal(signal.SIGTERM, before)
    assert spawn.send(identity, signal.SIGTERM)
    async with asyncio.timeout(BOUND_S):
        assert await spawn.wait_exit(identity) == ProcessExit(signal=signal.SIGTERM)


async def test_no_such_program_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await spawn.spawn([str(tmp_path / "nothing")], {}, tmp_path / "log")


async def test_a_pid_that_was_used_again_is_somebody_else(launch: Launch) -> None:
    """What stands for the later user of the pid is a live process whose start time differs."""
    alive = await launch("import time; time.sleep(60)")
    earlier = replace(alive, start_ticks=alive.start_ticks - 1)
    other_boot = replace(alive, boot_id="another boot")
    for gone in (earlier, other_boot):
        assert not spawn.alive(gone)
        assert not spawn.send(gone, signal.SIGKILL)
        await spawn.terminate(gone, 0)
        assert await spawn.wait_exit(gone) == ProcessExit()
    assert spawn.alive(alive)


async def test_another_child_s_status_is_left_to_its_waiter(launch: Launch) -> None:
    ended = await launch("raise SystemExit(5)")
    await until(lambda: not spawn.alive(ended))  # a zombie, which a careless waitid would reap
    earlier = replace(ended, start_ticks=ended.start_ticks - 1)
    assert await spawn.wait_exit(earlier) == ProcessExit()
    assert await spawn.wait_exit(ended) == ProcessExit(code=5)


async def test_terminate_lets_it_exit_within_its_grace(launch: Launch, tmp_path: Path) -> None:
    identity = await launch(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('up', flush=True)\n"
        "time.sleep(60)"
    )
    await until(lambda: "up" in written(tmp_path))
    await spawn.terminate(identity, BOUND_S)
    assert await spawn.wait_exit(identity) == ProcessExit(code=7)


async def test_terminate_kills_what_ignores_it(launch: Launch, tmp_path: Path) -> None:
    identity = await launch(
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True)\n"
        "time.sleep(60)"
    )
    await until(lambda: "up" in written(tmp_path))
    await spawn.terminate(identity, 0.05)
    assert await spawn.wait_exit(identity) == ProcessExit(signal=9)


FIRST_THREAD_ENDS = """
import ctypes, threading, time
def rest():
    print("up", flush=True)
    time.sleep(60)
threading.Thread(target=rest).start()
time.sleep(0.1)
exit_of_one_thread = 60 if __import__("platform").machine() == "x86_64" else 93
ctypes.CDLL(None).syscall(exit_of_one_thread, 0)
"""


async def test_one_whose_first_thread_has_ended_still_runs(launch: Launch) -> None:
    """By /proc it is a zombie: as for a moment every killed process is, while its other threads still end."""
    identity = await launch(FIRST_THREAD_ENDS)
    await until(lambda: Path(f"/proc/{identity.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    assert spawn.alive(identity)
    waiting = asyncio.create_task(spawn.wait_exit(identity))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await spawn.terminate(identity, 0)
    assert await waiting == ProcessExit(signal=9)
    assert not spawn.alive(identity)
    assert not spawn.send(identity, signal.SIGKILL)


async def test_the_signal_is_known_however_many_threads_end_with_it(launch: Launch, tmp_path: Path) -> None:
    one = "threading.Thread(target=time.sleep, args=(60,)).start()"
    threads = f"import threading, time\nfor _ in range(60): {one}\n"
    for number in range(1, 6):
        identity = await launch(threads + "print('up', flush=True)")
        await until(lambda: written(tmp_path).count("up") == number)  # noqa: B023 - awaited within the round
        await spawn.terminate(identity, 0)
        assert await spawn.wait_exit(identity) == ProcessExit(signal=9)


CHILDREN = """
import os, subprocess, sys
marked = subprocess.Popen(["sleep", "60"])
unmarked = subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"]})
print(marked.pid, unmarked.pid, flush=True)
"""


async def test_only_marked_processes_of_the_session_are_ended_with_it(launch: Launch, tmp_path: Path) -> None:
    identity = await launch(CHILDREN)
    await spawn.wait_exit(identity)
    marked, unmarked = map(int, written(tmp_path).split())
    try:
        assert spawn.end_session(identity.pid, {}) == []
        for name in MARKERS:  # another launch; one of that name, of another fleet
            assert spawn.end_session(identity.pid, {**MARKERS, name: "another"}) == []
        assert spawn.identify(marked) is not None
        assert spawn.end_session(identity.pid, MARKERS) == [marked]
        assert spawn.identify(unmarked) is not None
        await until(lambda: spawn.end_session(identity.pid, MARKERS) == [])
    finally:
        os.kill(unmarked, signal.SIGKILL)


async def test_a_session_leader_is_found_by_all_of_its_markers(launch: Launch, tmp_path: Path) -> None:
    leader = await launch("import subprocess; print('up', flush=True); subprocess.run(['sleep', '60'])")
    await until(lambda: written(tmp_path).startswith("up"))
    assert spawn.find_session_leaders({**MARKERS, "PATH": os.environ["PATH"]}) == [leader]
    assert spawn.find_session_leaders({**MARKERS, "PATH": "elsewhere"}) == []


def test_a_process_is_found_in_the_moment_in_which_its_program_begins() -> None:
    """The kernel lets the parent go on before the environment can be read: here of one in a hundred."""
    marker = b"MARKER=at once"
    for _ in range(1000):
        pid = os.posix_spawnp("sleep", ["sleep", "60"], {**os.environ, "MARKER": "at once"})
        found = spawn.settled_environment_of(pid)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert marker in found


async def test_start_time_is_in_seconds_since_the_epoch(launch: Launch) -> None:
    before = time.time()
    identity = await launch("import time; time.sleep(60)")
    assert spawn.start_time(identity.pid) == pytest.approx(before, abs=5)
    await spawn.terminate(identity, 0)
    assert spawn.start_time(identity.pid) == float("inf")


async def test_the_name_of_a_stranger_need_not_be_text(launch: Launch) -> None:
    """The kernel cuts names after 15 bytes, in the middle of a letter, too."""
    stranger = await launch(
        "import time; open('/proc/self/comm', 'wb').write('fünfzehn-byteä'.encode()); time.sleep(60)"
    )
    comm = Path(f"/proc/{stranger.pid}/comm")
    await until(lambda: comm.read_bytes().endswith(b"\xc3\n"))
    other = await launch("import time; time.sleep(60)")
    assert other in spawn.find_session_leaders(MARKERS)
    await spawn.terminate(other, 0, MARKERS)
    assert spawn.identify(stranger.pid) == stranger
    assert leftovers._server_starts() is not None

"""Processes that outlive whoever started them: start, recognise again, wait for, and end.

A process is named by its pid, its start time and the boot it belongs to, so that a pid that was used again is
never mistaken for it. Waiting is by pidfd, which works for processes that somebody else started too.
"""

import asyncio
import os
import select
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import monotonic, sleep
from types import MappingProxyType

KILL_WAIT_S = 10.0  # how long the kernel may take to end a process that was sent SIGKILL
# How long it may take to put another program in a process's place: until its command line is there, and then
# until its environment is. One that was given none costs the latter.
EXEC_WAIT_S, EXEC_LAST_S, EXEC_LOOK_S = 1.0, 0.05, 0.001


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """``start_ticks``: field 22 of /proc/PID/stat, clock ticks from boot to the process's start."""

    pid: int
    start_ticks: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """How a process ended; both None when it was not our child, whose status only its parent learns."""

    code: int | None = None
    signal: int | None = None


@cache
def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state (the third) on; the name before may hold anything, be it
    no text: the kernel cuts it after 15 bytes."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
    except OSError:
        return None


def identify(pid: int) -> ProcessIdentity | None:
    """Who runs as ``pid`` now, or None."""
    stat = _stat(pid)
    return ProcessIdentity(pid, int(stat[19]), boot_id()) if stat is not None else None


def start_time(pid: int) -> float:
    """When ``pid`` started, in seconds since the epoch; infinity when it does not run."""
    stat = _stat(pid)
    if stat is None or stat[0] in "ZX":
        return float("inf")
    return _boot_time() + int(stat[19]) / os.sysconf("SC_CLK_TCK")


@cache
def _boot_time() -> float:
    lines = Path("/proc/stat").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("btime ")))


def alive(identity: ProcessIdentity) -> bool:
    """Whether exactly this process runs. One that has ended and waits for its parent does not."""
    stat = _stat(identity.pid)
    if stat is None or int(stat[19]) != identity.start_ticks or identity.boot_id != boot_id():
        return False
    return stat[0] not in "ZX" or not _is_over(identity)


def _is_over(identity: ProcessIdentity) -> bool:
    """Whether all of its threads have ended. The state in /proc tells only of its first."""
    pidfd = _open(identity)
    if pidfd is None:
        return True
    try:
        return _has_ended(pidfd)
    finally:
        os.close(pidfd)


def _has_ended(pidfd: int) -> bool:
    """A pidfd is readable once its process can be waited for (pidfd_open(2)), be it reaped or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


async def spawn(argv: Sequence[str], env: Mapping[str, str], log_path: Path) -> ProcessIdentity:
    """Start a process in a session of its own, its output appended to ``log_path``, nothing on its stdin.

    It lives on when we end. Raises OSError when there is no such program or the log cannot be opened.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawnp(
        argv[0],
        list(argv),
        dict(env),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log_path), append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE],
    )
    identity = identify(pid)  # at least its zombie is there: nobody but us can reap it
    if identity is None:
        raise ProcessLookupError(f"{argv[0]} vanished at its start")
    return identity


async def wait_exit(identity: ProcessIdentity) -> ProcessExit:
    """Return when it has ended, with its status if it was our child and nobody asked before."""
    pidfd = _open(identity)
    if pidfd is None:
        return _reap(identity)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    return _reap(identity)


def _open(identity: ProcessIdentity) -> int | None:
    """A pidfd of exactly this process, be it a zombie, or None when there is nothing left of it."""
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    if identify(identity.pid) != identity:
        os.close(pidfd)
        return None
    return pidfd


def _reap(identity: ProcessIdentity) -> ProcessExit:
    if identify(identity.pid) != identity:  # reaped already; the pid may be another child's by now
        return ProcessExit()
    try:
        result = os.waitid(os.P_PID, identity.pid, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return ProcessExit()
    if result is None:
        return ProcessExit()
    if result.si_code == os.CLD_EXITED:
        return ProcessExit(code=result.si_status)
    return ProcessExit(signal=result.si_status)


def send(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal exactly this process; False when it has ended."""
    pidfd = _open(identity)
    if pidfd is None:
        return False
    try:
        if _has_ended(pidfd):
            return False
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


async def terminate(
    identity: ProcessIdentity, grace_s: float, markers: Mapping[str, str] = MappingProxyType({})
) -> None:
    """SIGTERM, up to ``grace_s`` seconds, SIGKILL; then the same for what it left in its session.

    Does not reap: whoever waits by `wait_exit` learns the status.
    """
    if grace_s > 0 and send(identity, signal.SIGTERM):
        await _gone(identity, grace_s)
    send(identity, signal.SIGKILL)
    await _gone(identity, KILL_WAIT_S)
    end_session(identity.pid, markers)


async def _gone(identity: ProcessIdentity, timeout_s: float) -> None:
    pidfd = _open(identity)
    if pidfd is None:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    # A second descriptor of the same process: `wait_exit` may be watching through its own.
    loop.add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(timeout_s):
            await ended.wait()
    except TimeoutError:
        return
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def end_session(session: int, markers: Mapping[str, str]) -> list[int]:
    """Kill what is left of a session whose leader has ended (Triton's Python stubs), and say which pids.

    Only processes whose environment holds all of ``markers`` count: the number may have been given to another
    session since, and another fleet's replica may have the same name. Without any, nothing is killed.
    """
    killed: list[int] = []
    wanted = _in_environment(markers)
    if not wanted:
        return killed
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        stat = _stat(int(entry.name))
        if stat is None or stat[0] in "ZX" or int(stat[3]) != session or int(entry.name) == session:
            continue
        if wanted <= settled_environment_of(int(entry.name)):
            with suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)
                killed.append(int(entry.name))
    return killed


_EMPTY = frozenset({b""})  # of a process that may be looked at


def _in_environment(markers: Mapping[str, str]) -> set[bytes]:
    return {os.fsencode(f"{name}={value}") for name, value in markers.items()}


def environment_of(pid: int) -> frozenset[bytes]:
    """``NAME=value`` of a process as it was started; empty when it has ended or is another user's, and for
    the moment in which it becomes another program (execve), be it after `spawn` has returned."""
    try:
        return frozenset(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return frozenset()


def settled_environment_of(pid: int) -> frozenset[bytes]:
    """The same, but what becomes another program is waited for: or a process that is there would be missed
    and run on, known to nobody. Blocks."""
    began = monotonic()
    while (found := environment_of(pid)) == _EMPTY:
        stat = _stat(pid)
        patience = EXEC_LAST_S if command_of(pid) else EXEC_WAIT_S
        if stat is None or stat[0] in "ZX" or monotonic() - began > patience:
            break
        sleep(EXEC_LOOK_S)
    return found


def environment_texts(pid: int) -> list[str]:
    """The same as text, in no order."""
    return [os.fsdecode(one) for one in environment_of(pid)]


def command_of(pid: int) -> list[str]:
    """The command line of a process; empty when it has ended."""
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")[:-1]
    except OSError:
        return []


def find_session_leaders(markers: Mapping[str, str]) -> list[ProcessIdentity]:
    """Processes that lead their session and whose environment holds all of ``markers``."""
    wanted = _in_environment(markers)
    found = []
    for entry in Path("/proc").iterdir():
        stat = _stat(int(entry.name)) if entry.name.isdigit() else None
        if stat is None or stat[0] in "ZX" or stat[3] != entry.name:
            continue
        if wanted <= settled_environment_of(int(entry.name)):
            found.append(ProcessIdentity(int(entry.name), int(stat[19]), boot_id()))
    return found

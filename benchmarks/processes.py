"""Processes under measurement: started and stopped, their CPU time and memory read from /proc."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

STOP_TIMEOUT_S = 15.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def free_ports(count: int) -> list[int]:
    """TCP ports of 127.0.0.1 on which nothing listens now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


@contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process and whatever it starts, for as long as the block runs; its output goes to ``log``."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # children it left behind


def family(pid: int) -> list[int]:
    """``pid`` and all its descendants."""
    pids = [pid]
    for parent in pids:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            pids.extend(int(child) for child in children.read_text().split())
    return pids


def cpu_s(pids: Sequence[int]) -> float:
    """User plus system seconds they have used so far (utime and stime of proc(5), in steps of 10 ms)."""
    return sum(sum(int(ticks) for ticks in _stat(pid)[11:13]) for pid in pids) / TICKS_PER_S


def rss_bytes(pids: Sequence[int]) -> int:
    """Resident memory of all of them; pages they share count once for each."""
    return sum(int(_stat(pid)[21]) for pid in pids) * PAGE_BYTES


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name, so that field 3 (state) is index 0."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()

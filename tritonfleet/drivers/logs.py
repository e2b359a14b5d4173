"""Log files of processes that write them themselves: read, follow, rotate, and pick out Triton's errors.

Rotation copies and truncates, because the server holds its file open and cannot be told to open another; it
writes with O_APPEND, so after the truncation it goes on at the new end. Lines written between the copy's
end and the truncation would be lost: the copy reads on until nothing more comes, which leaves microseconds.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

FOLLOW_INTERVAL_S = 0.2
DETAIL_LIMIT = 600  # characters of an exit's detail
CHUNK = 1 << 20

_HEADER = re.compile(r"^--- \S+ started ", re.MULTILINE)
_TABLE_ROW = re.compile(r"^\|\s*(\S*)\s*\|\s*(\d*|-)\s*\|\s?(.*?)\s*\|?$")
_FAILED = "UNAVAILABLE: "
_GLOG_ERROR = re.compile(r'^[EF]\d{4} [\d:.]+ +\d+ (?:\S+\] +)?"?(.*?)"?$')
_STUB_ERROR = re.compile(r"Failed to (?:pre)?initialize Python stub: (.*?)\"?$")  # logged as information
_PLAIN_ERROR = re.compile(r"^(?:error:|\S*tritonserver:) (.*)$")
_OUR_ERROR = re.compile(
    r"^(?:[\d-]+ [\d:,]+ (?:ERROR|CRITICAL) (?P<logged>.*)|(?P<raised>[\w.]*(?:Error|Exception)\b.*))$"
)
_NOISE = frozenset({"CudaDriverHelper has not been initialized."})  # on every host without a GPU


def generations_of(path: Path) -> list[Path]:
    """The rotated files of a log, oldest first, then the log itself; those that exist."""
    files = [found for _, found in sorted(_rotated(path), reverse=True)]
    return [*files, path] if path.exists() else files


def _rotated(path: Path) -> list[tuple[int, Path]]:
    return [
        (int(found.suffix[1:]), found)
        for found in path.parent.glob(f"{path.name}.*")
        if found.suffix[1:].isdigit()
    ]


async def read(path: Path, *, tail: int | None, follow: bool) -> AsyncIterator[str]:
    """Lines without their ends: the last ``tail`` (None: all there are), then with ``follow`` what comes.

    A line that is still being written is yielded when it ends, or at the end without ``follow``.
    """
    data, size = _end_of(generations_of(path), path, tail)
    *lines, rest = data.split(b"\n")
    if rest and not follow:
        lines.append(rest)
    if tail is not None:
        lines = lines[-tail:] if tail > 0 else []
    for raw in lines:
        yield raw.decode(errors="replace")
    while follow:
        await asyncio.sleep(FOLLOW_INTERVAL_S)
        added, size = _added(path, size)
        *complete, rest = (rest + added).split(b"\n")
        for raw in complete:
            yield raw.decode(errors="replace")


def _end_of(files: list[Path], path: Path, tail: int | None) -> tuple[bytes, int]:
    """Enough of the files' ends to hold ``tail`` lines, without reading them all, and the size of ``path``.

    The files are one stream: a rotation may cut a line in two.
    """
    size, newlines, chunks = 0, 0, list[bytes]()
    for file in reversed(files):
        with file.open("rb") as log:
            at = log.seek(0, os.SEEK_END)
            size = at if file == path else size
            while at > 0 and (tail is None or newlines <= tail):
                length = min(CHUNK, at)
                at -= length
                log.seek(at)
                chunks.append(log.read(length))
                newlines += chunks[-1].count(b"\n")
    return b"".join(reversed(chunks)), size


def _added(path: Path, size: int) -> tuple[bytes, int]:
    """What was written since the log had ``size`` bytes, and its size now. A log that has shrunk was rotated:
    the end of what was written before is in the copy. (One that has grown beyond its old size again within an
    interval is not recognised: that takes a whole rotation's worth of lines in it.)"""
    now = path.stat().st_size if path.exists() else 0
    before = b""
    if now < size:
        copy = path.with_name(f"{path.name}.1")
        before = _from(copy, size) if copy.exists() else b""
        size = 0
    added = _from(path, size) if now > size else b""
    return before + added, size + len(added)


def _from(path: Path, offset: int) -> bytes:
    with path.open("rb") as log:
        log.seek(offset)
        return log.read()


def rotate(path: Path, max_bytes: int, keep: int) -> bool:
    """Rotate a log that has grown to ``max_bytes``: ``x.log`` → ``x.log.1`` → … up to ``keep`` files."""
    if not path.exists() or path.stat().st_size < max_bytes:
        return False
    for number, older in sorted(_rotated(path), reverse=True):
        if number >= keep:
            older.unlink()
        else:
            older.rename(path.with_name(f"{path.name}.{number + 1}"))
    with path.open("r+b") as log:
        if keep > 0:
            _copy(log, path)
        log.truncate(0)
    return True


def _copy(log: BinaryIO, path: Path) -> None:
    """To ``.1``, which a reader sees only when it is whole."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb", buffering=0) as rotated:
        while chunk := log.read(CHUNK):
            rotated.write(chunk)
        beside.rename(path.with_name(f"{path.name}.1"))
        while chunk := log.read(CHUNK):  # what came meanwhile
            rotated.write(chunk)


def header(instance: str, when: str) -> str:
    """The line that begins an instance's part of its replica's log."""
    return f"--- {instance} started {when}"


def append_line(path: Path, line: str) -> None:
    """On a line of its own, also where a server was killed within one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as log:
        end = log.seek(0, os.SEEK_END)
        if end:
            log.seek(end - 1)
        within = bool(end) and log.read(1) != b"\n"
        log.write(b"\n" * within + line.encode() + b"\n")


def error_detail(path: Path, instance: str) -> str:
    """What the server itself said went wrong in ``instance``'s part of the log, in a line or two: which model
    failed and why, if that is it; else its error lines. "" when it said nothing.

    At most the part's last megabyte is read: a server says why it exits at its end."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - CHUNK))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    part = text.rpartition(f"--- {instance} started ")[2]
    lines = _HEADER.split(part)[0].splitlines()
    errors = dict.fromkeys(match[1] for line in lines if (match := _GLOG_ERROR.match(line)))
    errors |= dict.fromkeys(match[1] for line in lines if (match := _STUB_ERROR.search(line)))
    said = [error for error in errors if error and error not in _NOISE]
    plain = dict.fromkeys(match[1] for line in lines if (match := _PLAIN_ERROR.match(line)))
    detail = "; ".join(_failed_models(lines) or said[-3:] or list(plain))
    return detail if len(detail) <= DETAIL_LIMIT else detail[: DETAIL_LIMIT - 2] + " …"


def last_error(path: Path) -> str:
    """What the last line of a program of ours says, if that is an error or an exception's end; else ""."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - CHUNK))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    found = _OUR_ERROR.match(lines[-1]) if lines else None
    return (found["logged"] or found["raised"])[:DETAIL_LIMIT] if found else ""


def _failed_models(lines: list[str]) -> list[str]:
    """Triton's table of models: name, version, status. A status of several lines goes on in rows without a
    name; up to its first empty line it is the error itself, then comes the traceback."""
    found: list[str] = []
    within = False
    for line in lines:
        row = _TABLE_ROW.match(line)
        if row is None:
            within = False
        elif row[1]:
            within = row[3].startswith(_FAILED)
            if within:
                found.append(f"model {row[1]}: {row[3].removeprefix(_FAILED).strip()}")
        elif within and row[3].strip():
            found[-1] += f" {row[3].strip()}"
        else:
            within = False
    return list(dict.fromkeys(found))

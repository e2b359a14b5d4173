"""The fleet's log files as a person wants them: which file is whose, the last lines, what went wrong.

Reads files only, so it works whether or not anything runs. Layout: ``controller.log``,
``router-<worker>.log`` and ``<replica>.log`` in the fleet's logs folder; a rotated file has ``.1`` and
so on behind its name.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from time import sleep

TAIL_BYTES = 1 << 20  # as much of a file's end as is read for its last lines
FOLLOW_INTERVAL_S = 0.2
EXCERPT_LINES = 20
TABLE = ("|", "+-")  # Triton's lists of its options and models
LINE_LIMIT = 500  # characters of one excerpt line: Triton prints whole tracebacks in one

# Triton logs as glog does: a severity letter, month and day, a clock.
_GLOG = re.compile(r"^([IWEF])\d{4} \d\d:\d\d:\d\d")
_HEAD = re.compile(r"^(?:[IWEF]\d{4} [\d:.]+ \d+|\d{4}-\d\d-\d\d [\d:,]+) ")  # Triton's, and our own
# What Triton says with severity E on any machine without a GPU, and then works.
_HARMLESS = re.compile(r"CudaDriverHelper has not been initialized")
_PLAIN_ERROR = re.compile(r"^(error:|Error|ERROR|\w*Error:|Traceback|.* (ERROR|CRITICAL) )")


def names(folder: Path) -> list[str]:
    """Whose logs there are: replica ids, ``router-0`` …, ``controller``."""
    return sorted(path.stem for path in folder.glob("*.log")) if folder.is_dir() else []


def chosen(folder: Path, target: str) -> list[Path]:
    """The files of ``target``: a replica, a pool, ``router``, ``controller``; "" means every one.

    An empty list means nothing of that name has logged.
    """
    found = names(folder)
    if target:
        exact = [name for name in found if name == target]
        numbered = re.compile(re.escape(target) + r"-\d+")
        found = exact or [name for name in found if numbered.fullmatch(name)]
    return [folder / f"{name}.log" for name in found]


def last_lines(path: Path, count: int | None) -> list[str]:
    """The last ``count`` lines (None: all there are) of a log, its rotated files included.

    Of each file at most its last `TAIL_BYTES` are read. A missing file has no lines.
    """
    from tritonfleet.drivers.logs import generations_of  # the package brings pydantic

    lines: list[str] = []
    for file in reversed(generations_of(path)):
        if count is not None and len(lines) >= count:
            break
        lines = _end_of(file) + lines
    if count is None:
        return lines
    return lines[-count:] if count > 0 else []


def _end_of(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start = max(size - TAIL_BYTES, 0)
            file.seek(start)
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return lines[1:] if start else lines  # the first one is cut


def what_went_wrong(lines: list[str], limit: int = EXCERPT_LINES) -> tuple[str, ...]:
    """The lines that say why a server failed: its errors with their continuation lines, else its last lines.

    Repeats of the same error (one per attempt to start) are shown once, the newest.
    """
    unique: dict[str, str] = {}
    for line in _errors(lines) or [line for line in lines if line.strip() and not line.startswith(TABLE)]:
        key = _HEAD.sub("", line)
        unique.pop(key, None)
        unique[key] = line
    cut = (line if len(line) <= LINE_LIMIT else line[:LINE_LIMIT] + " …" for line in unique.values())
    return tuple(cut)[-limit:]


def _errors(lines: list[str]) -> list[str]:
    """Error lines with what belongs to them, Triton's escaped line ends made real ones."""
    kept: list[str] = []
    within = False
    for line in lines:
        glog = _GLOG.match(line)
        if glog is not None:
            within = glog.group(1) in "EF" and not _HARMLESS.search(line)
        elif _PLAIN_ERROR.match(line):
            within = True
        elif not line.strip() or line.startswith(("+-", "|", "--- ")):
            within = False
        if within:
            kept += [
                part.rstrip()
                for part in line.split("\\n")
                if part.strip(' "') and not part.lstrip().startswith("<frozen ")
            ]
    return kept


def follow(paths: list[Path], tail: int) -> Iterator[tuple[str, str]]:
    """``(name, line)`` of the last ``tail`` lines of each file, then of what is added, for ever.

    Goes on when a file is truncated by rotation (from its new start) or appears later.
    """
    offsets: dict[Path, int] = {}
    for path in paths:
        offsets[path] = path.stat().st_size if path.exists() else 0
        for line in last_lines(path, tail):
            yield path.stem, line
    rest = dict.fromkeys(paths, b"")
    while True:
        for path in paths:
            size = path.stat().st_size if path.exists() else 0
            if size < offsets[path]:
                offsets[path], rest[path] = 0, b""
            if size > offsets[path]:
                with path.open("rb") as file:
                    file.seek(offsets[path])
                    added = file.read()
                offsets[path] += len(added)
                *lines, rest[path] = (rest[path] + added).split(b"\n")
                for line_bytes in lines:
                    yield path.stem, line_bytes.decode(errors="replace")
        sleep(FOLLOW_INTERVAL_S)

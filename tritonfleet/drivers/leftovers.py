"""What a server that was killed leaves in /tmp: an empty folder of its Python backend, ``python_env_XXXXXX``.

A server that exits removes its own. One that was killed cannot, and nothing says whose a folder is; so one
goes only when no server that lives can have made it.
"""

import os
from contextlib import suppress
from pathlib import Path
from time import time

from tritonfleet.drivers.spawn import start_time

SLACK_S = 2.0  # start times are known to the second


def sweep(folder: Path = Path("/tmp")) -> list[Path]:  # noqa: S108 # the Python backend has this path built in
    """Remove our user's empty ``python_env_*`` folders that are older than every live tritonserver."""
    oldest = min([time(), *_server_starts()])  # the time first: a server may start while we look
    removed = []
    for found in folder.glob("python_env_??????"):
        with suppress(OSError):  # not empty, or another sweep was faster
            status = found.lstat()
            if status.st_uid == os.geteuid() and status.st_mtime < oldest - SLACK_S:
                found.rmdir()
                removed.append(found)
    return removed


def _server_starts() -> list[float]:
    """When each tritonserver of this host started, other users' included."""
    starts = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "comm").read_bytes().strip() == b"tritonserver":
                starts.append(start_time(int(entry.name)))
    return starts

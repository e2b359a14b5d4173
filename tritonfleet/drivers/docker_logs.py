"""Copies a container's output into its replica's log file, which outlives the container.

Beside the log a cursor keeps the daemon's time stamp of the last copied line, so that the next controller
goes on where this one left off. Killed between the two writes, it repeats one line and loses none.
"""

import asyncio
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from tritonfleet.drivers.docker_engine import Client, DockerEngine, Stream


class Cursor:
    """A file that holds one time stamp."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> str:
        try:
            return self.path.read_text().strip()
        except FileNotFoundError:
            return ""

    def open(self) -> BinaryIO:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.touch(mode=0o600)
        return self.path.open("r+b", buffering=0)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty, or not there
            self.path.parent.rmdir()


class LogCopy:
    """Copying one container's output from where the cursor is: to its end, or what there is now."""

    def __init__(
        self, engine: DockerEngine, container: str, log: Path, cursor: Cursor, *, follow: bool = True
    ) -> None:
        self._container, self._log, self._cursor, self._follow = container, log, cursor, follow
        self._last = cursor.read()
        self._stream = Stream(engine, self._open, self._take)

    @property
    def ended(self) -> asyncio.Event:
        return self._stream.ended

    def _open(self, client: Client) -> object:
        since = int(datetime.fromisoformat(self._last).timestamp()) if self._last else None
        return client.logs(
            self._container, stdout=True, stderr=True, stream=True, follow=self._follow, timestamps=True,
            since=since,
        )  # fmt: skip

    def _take(self, frame: bytes) -> None:
        """One entry of the log: its time, a space, and a line with its end (or a part of a very long one)."""
        stamp, _, line = frame.partition(b" ")
        when = stamp.decode("ascii", errors="replace")
        if when <= self._last:  # all stamps have nine digits, so they sort as text
            return
        self._last = when
        self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._log.open("ab", buffering=0) as log:  # opened anew: rotation may have come between
            log.write(line)
        with self._cursor.open() as cursor:
            cursor.write(stamp)

    async def close(self) -> None:
        await self._stream.close()

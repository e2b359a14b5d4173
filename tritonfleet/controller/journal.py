"""The fleet's journal: who did what, when and why, one JSON object per line, numbered."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from time import time

import msgspec

from tritonfleet.core.model import Event

log = logging.getLogger(__name__)

MAX_BYTES = 16 << 20  # then the file becomes events.jsonl.1 and a new one begins
REMEMBERED = 2000  # events kept in memory for those who ask
Value = str | int | float | bool | None


class Journal:
    """Appends events and lets others read and follow them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._recent: deque[Event] = deque(_read(path), maxlen=REMEMBERED)
        self.seq = self._recent[-1].seq if self._recent else 0
        self._added = asyncio.Event()
        self._closed = False

    def add(self, kind: str, subject: str, reason: str, **data: Value) -> Event:
        """Note an event; it is on disk when this returns."""
        self.seq += 1
        event = Event(self.seq, time(), kind, subject, reason, dict(data))
        self._recent.append(event)
        log.info("%s %s: %s", kind, subject, reason)
        try:
            if self._path.exists() and self._path.stat().st_size > MAX_BYTES:
                self._path.replace(_rotated(self._path))
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(event) + b"\n")
        except OSError as error:  # a full disk must not stop the fleet; the event is in the log above
            log.error("the journal %s cannot be written: %s", self._path, error)
        self._wake()
        return event

    def since(self, seq: int) -> list[Event]:
        """Events with a number above ``seq``, oldest first; at most the last `REMEMBERED`."""
        return [event for event in self._recent if event.seq > seq]

    async def follow(self, seq: int) -> AsyncIterator[Event]:
        """Like `since`, then every further event until the journal closes."""
        while True:
            for event in self.since(seq):
                seq = event.seq
                yield event
            if self._closed:
                return
            if self.seq <= seq:
                await self._added.wait()

    def close(self) -> None:
        """Let followers go."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        added, self._added = self._added, asyncio.Event()
        added.set()


def _rotated(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def _read(path: Path) -> list[Event]:
    """What an earlier controller wrote. A line that was cut off by a crash is skipped, and ended, so that the
    next one is a line of its own."""
    data = b"".join(file.read_bytes() for file in (_rotated(path), path) if file.exists())
    if data and not data.endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")
    events = []
    for line in data.splitlines()[-REMEMBERED:]:
        if not line:
            continue
        try:
            events.append(msgspec.json.decode(line, type=Event))
        except msgspec.MsgspecError:
            log.warning("%s: skipped a damaged line", path)
    return events

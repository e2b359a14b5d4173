"""The access log: one JSON line for each sampled call, written by a thread of its own; and spans, alike.

What flows in: the beginnings and ends of calls, from `LoggedDispatcher`. What flows out: lines in a file or
on stdout, and spans for `router.traces`. A worker without either has a plain `Dispatcher` and plain
connections: no call pays for it.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from time import perf_counter, time
from typing import Any

import msgspec

from tritonfleet.core.answers import status_name
from tritonfleet.http2.fields import Fields
from tritonfleet.http2.stream import Buffer, Stream
from tritonfleet.router import peek
from tritonfleet.router.call import Call, Leg
from tritonfleet.router.dispatch import Dispatcher
from tritonfleet.router.ends import OK_TRAILERS
from tritonfleet.router.grpc import Status
from tritonfleet.router.replica import ReplicaConnection
from tritonfleet.router.traces import Span, TraceExport, as_json, continued, with_parent

log = logging.getLogger(__name__)

STDOUT = "stdout"
MOST_WAITING = 50_000  # lines that a slow disk may hold up; more are dropped, and counted in the next line
WRITE_EVERY_S = 0.2


class Line(msgspec.Struct, omit_defaults=True):
    """One call. Durations in seconds; what is not known or not there is left out."""

    time: float | str  # when it ended; ISO 8601 by the time it is written
    method: str
    status: str
    duration_s: float
    model: str = ""
    queue_s: float = 0.0  # from its arrival until it was sent to the replica, the last one if to several
    replica: str = ""  # the instance; "" if it was sent to none
    retries: int = 0
    request_bytes: int = 0  # of the first message
    response_bytes: int = 0  # of all messages, gRPC's prefixes included
    id: str = ""  # the inference request's own
    request_id: str = ""  # the header x-request-id
    traceparent: str = ""
    client: str = ""
    message: str = ""  # what the router itself answered
    dropped: int = 0  # lines before this one that are not there


class Entry:
    """A sampled call that has not ended. ``logged``: it gets a line; ``span``: it is traced."""

    __slots__ = (
        "arrived", "id", "logged", "queue_s", "replica", "request_bytes", "response_bytes", "span",
        "traceparent",
    )  # fmt: skip

    def __init__(self, call: Call, *, logged: bool, span: Span | None) -> None:
        self.logged, self.span = logged, span
        self.traceparent = _header(call, b"traceparent")
        self.arrived = perf_counter()
        self.queue_s = 0.0
        self.replica = ""
        self.response_bytes = 0
        head = call.held[0] if call.held else b""
        self.request_bytes = int.from_bytes(head[1:5], "big")
        self.id = inference_id(peek.plain(head)) if call.info.infers else ""


class AccessLog:
    """Takes lines at once and writes them soon. ``sample``: the share of calls that are logged, above 0."""

    def __init__(self, path: str, sample: float) -> None:
        self.sample = sample
        self._path = path
        self._lines: deque[Line] = deque()
        self._dropped = 0
        self._counting = threading.Lock()
        self._failing = False
        self._wake = threading.Event()
        self._stopping = False
        self._fd, self._inode = self._open()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def wanted(self) -> bool:
        return self.sample >= 1.0 or random.random() < self.sample  # noqa: S311 # a sample, no secret

    def add(self, line: Line) -> None:
        """From the event loop; never waits."""
        if len(self._lines) >= MOST_WAITING:
            self._drop(1)
            return
        if self._dropped:
            with self._counting:
                line.dropped, self._dropped = self._dropped, 0
        self._lines.append(line)

    def close(self) -> None:
        """Write what waits and end. Waits for the disk, so not while calls run."""
        self._stopping = True
        self._wake.set()
        self._thread.join(5.0)
        if self._path != STDOUT:
            os.close(self._fd)

    def _drop(self, count: int) -> None:
        with self._counting:  # both threads do
            self._dropped += count

    def _open(self) -> tuple[int, int]:
        """Raises OSError."""
        if self._path == STDOUT:
            return 1, 0
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        return fd, os.fstat(fd).st_ino

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(WRITE_EVERY_S)
            self._write()
        self._write()

    def _write(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if not lines:
            return
        for line in lines:
            line.time = datetime.fromtimestamp(float(line.time), UTC).isoformat(timespec="milliseconds")
        data = msgspec.json.Encoder().encode_lines(lines)
        try:
            self._follow_rotation()
            written = os.write(self._fd, data)  # one write: workers that share the file do not mix lines
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError as error:
            self._drop(len(lines) + sum(line.dropped for line in lines))
            if not self._failing:
                log.warning("the access log %s cannot be written, lines are dropped: %s", self._path, error)
            self._failing = True
        else:
            self._failing = False

    def _follow_rotation(self) -> None:
        """A file that was renamed or removed is left for a new one of the same name. Raises OSError."""
        if self._path == STDOUT:
            return
        with suppress(FileNotFoundError):
            if os.stat(self._path).st_ino == self._inode:  # noqa: PTH116 # a Path would be one more object
                return
        before = self._fd
        self._fd, self._inode = self._open()
        os.close(before)


class LoggedConnection(ReplicaConnection):
    """Counts the bytes of answers."""

    def on_data(self, stream: Stream, payload: Buffer, end_stream: bool) -> None:
        entry = self.dispatcher.entries.get(stream.partner)  # type: ignore[attr-defined] # a LoggedDispatcher's
        if entry is not None:
            entry.response_bytes += len(payload)
        super().on_data(stream, payload, end_stream)


class LoggedDispatcher(Dispatcher):
    """Tells its `access` log, and its `traces`, how each sampled call ended."""

    replica_connection = LoggedConnection
    access: AccessLog | None = None
    traces: TraceExport | None = None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.entries: dict[Stream, Entry] = {}

    def dispatch(self, call: Call) -> None:
        entry = self.entries.get(call)
        if entry is None and call.tries == 0 and not call.delayed:
            entry = self._sampled(call)
            if entry is not None:
                self.entries[call] = entry
                if entry.span is not None:
                    call.fields = with_parent(call.fields, entry.span)
        super().dispatch(call)
        leg: Leg | None = call.partner  # type: ignore[assignment] # a Call's partner is a Leg
        if entry is not None and leg is not None:
            entry.queue_s = leg.started - entry.arrived
            entry.replica = leg.replica.instance

    def complete(self, call: Call, leg: Leg, status: int, trailers: Fields | None = None) -> None:
        entry = self.entries.pop(call, None)
        super().complete(call, leg, status, trailers)
        self._note(call, entry, status)

    def cancel(self, stream: Stream) -> None:
        call: Call = stream  # type: ignore[assignment] # only client streams come here
        entry = self.entries.pop(call, None)
        super().cancel(stream)
        self._note(call, entry, Status.CANCELLED)

    def leg_reset(self, leg: Leg, code: int) -> None:
        call: Call | None = leg.partner  # type: ignore[assignment] # a Leg's partner is a Call
        super().leg_reset(leg, code)
        if call is not None and call.done:
            self._note(call, self.entries.pop(call, None), Status.INTERNAL)

    def refuse(self, call: Call, status: Status, message: str, pushback_s: float | None = None) -> None:
        entry = self._entry_of(call)
        super().refuse(call, status, message, pushback_s)
        self._note(call, entry, status, message)

    def reply(self, call: Call, message: bytes, trailers: bytes = OK_TRAILERS) -> None:
        entry = self._entry_of(call)
        if entry is not None:
            entry.response_bytes = len(message) + 5
        super().reply(call, message, trailers)
        self._note(call, entry, 0)

    def _entry_of(self, call: Call) -> Entry | None:
        """Of a call that we end ourselves. What speaks of the whole fleet was never dispatched."""
        if call.done:
            return None
        entry = self.entries.pop(call, None)
        if entry is None and call.info.is_own:
            entry = self._sampled(call)
        return entry

    def _sampled(self, call: Call) -> Entry | None:
        logged = self.access is not None and self.access.wanted()
        span = None
        if self.traces is not None:
            span = continued(call.fields.get(b"traceparent"), self.traces.sample)
        return Entry(call, logged=logged, span=span) if logged or span is not None else None

    def _note(self, call: Call, entry: Entry | None, status: int, message: str = "") -> None:
        if entry is None:
            return
        if entry.span is not None and self.traces is not None:
            now = time()
            self.traces.add(
                as_json(
                    entry.span, call.info.path.decode("latin-1"), now - (perf_counter() - entry.arrived), now,
                    status, message, model=call.model or "", replica=entry.replica, queue_s=entry.queue_s,
                    retries=max(0, call.tries - 1),
                )
            )  # fmt: skip
        if not entry.logged or self.access is None:
            return
        transport = call.connection.transport  # type: ignore[attr-defined] # a Call's is a ClientConnection
        peer = transport.get_extra_info("peername") if transport is not None else None
        self.access.add(
            Line(
                time=time(),
                method=call.info.path.rpartition(b"/")[2].decode("latin-1"),
                status=status_name(status),
                duration_s=round(perf_counter() - entry.arrived, 6),
                model=call.model or "",
                queue_s=round(entry.queue_s, 6),
                replica=entry.replica,
                retries=max(0, call.tries - 1),
                request_bytes=entry.request_bytes,
                response_bytes=entry.response_bytes,
                id=entry.id,
                request_id=_header(call, b"x-request-id"),
                traceparent=entry.traceparent,
                client=f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "",
                message=message,
            )
        )


def inference_id(data: Buffer) -> str:
    """Field 3, the client's own id, of the ModelInferRequest at the start of ``data``, behind field 1, the
    model, and field 2, its version (each with less than 128 bytes); "" without one."""
    at = 5
    try:
        for tag in (0x0A, 0x12):
            if data[at] == tag and data[at + 1] < 0x80:
                at += 2 + data[at + 1]
        if data[at] != 0x1A or data[at + 1] >= 0x80:
            return ""
        return str(data[at + 2 : at + 2 + data[at + 1]], "utf-8")
    except (IndexError, UnicodeDecodeError):
        return ""


def _header(call: Call, name: bytes) -> str:
    return (call.fields.get(name) or b"").decode("latin-1")


def dispatcher_with(access: AccessLog | None, traces: TraceExport | None = None) -> type[Dispatcher]:
    """What a worker's dispatcher is made of: with either, one that tells it of calls."""
    if access is None and traces is None:
        return Dispatcher
    return type("Dispatcher", (LoggedDispatcher,), {"access": access, "traces": traces})

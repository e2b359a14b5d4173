"""OpenTelemetry: one span for each sampled call, sent by a thread as OTLP over HTTP in JSON.

A client's ``traceparent`` (W3C Trace Context) is continued, and its decision whether to sample is kept; a
call without one begins a trace in the share ``sample`` of cases. The replica is told the router's span as its
parent.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

from tritonfleet.http2.fields import Fields

log = logging.getLogger(__name__)

TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
SEND_EVERY_S = 1.0
MOST_WAITING = 10_000  # spans; more are dropped
BATCH = 512
POST_TIMEOUT_S = 5.0
FAILED = frozenset((2, 4, 12, 13, 14, 15))  # statuses that mean an error of the server (OpenTelemetry's list)
SERVER, ERROR = 2, 2  # of SpanKind, of StatusCode


@dataclass(frozen=True, slots=True)
class Span:
    """The router's own span of a call; ids in hex, as in ``traceparent``. ``parent``: "" for a new trace."""

    trace: str
    id: str
    parent: str

    def traceparent(self) -> bytes:
        return f"00-{self.trace}-{self.id}-01".encode()


def continued(given: bytes | None, sample: float) -> Span | None:
    """The span for a call whose client sent ``given``; None if it is not sampled."""
    found = TRACEPARENT.fullmatch(given) if given else None
    if found is not None and _valid(found):
        if not int(found[4], 16) & 1:
            return None
        return Span(found[2].decode(), os.urandom(8).hex(), found[3].decode())
    if random.random() >= sample:  # noqa: S311 # a sample, no secret
        return None
    return Span(os.urandom(16).hex(), os.urandom(8).hex(), "")


def _valid(found: re.Match[bytes]) -> bool:
    """Version ff, and ids of zeros, are not; version 00 has four parts (W3C Trace Context, 3.2)."""
    known = found[1] != b"ff" and (found[1] != b"00" or found[5] is None)
    return known and found[2] != b"0" * 32 and found[3] != b"0" * 16


def with_parent(fields: Fields, span: Span) -> Fields:
    """The request's headers with ``span`` as the parent of what the replica does."""
    kept = tuple(item for item in fields.items if item[0] != b"traceparent")
    told = Fields((*kept, (b"traceparent", span.traceparent())))
    told.info = fields.info
    return told


def as_json(
    span: Span, path: str, began_s: float, ended_s: float, status: int, message: str, **more: str | float
) -> dict[str, Any]:
    """One span of OTLP. Times are Unix times in seconds; ``more`` become attributes ``tritonfleet.…``."""
    service, _, method = path.strip("/").rpartition("/")
    attributes = {
        "rpc.system": "grpc",
        "rpc.service": service,
        "rpc.method": method,
        "rpc.grpc.status_code": status,
    }
    attributes |= {f"tritonfleet.{name}": value for name, value in more.items() if value}
    return {
        "traceId": span.trace,
        "spanId": span.id,
        **({"parentSpanId": span.parent} if span.parent else {}),
        "name": path.strip("/"),
        "kind": SERVER,
        "startTimeUnixNano": str(round(began_s * 1e9)),
        "endTimeUnixNano": str(round(ended_s * 1e9)),
        "attributes": _attributes(attributes),
        "status": {"code": ERROR, "message": message} if status in FAILED else {},
    }


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    def typed(value: Any) -> dict[str, Any]:
        if isinstance(value, str):
            return {"stringValue": value}
        return {"intValue": str(value)} if isinstance(value, int) else {"doubleValue": value}

    return [{"key": name, "value": typed(value)} for name, value in values.items()]


class TraceExport:
    """Takes spans at once, posts them soon to ``endpoint``/v1/traces. ``sample``: see `continued`."""

    def __init__(self, endpoint: str, sample: float, fleet: str) -> None:
        import urllib.request  # slow to import, and most workers have no traces

        self.sample = sample
        self._url = endpoint.rstrip("/") + "/v1/traces"
        named = {"service.name": "tritonfleet-router", "tritonfleet.fleet": fleet}
        self._resource = {"attributes": _attributes(named)}
        self._spans: deque[dict[str, Any]] = deque(maxlen=MOST_WAITING)
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # no proxy between
        self._failing = False
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def add(self, span: dict[str, Any]) -> None:
        """From the event loop; never waits. The oldest make room where the collector does not keep up."""
        self._spans.append(span)

    def close(self) -> None:
        """Send what waits, once, and end. Waits for the collector, so not while calls run."""
        self._stopping = True
        self._wake.set()
        self._thread.join(POST_TIMEOUT_S + 1)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(SEND_EVERY_S)
            while self._spans and self._send():
                pass  # batch after batch, until all are sent or one is not taken

    def _send(self) -> bool:
        """Post one batch. False, and the batch is lost, if the collector does not take it."""
        from http.client import HTTPException
        from urllib.request import Request

        batch = [self._spans.popleft() for _ in range(min(BATCH, len(self._spans)))]
        scope = {"scope": {"name": "tritonfleet"}, "spans": batch}
        body = json.dumps({"resourceSpans": [{"resource": self._resource, "scopeSpans": [scope]}]}).encode()
        request = Request(  # noqa: S310 # http or https: the fleet file is checked for it
            self._url, body, {"content-type": "application/json"}
        )
        try:
            with self._open(request, timeout=POST_TIMEOUT_S):
                self._failing = False
                return True
        except (OSError, HTTPException) as error:
            if not self._failing:
                log.warning("%s does not take spans, they are dropped: %s", self._url, error)
            self._failing = True
            return False

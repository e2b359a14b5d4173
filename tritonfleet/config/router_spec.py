"""What a fleet file may say of the router."""

import re
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tritonfleet.config.limits_spec import LimitsSpec
from tritonfleet.config.spec_types import Address, Duration, ListenAddress, Part, Whole
from tritonfleet.core.managers import CERTIFICATE, TOKEN


class QueueSpec(Part):
    max_requests: Whole = Field(default=1024, ge=0, le=1_000_000)
    """How many requests of a model may wait in each router worker; more are refused at once."""
    max_wait: Duration = 30.0
    """How long one may wait; its own deadline counts if that is nearer."""
    order: Literal["fifo", "shortest"] = "fifo"
    """Within a priority: by deadline, then arrival, or the cheapest first (none waits over 1 s for that)."""


class TlsSpec(Part):
    cert: str = Field(min_length=1)
    """The certificate with its chain, a PEM file; a changed file is used for new connections."""
    key: str = Field(min_length=1)
    """Its private key, a PEM file without a pass phrase."""
    client_ca: str | None = Field(default=None, min_length=1)
    """Clients must have a certificate that this PEM file's authorities signed (mutual TLS)."""


def _a_manager(text: str) -> str:
    for prefix, what in ((CERTIFICATE, "NAME"), (TOKEN, "FILE")):
        if text.startswith(prefix):
            if text == prefix or "," in text:
                raise ValueError(f"{text!r} is not {prefix}{what} (without commas)")
            return text
    try:
        ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"{error}; write ADDRESS/BITS, such as 10.0.0.0/8 or 192.168.1.7/32, or {CERTIFICATE}NAME, "
            f"or {TOKEN}FILE"
        ) from None
    return text


class AccessLogSpec(Part):
    path: str = Field(min_length=1)
    """A file that one JSON line for each call is appended to; a relative path starts at the fleet file's
    folder. `stdout` is the router workers' own logs."""
    sample: float = Field(default=1.0, gt=0, le=1)
    """The share of calls that get a line."""


def _an_endpoint(url: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", url):
        raise ValueError(f"{url!r} is no endpoint; write http://HOST:4318")
    return url


class TracesSpec(Part):
    endpoint: Annotated[str, AfterValidator(_an_endpoint)]
    """The OTLP receiver of an OpenTelemetry collector over HTTP, such as `http://127.0.0.1:4318`."""
    sample: float = Field(default=0.01, ge=0, le=1)
    """The share of calls that begin a trace; one with a `traceparent` is traced if that says so."""


class RouterSpec(Part):
    listen: ListenAddress = Address(host="127.0.0.1", port=8001)
    """Where clients connect, `HOST:PORT`."""
    management: Annotated[tuple[Annotated[str, AfterValidator(_a_manager)], ...], Field(min_length=1)] = (
        "127.0.0.0/8",
        "::1/128",
    )
    """Who may load and unload models, register shared memory, set traces and logs: clients of a network
    (10.0.0.0/8), with a certificate of that name (`cert:NAME`), or with the secret in a file as their
    metadata `authorization: Bearer SECRET` (`token:FILE`)."""
    tls: TlsSpec | None = None
    """Clients must use TLS; without it, connections are plain."""
    workers: Whole = Field(default=1, ge=1, le=64)
    """Router processes that share the port."""
    external: bool = False
    """Somebody else runs them, by `tritonfleet router`: then the controller starts none."""
    policy: Literal["round_robin", "least_requests", "least_work"] = "least_work"
    """How a replica is chosen: each in turn, the one with the fewest requests in flight, or the one that is
    expected to be done first (by what requests of that size took before)."""
    queue: QueueSpec = QueueSpec()
    retry: Literal["safe", "unsent", "off"] = "safe"
    """What is sent to another replica: inferences lost with theirs too, only what none looked at, nothing."""
    access_log: AccessLogSpec | None = None
    """A line for each call, or a sample of them; without it, none, and no call is delayed."""
    traces: TracesSpec | None = None
    """A span for each sampled call goes to OpenTelemetry; without it, none, and no call is delayed."""
    connections_per_replica: Whole = Field(default=2, ge=1, le=64)
    """HTTP/2 connections each worker keeps open to each replica."""
    limits: LimitsSpec = LimitsSpec()
    drain_timeout: Duration = 30.0
    """How long calls may go on after the router was told to stop."""

"""What the controller and the routers tell each other: the table, telemetry, calls of the whole fleet.

Part of `core.wire`, which gives these names as well. They are apart because a command that only asks for a
snapshot need not make them: a frozen dataclass takes half a millisecond.
"""

from dataclasses import dataclass, field

from tritonfleet.core.replica_tls import ReplicaTls

Process = tuple[int, int, float]  # a worker's index, its pid, when it started


@dataclass(frozen=True, slots=True)
class TableReplica:
    """One row of the router's table: a replica that may hold requests."""

    id: str
    instance: str
    pool: str
    host: str
    port: int
    draining: bool
    models: tuple[str, ...]  # names of the models ready there
    slots: dict[str, int] = field(default_factory=dict)  # by model: calls it can usefully hold; absent: any
    versions: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by model: those ready; absent: any
    pace: float = 1.0  # seconds it takes for each that a peer takes, by Triton's statistics; ≥ 1
    strict: bool = False  # `slots` are the operator's: never more, however short the calls are
    decoupled: tuple[str, ...] = ()  # of the models, those that may answer a request more than once
    tls: ReplicaTls | None = None  # how it is spoken to; None: without TLS

    def has_version(self, model: str, version: str) -> bool:
        known = self.versions.get(model)
        return known is None or not version or version in known


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """What a router may do with a request; the fleet file's router.queue and router.retry."""

    max_requests: int = 1024
    max_wait_s: float = 30.0
    order: str = "fifo"  # or "shortest"
    retry: str = "safe"  # or "unsent", "off"


@dataclass(frozen=True, slots=True)
class RouterTable:
    """A whole picture, never a difference: the newest one replaces what the router knew."""

    fleet: str
    revision: int  # grows with every change; a controller that was restarted goes on from its last
    policy: str
    replicas: tuple[TableReplica, ...]
    settings: RouterSettings = RouterSettings()
    asleep: dict[str, float] = field(default_factory=dict)  # by model without a replica: s to wake one
    regions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Shared-memory regions that some of the replicas lack → the instances that have them."""
    priors: dict[str, float] = field(default_factory=dict)  # by model: mean s a request takes of a replica


@dataclass(frozen=True, slots=True)
class ReplicaTelemetry:
    """One replica as one router worker sees it now."""

    instance: str
    in_flight: int  # requests sent there and not answered in full; of a stream, those that are open in it
    streams: int  # streaming calls that are open, whether or not they have a request in flight
    oldest_in_flight_s: float  # age of the oldest of them; 0 when there is none
    connections: int  # established
    reachable: bool  # False while every attempt to connect fails
    last_error: str = ""
    sequences: int = 0  # open ones, whose state lives there
    ejected: bool = False  # answers badly, or not at all: not chosen for a while
    ejections: int = 0  # how often that happened
    pace: float = 1.0  # how many seconds it is taken to need for each expected one
    slow_starts: int = 0  # how often it was given less for its first seconds


@dataclass(frozen=True, slots=True)
class CallTelemetry:
    """Cumulative counters of one worker for one (instance, model). ``model`` is "" for calls that name none.

    ``codes`` counts finished calls by gRPC status number as text ("0"); ``latency`` is a sparse `Histogram`
    (bucket index as text → count), of unary calls that reached the replica, from dispatch to their end."""

    instance: str
    model: str
    in_flight: int
    codes: dict[str, int]
    latency: dict[str, int]
    latency_sum_s: float
    served: int = 0  # inferences that succeeded, but for those of decoupled models
    expected_s: float = 0.0  # what those were expected to take of the replica, in all (`core.cost`)
    streamed: int = 0  # requests in streams that have ended
    streams: int = 0  # streams that have ended, each of which is one of ``codes``


@dataclass(frozen=True, slots=True)
class RouterTelemetry:
    """What a worker reports: gauges as of now, counters since the worker started (`process` names it)."""

    worker: int
    pid: int
    started_at: float
    table_revision: int
    client_connections: int
    requests_total: int  # calls accepted from clients, those it refused itself included
    refused_total: int  # answered by the router itself, without a replica
    retries_total: int
    replicas: tuple[ReplicaTelemetry, ...]
    calls: tuple[CallTelemetry, ...]
    waiting: int = 0  # calls that no replica has room for yet
    waiting_by_model: dict[str, int] = field(default_factory=dict)  # those of them in a model's queue
    refused_by_status: dict[str, int] = field(default_factory=dict)  # of refused_total, by gRPC status
    retries_denied_total: int = 0  # calls that were not sent again for want of budget
    waits: dict[str, tuple[dict[str, int], float]] = field(default_factory=dict)
    """By model, how long those waited that had to: as `CallTelemetry.latency`, and the sum in seconds."""
    panics_total: int = 0  # times that ejected replicas were used since too few others were left
    listening: bool = True  # False once it only finishes its calls
    settings: str = ""  # which it was started with, as its command line names them

    @property
    def process(self) -> Process:
        """Who counts, from zero: in a container a restarted worker has the pid of the one before."""
        return self.worker, self.pid, self.started_at


@dataclass(frozen=True, slots=True)
class RpcRequest:
    """A gRPC call that speaks of the whole fleet, as a router worker got it.

    ``message`` is the protobuf, without gRPC's prefix and not compressed (base64 in JSON); ``metadata`` is
    what a replica may insist on, authorization and ``triton-grpc-protocol-…``; ``timeout_s`` is what is
    left of the client's deadline.
    """

    path: str  # "/inference.GRPCInferenceService/RepositoryIndex"
    message: bytes = b""
    metadata: dict[str, str] = field(default_factory=dict)
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class RpcAnswer:
    """``status`` is a gRPC status number; with 0 there is a ``message``, else ``text`` says why not, in the
    words the client is to read."""

    status: int
    text: str = ""
    message: bytes = b""

"""What crosses process boundaries: the control API's bodies, the router's table and telemetry.

Frozen data only. Every side encodes and decodes it with msgspec (``msgspec.json.encode(x)``,
``msgspec.json.decode(body, type=X)``), so this module is the one definition of the format: a field
added with a default is compatible in both directions, a removed or renamed one is not.

Control API (HTTP/1.1 + JSON on a unix socket; every path starts with ``/v1``):

========  ==============================  =======================  ===================================
method    path                            request body             response body
========  ==============================  =======================  ===================================
GET       /v1/snapshot                    –                        FleetSnapshot
GET       /v1/board                       –                        Board (`core.board`)
POST      /v1/scale                       ScaleRequest             Accepted
GET       /v1/autoscale                   –                        list of AutoscaleStatus
POST      /v1/apply                       ApplyRequest             Accepted
GET       /v1/rollout                     –                        RolloutStatus (`core.rollout`)
GET       /v1/{replicas,pools}/{id}/launch  –                      Launched (`core.launched`)
POST      /v1/rollout/undo                UndoRequest              Accepted
POST      /v1/replicas/{id}/drain         DrainRequest             Accepted
POST      /v1/replicas/{id}/undrain       –                        Accepted
POST      /v1/replicas/{id}/restart       RestartRequest           Accepted
POST      /v1/devices/{id}/drain          DrainRequest             Accepted
POST      /v1/devices/{id}/undrain        –                        Accepted
POST      /v1/router/restart              RestartRequest           Accepted
POST      /v1/down                        DownRequest              Accepted
GET       /v1/events?since=SEQ&follow=1   –                        Event per line (NDJSON)
GET       /v1/router/table                –                        RouterTable per line (NDJSON, stays open)
POST      /v1/router/telemetry            RouterTelemetry          204
POST      /v1/router/rpc                  RpcRequest               RpcAnswer
========  ==============================  =======================  ===================================

Any refusal is a 4xx/5xx with a `Problem` body.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tritonfleet.core.certificates import Certificate
from tritonfleet.core.image_pull import ImagePull, Layer
from tritonfleet.core.model import (
    DeviceKind,
    DeviceReading,
    Event,
    ExitStatus,
    ModelStatus,
    Replica,
    ReplicaState,
)

if TYPE_CHECKING:
    from tritonfleet.core.wire_routers import (
        CallTelemetry,
        ReplicaTelemetry,
        RouterSettings,
        RouterTable,
        RouterTelemetry,
        RpcAnswer,
        RpcRequest,
        TableReplica,
    )

__all__ = [
    "Accepted",
    "ApplyRequest",
    "AutoscaleAnswer",
    "AutoscaleSignal",
    "AutoscaleStatus",
    "CallTelemetry",
    "Certificate",
    "ControllerInfo",
    "DeviceInfo",
    "DeviceKind",
    "DeviceReading",
    "DownRequest",
    "DrainRequest",
    "Event",
    "ExitStatus",
    "FleetSnapshot",
    "ImagePull",
    "Layer",
    "ModelReading",
    "ModelStatus",
    "PoolSnapshot",
    "Problem",
    "Replica",
    "ReplicaState",
    "ReplicaTelemetry",
    "RestartRequest",
    "RouterInfo",
    "RouterSettings",
    "RouterTable",
    "RouterTelemetry",
    "RpcAnswer",
    "RpcRequest",
    "ScaleRequest",
    "TableReplica",
    "WorkerInfo",
]

# ---------------------------------------------------------------- requests


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal, in the words a person will read. ``kind`` is stable, for programs."""

    kind: str  # "not_found", "invalid", "conflict", "internal"
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was done or begun, in words; ``seq`` is the journal's number of the event that says so."""

    message: str
    seq: int = 0


@dataclass(frozen=True, slots=True)
class ScaleRequest:
    """Pin pool sizes. An empty pool name means the fleet's only pool. ``by`` goes into the journal.

    ``for_s``: the pins end by themselves after so long. ``pause``: pools pinned at the size they have;
    ``auto``: pools whose pin ends, so that autoscaling, or the fleet file, sets their size again."""

    sizes: dict[str, int] = field(default_factory=dict)
    by: str = "user"
    for_s: float | None = None
    pause: tuple[str, ...] = ()
    auto: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApplyRequest:
    """Bring the fleet to the state of a fleet file. The controller reads and validates ``path`` itself,
    interpolating with ``environ`` (the caller's), so that ``up`` means the same in every terminal."""

    path: str
    environ: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    by: str = "user"


@dataclass(frozen=True, slots=True)
class DrainRequest:
    deadline_s: float | None = None  # None: the pool's drain_timeout
    force: bool = False  # do not wait for what is in flight
    by: str = "user"


@dataclass(frozen=True, slots=True)
class RestartRequest:
    force: bool = False  # do not drain first
    by: str = "user"


@dataclass(frozen=True, slots=True)
class DownRequest:
    """Drain and stop everything, then the router and the controller."""

    timeout_s: float | None = None  # None: every pool's drain_timeout
    force: bool = False  # do not drain, kill at once
    by: str = "user"


# ---------------------------------------------------------------- snapshot


@dataclass(frozen=True, slots=True)
class ModelReading:
    """Triton's statistics of one model on one replica over the last polling interval.

    Rates are per second; times are mean seconds per request. ``age_s`` is how old the reading is:
    a replica that does not answer keeps its last reading with a growing age, it never becomes idle.
    """

    replica: str
    model: str
    version: str
    age_s: float
    window_s: float  # the span of time the rates were taken over; 0 when there was one reading only
    request_rate: float
    failure_rate: float
    inference_rate: float  # batch items
    execution_rate: float  # executions (batches)
    queue_s: float  # mean time in Triton's queue
    compute_s: float  # mean input + inference + output time
    requests_total: int
    failures_total: int


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    name: str
    desired: int  # the size the controller holds now
    minimum: int
    maximum: int
    pinned: bool  # whether `scale` set it
    ready: int
    starting: int  # pending, starting and loading
    failed: int  # failed and crash_loop
    draining: int  # draining and stopping
    config_hash: str
    model_repository: str
    reason: str  # why the size is what it is
    cold_start_s: float | None = None  # the last measured time from launch to ready
    autoscaled: bool = False  # whether the load sets its size now
    pinned_until: float | None = None  # when the pin ends by itself


@dataclass(frozen=True, slots=True)
class AutoscaleSignal:
    """``value`` None: unknown. ``fast`` is the same over the panic window. ``trouble``: "" if it is fresh."""

    name: str
    value: float | None
    age_s: float | None
    trouble: str
    fast: float | None
    shown: str  # value and unit, for people


@dataclass(frozen=True, slots=True)
class AutoscaleAnswer:
    """How many replicas one target asks for; None: its signals are missing."""

    target: str
    count: int | None
    why: str


@dataclass(frozen=True, slots=True)
class AutoscaleStatus:
    """The last decision about one pool. ``mode``: "on", "dry run", "pinned" (somebody set the size), or "off"
    (its file has no autoscale section; then there is nothing else)."""

    pool: str
    mode: str
    size: int
    minimum: int
    maximum: int
    at: float | None = None
    wanted: int | None = None  # what it would set, within the bounds
    asked: int | None = None  # what the targets ask for, spare included, before bounds
    reason: str = ""
    panic: bool = False
    clipped: str = ""  # the bound in the way
    pinned_until: float | None = None
    ready: int = 0
    warming: int = 0
    loading: int = 0
    pending: int = 0
    leaving: int = 0
    cold_start_s: float | None = None
    forecast: str = ""
    answers: tuple[AutoscaleAnswer, ...] = ()
    signals: tuple[AutoscaleSignal, ...] = ()
    changed_at: float | None = None  # the last change of size by autoscaling


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device: what it is, what its driver last said of it, and who is there."""

    id: str
    kind: DeviceKind
    name: str = ""
    memory_bytes: int = 0  # 0 where it is not known
    reading: DeviceReading | None = None  # None: a CPU slot, or a GPU that this host's NVML does not show
    replicas: tuple[str, ...] = ()  # ids of those that have, or are about to have, a process there
    failures: int = 0  # launches that ended badly there lately
    set_aside: str = ""  # why no replica is placed there, if none is
    set_aside_until: float | None = None  # when that ends by itself; None: by `undrain device/ID` only


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One router worker process."""

    index: int
    pid: int
    started_at: float
    running: bool
    restarts: int
    table_revision: int = 0  # the last table it said it routes by
    telemetry_age_s: float | None = None  # None: it has not reported yet
    client_connections: int = 0
    requests_total: int = 0
    request_rate: float = 0.0
    reason: str = ""
    short_lives: int = 0  # in a row, that is: it ends as soon as it is started
    leaving: bool = False  # another has taken its place, and it finishes its calls
    outdated: bool = False  # it was started with other settings than the fleet's, as ``reason`` says


@dataclass(frozen=True, slots=True)
class RouterInfo:
    address: str  # "127.0.0.1:8001"
    policy: str
    workers: tuple[WorkerInfo, ...]
    external: bool = False  # somebody else runs them
    config_hash: str = ""  # of all that the fleet file says of it; "": not known


@dataclass(frozen=True, slots=True)
class ControllerInfo:
    pid: int
    started_at: float
    version: str


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """Everything `ps`, `describe` and the dashboard show. One consistent reading."""

    fleet: str
    at: float
    driver: str
    config_path: str
    state_dir: str
    table_revision: int
    stopping: bool  # `down` is under way
    controller: ControllerInfo
    router: RouterInfo
    devices: tuple[DeviceInfo, ...]
    pools: tuple[PoolSnapshot, ...]
    replicas: tuple[Replica, ...]
    readings: tuple[ModelReading, ...]
    cold_starts_s: dict[str, float] = field(default_factory=dict)  # replica id → its last launch-to-ready
    pulls: tuple[ImagePull, ...] = ()  # images that are on their way to the Docker host
    certificates: tuple[Certificate, ...] = ()  # that the fleet file names, as their files are


def __getattr__(name: str) -> object:
    """The names of `core.wire_routers`, made when the first of them is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tritonfleet.core import wire_routers

    return getattr(wire_routers, name)

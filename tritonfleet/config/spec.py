"""What a fleet file may say, as pydantic models: types, defaults, and what one field alone can get wrong.

Unknown keys are refused. Everything is frozen: a changed file is a new `FleetSpec`. Field descriptions are
the text of docs/configuration.md and of the JSON Schema. What several fields together can get wrong, and what
needs the disk, is checked in `tritonfleet.config.checks`.
"""

import re
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    WithJsonSchema,
    model_validator,
)

from tritonfleet.config.cron import checked_cron, checked_zone
from tritonfleet.config.errors import shown
from tritonfleet.config.units import (
    DURATION,
    SIZE,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

NAME = r"^[a-z]([a-z0-9-]{0,29}[a-z0-9])?$"

# A reference as `docker pull` takes it, in short: what Docker itself checks in detail.
IMAGE = r"[A-Za-z0-9][A-Za-z0-9._:/@-]*"
SMALLEST_SHM = 64 << 20

DOCKER_HOST = r"(unix|tcp|ssh)://.+"

ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"

# Arguments of tritonserver that the fleet sets itself, with what to use instead.
OWNED_ARGUMENTS = {
    "--grpc-port": "the fleet gives every replica its own ports",
    "--http-port": "the fleet gives every replica its own ports",
    "--metrics-port": "the fleet gives every replica its own ports",
    "--grpc-address": "replicas listen on loopback; clients use router.listen",
    "--http-address": "replicas listen on loopback; clients use router.listen",
    "--metrics-address": "replicas listen on loopback",
    "--allow-grpc": "the fleet speaks gRPC with its replicas",
    "--grpc-use-ssl": "the fleet speaks plain gRPC with its replicas, on loopback",
    "--model-repository": "use model_repository",
    "--model-store": "use model_repository",
    "--model-control-mode": "the fleet loads models itself; use models",
    "--load-model": "use models",
    "--exit-timeout-secs": "use triton.exit_timeout",
}


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be longer than 0")
    return seconds


Whole = Annotated[int, Strict()]  # `true` is no number, whatever Python thinks
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    AfterValidator(_positive),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": DURATION}, {"type": "number", "exclusiveMinimum": 0}],
            "examples": ["250ms", "30s", "5m"],
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": SIZE}, {"type": "integer", "minimum": 0}],
            "examples": ["64m", "1g"],
        }
    ),
]


class Part(BaseModel):
    """What all parts share."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Address(Part):
    """``host:port``; ``[::1]:8001`` for IPv6."""

    host: str
    port: int

    @classmethod
    def parse(cls, value: object) -> object:
        """What a file says → what the fields take. Raises ValueError with an example."""
        if isinstance(value, Address):
            return value
        host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
        if not host or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or not 1 <= int(port) <= 65535:
            raise ValueError(f"{shown(value)} is not HOST:PORT; write it as 127.0.0.1:8001")
        if ":" in host and not re.fullmatch(r"\[.+\]", host):
            raise ValueError(f"{value!r} needs brackets around an IPv6 address: [::1]:8001")
        if host == "*":
            raise ValueError(f"{value!r} has no host; 0.0.0.0:{port} listens on every interface")
        return {"host": host.strip("[]"), "port": int(port)}

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


ListenAddress = Annotated[
    Address,
    BeforeValidator(Address.parse),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^.+:\d+$", "examples": ["127.0.0.1:8001"]}),
]


class CpuSlots(Part):
    """Slots without a GPU."""

    cpu: Whole = Field(ge=1, le=1024)
    """How many replicas may run without a GPU."""


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


def _a_network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError as error:
        raise ValueError(f"{error}; write ADDRESS/BITS, such as 10.0.0.0/8 or 192.168.1.7/32") from None
    return text


class RouterSpec(Part):
    listen: ListenAddress = Address(host="127.0.0.1", port=8001)
    """Where clients connect, `HOST:PORT`."""
    management: Annotated[tuple[Annotated[str, AfterValidator(_a_network)], ...], Field(min_length=1)] = (
        "127.0.0.0/8",
        "::1/128",
    )
    """The networks whose clients may load and unload models, register shared memory, set traces and logs."""
    tls: TlsSpec | None = None
    """Clients must use TLS; without it, connections are plain."""
    workers: Whole = Field(default=1, ge=1, le=64)
    """Router processes that share the port."""
    policy: Literal["round_robin", "least_requests", "least_work"] = "least_work"
    """How a replica is chosen: each in turn, the one with the fewest requests in flight, or the one that is
    expected to be done first (by what requests of that size took before)."""
    queue: QueueSpec = QueueSpec()
    retry: Literal["safe", "unsent", "off"] = "safe"
    """What is sent to another replica: inferences lost with theirs too, only what none looked at, nothing."""
    connections_per_replica: Whole = Field(default=2, ge=1, le=64)
    """HTTP/2 connections each worker keeps open to each replica."""
    drain_timeout: Duration = 30.0
    """How long calls may go on after the router was told to stop."""


class ReplicasSpec(Part):
    min: Whole = Field(default=1, ge=0, le=1024)
    """The fewest that `scale` and autoscaling may set."""
    initial: Whole | None = Field(default=None, ge=0, le=1024)
    """How many `up` starts; `min` if not given. A size set by `scale` outlasts it."""
    max: Whole = Field(default=4, ge=1, le=1024)
    """The most that they may set; if not given, 4, or what the listed devices hold if that is less."""
    per_device: Whole = Field(default=1, ge=1, le=64)
    """How many of this pool's replicas may share a device."""
    devices_per_replica: Whole = Field(default=1, ge=1, le=64)
    """How many devices each replica gets, for itself alone: for models that need several GPUs."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        if self.initial is not None and not self.min <= self.initial <= self.max:
            raise ValueError(f"initial {self.initial} is not between min {self.min} and max {self.max}")
        if self.devices_per_replica > 1 and self.per_device > 1:
            raise ValueError("devices_per_replica and per_device cannot both be more than 1; leave one out")
        return self

    @property
    def share(self) -> float:
        """How many devices a replica takes: 0.5 where two share one."""
        return self.devices_per_replica / self.per_device

    def room(self, devices: int) -> int:
        """How many replicas fit on so many devices."""
        return devices // self.devices_per_replica * self.per_device

    @property
    def first_size(self) -> int:
        """How many `up` starts when nothing else was asked for."""
        return self.min if self.initial is None else self.initial


def _not_owned(argument: str) -> str:
    name = argument.partition("=")[0]
    if name in OWNED_ARGUMENTS:
        raise ValueError(f"{name} is set by the fleet: {OWNED_ARGUMENTS[name]}")
    return argument


def _an_image(name: str) -> str:
    if name and not re.fullmatch(IMAGE, name):
        raise ValueError(f"{name!r} is no image; write NAME:TAG, as for `docker pull`")
    return name


def _a_docker_host(url: str) -> str:
    if url and not re.fullmatch(DOCKER_HOST, url):
        raise ValueError(f"{url!r} is no Docker host; write unix:///PATH, ssh://USER@HOST or tcp://HOST:PORT")
    return url


def _some_memory(size: int) -> int:
    if size < SMALLEST_SHM:
        raise ValueError("must be at least 64m: the Python backend needs that much for one model instance")
    return size


def _not_pinning(env: dict[str, str]) -> dict[str, str]:
    if "CUDA_VISIBLE_DEVICES" in env:
        raise ValueError("CUDA_VISIBLE_DEVICES is set by the fleet: use devices")
    return env


class TritonSpec(Part):
    args: tuple[Annotated[str, AfterValidator(_not_owned)], ...] = ()
    """Further arguments of tritonserver, verbatim, last. Those that the fleet sets itself are refused."""
    env: Annotated[dict[Annotated[str, Field(pattern=ENV_NAME)], str], AfterValidator(_not_pinning)] = Field(
        default_factory=dict
    )
    """Further environment variables of tritonserver."""
    image: Annotated[str, AfterValidator(_an_image)] = ""
    """Docker: the image to run; required for `driver: docker`."""
    shm_size: Annotated[Size, AfterValidator(_some_memory)] = 1 << 30
    """Docker: the size of a replica's `/dev/shm`. The Python backend takes 64m for each model instance."""
    user: str = ""
    """Docker: who Triton runs as, `NAME` or `UID:GID`; if not given, the image's own user."""
    ulimits: dict[Annotated[str, Field(pattern=r"^[a-z]+$")], Annotated[Whole, Field(ge=-1)]] | None = None
    """Docker: limits by name, -1 is unlimited. If not given: `{memlock: -1, stack: 67108864}` with a GPU."""
    exit_timeout: Duration = 30.0
    """Triton's `--exit-timeout-secs`: how long it may finish requests after SIGTERM. Whole seconds."""


class HealthSpec(Part):
    interval: Duration = 1.0
    """Time between two probes of a ready replica."""
    timeout: Duration = 5.0
    """How long a probe may take."""
    failures: Whole = Field(default=3, ge=1, le=100)
    """How many probes in a row must fail before a replica is replaced."""


class RestartSpec(Part):
    backoff: Duration = 1.0
    """The wait before the first restart; doubled with each further failure."""
    max_backoff: Duration = 60.0
    """The longest wait between restarts."""
    crash_loop_after: Whole = Field(default=3, ge=1, le=100)
    """After how many failures in a row a replica is called `crash_loop`. It is still retried."""
    reset_after: Duration = 600.0
    """A replica that was ready this long starts again without a history of failures."""


class LatencySpec(Part):
    p99: Duration | None = None
    """99 of 100 requests are to take at most this long, from the router to the end of the answer."""


class QueueTimeSpec(Part):
    mean: Duration | None = None
    """How long requests may wait on average, in the router and in Triton."""
    p99: Duration | None = None
    """How long 99 of 100 requests may wait at most."""


class ScaleUpSpec(Part):
    window: Duration = 15.0
    """Decisions rest on the means of this time."""
    panic_window: Duration = 6.0
    """In a panic, on those of this time."""
    panic_threshold: Annotated[float, Field(gt=1, le=100)] = 2.0
    """It is a panic if that shorter window asks for this multiple of what is ready."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.panic_window > self.window:
            raise ValueError(
                f"panic_window {format_duration(self.panic_window)} is longer than window "
                f"{format_duration(self.window)}"
            )
        return self


class ScaleDownSpec(Part):
    stabilization: Duration = 300.0
    """A pool shrinks when no more was asked for during this time."""
    step: Duration = 15.0
    """The time between two replicas' going."""


class ScheduleEntry(Part):
    cron: Annotated[str, AfterValidator(checked_cron)]
    """When a window begins: minute, hour, day of month, month, weekday."""
    length: Duration = Field(alias="for")  # `for` is a word of Python's
    """How long it lasts."""
    min: Whole = Field(ge=1, le=1024)
    """The fewest replicas in it, within `replicas`."""
    timezone: Annotated[str, AfterValidator(checked_zone)] = "UTC"
    """The time zone of `cron`, such as Europe/Berlin."""

    def __str__(self) -> str:
        return f'"{self.cron}" ({self.timezone})'


class AutoscaleSpec(Part):
    target_utilization: Annotated[float, Field(gt=0, le=0.95)] | None = 0.65
    """The share of the time that a replica may be busy; `null` leaves this target out."""
    latency: LatencySpec = LatencySpec()
    queue_time: QueueTimeSpec = QueueTimeSpec()
    queue_depth: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """How many requests may wait in the router for each replica."""
    spare: Whole = Field(default=0, ge=0, le=1024)
    """Replicas beyond what is needed, for the loss of so many."""
    forecast: bool = True
    """Start replicas for the load that is forecast for when they are ready, while forecasts prove right."""
    scale_up: ScaleUpSpec = ScaleUpSpec()
    scale_down: ScaleDownSpec = ScaleDownSpec()
    schedule: tuple[ScheduleEntry, ...] = ()
    """Windows with a minimum of their own: entries `{cron: "0 8 * * mon-fri", for: 10h, min: 4, timezone:
    Europe/Berlin}`. `timezone` is UTC if not given. Replicas start early enough to be ready in time."""
    dry_run: bool = False
    """Decide and say so; change nothing."""


class PoolSpec(Part):
    model_repository: str = Field(min_length=1)
    """The folder of models; a relative path starts at the fleet file's folder."""
    models: tuple[str, ...] = Field(default=("*",), min_length=1)
    """Which models to load; `*` means all."""
    max_inflight: Literal["auto", "off"] | Annotated[Whole, Field(ge=1, le=100_000)] = "auto"
    """Requests of a model that a replica is given at once; the rest waits in the router. `auto`: twice what
    its instances can batch, from the model's configuration. `off`: no limit."""
    replicas: ReplicasSpec = ReplicasSpec()
    autoscale: AutoscaleSpec | None = None
    """The size follows the load, within `replicas`; `{}` takes every default. Without it, only `scale` and
    the file change sizes."""
    triton: TritonSpec = TritonSpec()
    startup_timeout: Duration = 300.0
    """How long a replica may take from launch to ready."""
    drain_timeout: Duration = 60.0
    """How long requests may finish on a replica that is to stop."""
    health: HealthSpec = HealthSpec()
    restart: RestartSpec = RestartSpec()


class LogsSpec(Part):
    max_size: Size = 64 << 20
    """A log file that has grown to this size is rotated."""
    keep: Whole = Field(default=3, ge=0, le=100)
    """How many rotated files are kept of each log."""


class MetricsSpec(Part):
    listen: ListenAddress | None = None
    """Where Prometheus scrapes, `HOST:PORT`: the fleet at `/metrics`, every Triton at `/replicas`. Nobody is
    asked for a password there. If not given, nothing listens."""


def _device_ids(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    ids = tuple("true" if isinstance(item, bool) else str(item) for item in value)
    if not all(re.fullmatch(r"[0-9]+|(GPU|MIG)-\S+", name) for name in ids):
        raise ValueError("a device is an index or a UUID")
    return ids


Devices = Annotated[
    Literal["auto"] | CpuSlots | Annotated[tuple[str, ...], Field(min_length=1)],
    BeforeValidator(_device_ids),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "auto"},
                {"type": "array", "items": {"type": ["integer", "string"]}, "minItems": 1},
                {
                    "type": "object",
                    "properties": {"cpu": {"type": "integer", "minimum": 1, "maximum": 1024}},
                    "required": ["cpu"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


def _no_boolean(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value  # True == 1, so Literal[1] takes it


class FleetSpec(Part):
    version: Annotated[Literal[1], BeforeValidator(_no_boolean)]
    """Of the file's format; always 1."""
    name: str = Field(pattern=NAME)
    """The fleet's name: lowercase letters, digits, dashes; at most 31."""
    driver: Literal["auto", "process", "docker"] = "auto"
    """Where replicas run. `process`: as processes of this host; `docker`: as containers. `auto`: the latter
    if every pool names an image and a Docker daemon answers that has or can pull it, else the former."""
    docker_host: Annotated[str, AfterValidator(_a_docker_host)] = ""
    """Which Docker daemon, `unix://`, `tcp://` or `ssh://`; if not given, `DOCKER_HOST` or the local one."""
    devices: Devices = "auto"
    """`auto` (all GPUs, else CPU slots), a list of GPU indices or UUIDs, or `{cpu: N}`: slots without GPU."""
    router: RouterSpec = RouterSpec()
    pools: dict[Annotated[str, Field(pattern=NAME)], PoolSpec] = Field(min_length=1)
    """Each pool is one model repository with its own size."""
    logs: LogsSpec = LogsSpec()
    metrics: MetricsSpec = MetricsSpec()

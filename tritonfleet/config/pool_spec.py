"""What a fleet file may say of a pool: its models, its sizes, and the servers that are its replicas."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tritonfleet.config.autoscale_spec import AutoscaleSpec
from tritonfleet.config.spec_types import Duration, Part, Size, Whole

# A reference as `docker pull` takes it, in short: what Docker itself checks in detail.
IMAGE = r"[A-Za-z0-9][A-Za-z0-9._:/@-]*"
SMALLEST_SHM = 64 << 20

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
    "--grpc-use-ssl": "use triton.tls",
    "--grpc-use-ssl-mutual": "use triton.tls",
    "--grpc-server-cert": "use triton.tls.cert",
    "--grpc-server-key": "use triton.tls.key",
    "--grpc-root-cert": "use triton.tls.ca",
    "--model-repository": "use model_repository",
    "--model-store": "use model_repository",
    "--model-control-mode": "the fleet loads models itself; use models",
    "--load-model": "use models",
    "--exit-timeout-secs": "use triton.exit_timeout",
}


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


def _some_memory(size: int) -> int:
    if size < SMALLEST_SHM:
        raise ValueError("must be at least 64m: the Python backend needs that much for one model instance")
    return size


def _not_pinning(env: dict[str, str]) -> dict[str, str]:
    if "CUDA_VISIBLE_DEVICES" in env:
        raise ValueError("CUDA_VISIBLE_DEVICES is set by the fleet: use devices")
    return env


class TritonTlsSpec(Part):
    cert: str = Field(min_length=1)
    """The certificate that the replicas show, a PEM file."""
    key: str = Field(min_length=1)
    """Its private key, a PEM file without a pass phrase."""
    ca: str = Field(min_length=1)
    """The authorities that must have signed the replicas' certificate, and the client's, a PEM file."""
    name: str = Field(default="localhost", min_length=1)
    """The DNS name that the replicas' certificate must have, whatever their addresses are."""
    client_cert: str | None = Field(default=None, min_length=1)
    """What routers and controller show, a PEM file: replicas then serve nobody who has none (mutual TLS)."""
    client_key: str | None = Field(default=None, min_length=1)
    """Its private key, a PEM file without a pass phrase."""

    @model_validator(mode="after")
    def _in_pairs(self) -> Self:
        if (self.client_cert is None) != (self.client_key is None):
            raise ValueError("client_cert and client_key go together")
        return self


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
    tls: TritonTlsSpec | None = None
    """Replicas are spoken to by TLS, and their HTTP port is off; without it, connections are plain."""
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


class PoolSpec(Part):
    model_repository: str = Field(min_length=1)
    """The folder of models; a relative path starts at the fleet file's folder."""
    models: tuple[str, ...] = Field(default=("*",), min_length=1)
    """Which models to load; `*` means all."""
    max_inflight: Literal["auto", "off"] | Annotated[Whole, Field(ge=1, le=100_000)] = "auto"
    """Requests of a model that a replica is given at once; the rest waits in the router. `auto`: what its
    instances can execute at once, from the model's configuration, and as much again, but at least three, that
    waits there; more while that is less than 10 ms of work. A number: never more. `off`: no limit. Each of
    several `router.workers` counts what it gives itself."""
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

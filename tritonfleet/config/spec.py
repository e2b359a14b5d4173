"""What a fleet file may say, as pydantic models: types, defaults, and what one field alone can get wrong.

Unknown keys are refused. Everything is frozen: a changed file is a new `FleetSpec`. Field descriptions are
the text of docs/configuration.md and of the JSON Schema. What several fields together can get wrong, and what
needs the disk, is checked in `tritonfleet.config.checks`.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tritonfleet.config.name import NAME
from tritonfleet.config.pool_spec import PoolSpec
from tritonfleet.config.router_spec import RouterSpec
from tritonfleet.config.spec_types import Devices, Duration, ListenAddress, Part, Size, Whole

DOCKER_HOST = r"(unix|tcp|ssh)://.+"


class LogsSpec(Part):
    max_size: Size = 64 << 20
    """A log file that has grown to this size is rotated."""
    keep: Whole = Field(default=3, ge=0, le=100)
    """How many rotated files are kept of each log."""


class MetricsSpec(Part):
    listen: ListenAddress | None = None
    """Where Prometheus scrapes, `HOST:PORT`: the fleet at `/metrics`, every Triton at `/replicas`. Nobody is
    asked for a password there. If not given, nothing listens."""


class DeviceFailuresSpec(Part):
    count: Whole = Field(default=3, ge=0, le=1000)
    """After so many launches that failed on a device, while the same configuration serves on another one, it
    is set aside: no replica is placed there. 0: never."""
    within: Duration = 600.0
    """Failures that are older do not count."""
    set_aside: Duration = 1800.0
    """For how long; doubled each further time, up to 16 times as long."""


class DeviceChecksSpec(Part):
    every: Duration = 60.0
    """How often a container with GPUs is asked whether it still has them (`docker exec … nvidia-smi -L`). One
    that cannot say is asked more and more rarely."""
    failures: Whole = Field(default=3, ge=0, le=1000)
    """After so many answers in a row without a GPU, from a container that had shown one, its replica is
    replaced. 0: nobody is asked."""
    pause: Duration = 300.0
    """A container that is younger is not replaced for that."""


def _a_docker_host(url: str) -> str:
    if url and not re.fullmatch(DOCKER_HOST, url):
        raise ValueError(f"{url!r} is no Docker host; write unix:///PATH, ssh://USER@HOST or tcp://HOST:PORT")
    return url


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
    device_failures: DeviceFailuresSpec = DeviceFailuresSpec()
    device_checks: DeviceChecksSpec = DeviceChecksSpec()
    logs: LogsSpec = LogsSpec()
    metrics: MetricsSpec = MetricsSpec()

"""Where replicas run. `make_driver` builds the one that a fleet file names."""

from collections.abc import Mapping
from pathlib import Path

from tritonfleet.config import FleetSpec, PoolSpec
from tritonfleet.core.replica_tls import ReplicaTls, ServerTls
from tritonfleet.drivers.base import ContainerSettings, Driver
from tritonfleet.drivers.devices import discover
from tritonfleet.drivers.process import ProcessDriver

__all__ = ["choose", "container_settings", "make_driver", "server_tls"]


def make_driver(spec: FleetSpec, state_dir: Path, environ: Mapping[str, str]) -> Driver:
    """The driver of ``spec``, remembering in ``state_dir``. Raises DriverError for absent devices."""
    if choose(spec, state_dir, environ) == "docker":
        from tritonfleet.drivers.docker import DockerDriver  # the SDK takes a while to import
        from tritonfleet.drivers.docker_engine import other_host

        return DockerDriver(
            spec.name,
            state_dir,
            discover(spec.devices, trusting=True, elsewhere=other_host(spec.docker_host, environ)),
            host=spec.docker_host,
            log_max_bytes=spec.logs.max_size,
            log_keep=spec.logs.keep,
            environ=environ,
        )
    return ProcessDriver(
        spec.name,
        state_dir,
        discover(spec.devices),
        log_max_bytes=spec.logs.max_size,
        log_keep=spec.logs.keep,
        environ=environ,
    )


def choose(spec: FleetSpec, state_dir: Path, environ: Mapping[str, str]) -> str:
    """``docker`` or ``process``: what the file names. For ``auto``: what the fleet runs on already; else
    docker if every pool names an image and a daemon answers that has or can pull them."""
    if spec.driver != "auto":
        return spec.driver
    running = {path.suffix for path in (state_dir / "instances").glob("*")}
    if running:  # a daemon that is away for a moment must not make a second fleet beside the first
        return "docker" if ".cursor" in running else "process"
    images = {pool.triton.image for pool in spec.pools.values()}
    if "" in images:
        return "process"
    from tritonfleet.drivers.docker_image import can_have

    return "docker" if can_have(images, spec.docker_host, environ) else "process"


def container_settings(pool: PoolSpec) -> ContainerSettings:
    """What a pool's replicas need to know to run as containers."""
    triton = pool.triton
    ulimits = None if triton.ulimits is None else tuple(sorted(triton.ulimits.items()))
    return ContainerSettings(triton.image, triton.shm_size, triton.user, ulimits)


def server_tls(pool: PoolSpec) -> ServerTls | None:
    """The files by which a pool's replicas speak TLS, and others with them. None: they do not."""
    tls = pool.triton.tls
    if tls is None:
        return None
    return ServerTls(
        tls.cert, tls.key, tls.ca, ReplicaTls(tls.ca, tls.name, tls.client_cert or "", tls.client_key or "")
    )

"""A fleet file as a plain compose file: a fleet of fixed size, for those who want no controller. Pure.

Each replica becomes a service, pinned by a device reservation and restarted by Docker; the router becomes
one with a fixed table. There is no scaling, no draining and no health check but the router's own: a replica
without a connection is not chosen.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from math import ceil
from typing import Any

import msgspec

from tritonfleet.config import FleetSpec, PoolSpec
from tritonfleet.config.router_spec import RouterSpec
from tritonfleet.config.spec_types import Address
from tritonfleet.core.managers import TOKEN
from tritonfleet.core.model import Device
from tritonfleet.core.placement import place
from tritonfleet.core.replica_tls import ReplicaTls
from tritonfleet.core.wire import RouterSettings, RouterTable, TableReplica
from tritonfleet.drivers import server_tls
from tritonfleet.drivers.base import ContainerSettings, DriverError, LaunchSpec
from tritonfleet.drivers.docker_container import (
    INSIDE,
    STOP_MARGIN_S,
    TLS,
    command,
    device_requests,
    environment,
    mounts,
    ulimits,
)

ROUTER_PORT = 8001
# A table is handed over in the environment, because inline `configs` need a recent compose.
START_ROUTER = 'printf %s "$ROUTER_TABLE" >/tmp/table.json && exec "$@"'


def compose(
    spec: FleetSpec,
    devices: Sequence[Device],
    models: Mapping[str, tuple[str, ...]],
    settings: Mapping[str, ContainerSettings],
    *,
    router_image: str,
) -> dict[str, Any]:
    """The compose file as plain data. ``models`` and ``settings`` by pool: what each serves, how it runs.
    Raises DriverError when a pool has no image or no replica, or they do not fit on the devices."""
    for name, pool in spec.pools.items():
        if not pool.triton.image:
            raise DriverError(f"pool {name} names no image", remedy=f"set pools.{name}.triton.image")
        if not pool.replicas.first_size:
            raise DriverError(
                f"pool {name} begins with no replica, and there is nobody who would start one",
                remedy=f"set pools.{name}.replicas.initial to 1 or more",
            )
    replicas = list(_placed(spec, devices, settings))
    services = {launch.replica: _service(launch) for launch in replicas}
    table = _table(spec, replicas, models)
    services["router"] = _router(spec, table, sorted(services), router_image)
    found: dict[str, Any] = _escaped({"services": services})
    return found


def _placed(
    spec: FleetSpec, devices: Sequence[Device], settings: Mapping[str, ContainerSettings]
) -> Iterator[LaunchSpec]:
    shares: dict[str, float] = {}
    for name, pool in spec.pools.items():
        for ordinal in range(pool.replicas.first_size):
            found = place(devices, shares, pool.replicas.per_device, pool.replicas.devices_per_replica)
            if not found:
                raise DriverError(
                    f"no device for {name}-{ordinal}: {found.reason}",
                    remedy="list more devices, or lower replicas.initial",
                )
            for device in found.ids:
                shares[device] = shares.get(device, 0.0) + 1 / pool.replicas.per_device
            yield LaunchSpec(
                spec.name, name, f"{name}-{ordinal}", 1, "", found.devices, pool.model_repository,
                pool.models, pool.triton.args, dict(pool.triton.env), ceil(pool.triton.exit_timeout),
                settings[name], server_tls(pool),
            )  # fmt: skip


def _service(launch: LaunchSpec) -> dict[str, Any]:
    service: dict[str, Any] = {
        "image": launch.container.image,
        "command": command(launch),
        "environment": environment(launch),
        "volumes": [f"{source}:{target}:ro" for source, target in mounts(launch)],
        "shm_size": launch.container.shm_size,
        "init": True,
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "stop_grace_period": f"{launch.exit_timeout_s + STOP_MARGIN_S}s",
    }
    if launch.container.user:
        service["user"] = launch.container.user
    if limits := ulimits(launch):
        service["ulimits"] = {limit["Name"]: limit["Soft"] for limit in limits}
    if requests := device_requests(launch):
        reserved = [
            {"driver": "nvidia", "device_ids": request["DeviceIDs"], "capabilities": ["gpu"]}
            for request in requests
        ]
        service["deploy"] = {"resources": {"reservations": {"devices": reserved}}}
    return service


def _table(
    spec: FleetSpec, replicas: Sequence[LaunchSpec], models: Mapping[str, tuple[str, ...]]
) -> RouterTable:
    queue = spec.router.queue
    rows = tuple(
        TableReplica(
            launch.replica, launch.instance, launch.pool, launch.replica, INSIDE.grpc, False,
            models[launch.pool], _limits(spec.pools[launch.pool], models[launch.pool]),
            strict=isinstance(spec.pools[launch.pool].max_inflight, int), tls=_tls_inside(launch),
        )
        for launch in replicas
    )  # fmt: skip
    settings = RouterSettings(queue.max_requests, queue.max_wait, queue.order, spec.router.retry)
    return RouterTable(spec.name, 1, spec.router.policy, rows, settings)


def _limits(pool: PoolSpec, models: Sequence[str]) -> dict[str, int]:
    """`max_inflight` where it is a number: how many instances a model has, nobody asks here."""
    return dict.fromkeys(models, pool.max_inflight) if isinstance(pool.max_inflight, int) else {}


def _tls_inside(launch: LaunchSpec) -> ReplicaTls | None:
    """How the router's container speaks with it: the paths there of what `_replica_files` mounts."""
    if launch.tls is None:
        return None
    folder = f"{TLS}/{launch.pool}"
    shown = (f"{folder}/cert.pem", f"{folder}/key.pem") if launch.tls.mutual else ("", "")
    return ReplicaTls(f"{folder}/ca.pem", launch.tls.client.name, *shown)


def _replica_files(spec: FleetSpec) -> dict[str, str]:
    """What the router's container needs to speak TLS with replicas: paths there and on the host."""
    found = {}
    for name, pool in spec.pools.items():
        if pool.triton.tls is not None:
            files = {
                "ca": pool.triton.tls.ca,
                "cert": pool.triton.tls.client_cert,
                "key": pool.triton.tls.client_key,
            }
            found.update({f"{TLS}/{name}/{key}.pem": path for key, path in files.items() if path})
    return found


def _managers(spec: FleetSpec) -> tuple[list[str], dict[str, str]]:
    """`router.management` as the router's container reads it; its secrets, by their paths there."""
    given: list[str] = []
    secrets: dict[str, str] = {}
    for one in spec.router.management:
        if one.startswith(TOKEN):
            path = f"{TLS}/secret-{len(secrets)}"
            secrets[path] = one.removeprefix(TOKEN)
            one = TOKEN + path
        given.append(one)
    return given, secrets


def _published(listen: Address) -> str:
    """Where clients connect, in the words of compose, which knows no names of hosts."""
    host = "127.0.0.1" if listen.host == "localhost" else listen.host
    try:
        ip_address(host)
    except ValueError:
        raise DriverError(
            f"router.listen: a compose file takes addresses, and {host} is a name",
            remedy=f"write the address, or 0.0.0.0:{listen.port} for all",
        ) from None
    return f"[{host}]:{listen.port}" if ":" in host else f"{host}:{listen.port}"


def _watched(router: RouterSpec) -> list[str]:
    """The access log, as what the container says, which Docker keeps; and traces."""
    given: list[str] = []
    if (log := router.access_log) is not None:
        given += ["--access-log", "stdout", "--access-sample", f"{log.sample:g}"]
    if (traces := router.traces) is not None:
        given += ["--trace-endpoint", traces.endpoint, "--trace-sample", f"{traces.sample:g}"]
    return given


def _router(spec: FleetSpec, table: RouterTable, replicas: Sequence[str], image: str) -> dict[str, Any]:
    published = _published(spec.router.listen)
    managers, secrets = _managers(spec)
    run = [
        "python", "-m", "tritonfleet.router", "--fleet", spec.name, "--listen", f"0.0.0.0:{ROUTER_PORT}",
        "--drain-timeout", f"{spec.router.drain_timeout:g}",
        "--connections", str(spec.router.connections_per_replica), "--table", "/tmp/table.json",  # noqa: S108 # in the container, whose /tmp is its own
        "--limits", msgspec.json.encode(spec.router.limits.figures()).decode(),
        "--management", ",".join(managers), *_watched(spec.router),
    ]  # fmt: skip
    volumes = _replica_files(spec) | secrets
    if spec.router.tls is not None:
        for option, key in (("--tls-cert", "cert"), ("--tls-key", "key"), ("--tls-client-ca", "client_ca")):
            if path := getattr(spec.router.tls, key):
                run += [option, f"{TLS}/{key}.pem"]
                volumes[f"{TLS}/{key}.pem"] = path
    service: dict[str, Any] = {"volumes": [f"{path}:{target}:ro" for target, path in volumes.items()]}
    return (service if volumes else {}) | {
        "image": image,
        "command": ["sh", "-c", START_ROUTER, "router", *run],
        "environment": {"ROUTER_TABLE": json.dumps(msgspec.to_builtins(table))},
        "ports": [f"{published}:{ROUTER_PORT}"],
        "depends_on": list(replicas),
        "init": True,
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "stop_grace_period": f"{ceil(spec.router.drain_timeout) + STOP_MARGIN_S}s",
    }


def _escaped(value: Any) -> Any:
    """Compose replaces variables in every text; a doubled dollar stands for itself."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) else value

"""One replica as a container: what the daemon is asked for, and what its labels tell. Pure.

The labels are the truth: they hold everything an `Instance` is made of, so a controller that knows nothing
but its fleet's name finds all of it again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any

import msgspec

from tritonfleet.core.launched import Launched, masked
from tritonfleet.core.model import DeviceKind, ExitStatus
from tritonfleet.core.replica_tls import ReplicaTls, ServerTls
from tritonfleet.drivers.base import DriverError, Instance, LaunchSpec
from tritonfleet.triton.embedded import TritonInstallation
from tritonfleet.triton.launch import Ports, arguments

LABEL = "tritonfleet."
SCHEMA = "1"
MODELS = "/models"  # where the repository is mounted
TLS = "/tritonfleet-tls"  # where the files of triton.tls are
INSIDE = Ports(grpc=8001, http=8000, metrics=8002)
STOP_MARGIN_S = 5  # beyond Triton's own exit timeout, before the daemon itself kills on `docker stop`
RECOMMENDED_ULIMITS = (("memlock", -1), ("stack", 64 << 20))  # NVIDIA's start-up notice of its images
SMALLEST_LOG = 1 << 20
TRITON = TritonInstallation("tritonserver", "path")
_NOT_EXECUTED = (126, 127)  # the init's exit codes for a program that is not executable, or not there
_SHELL_SIGNALS = range(129, 160)  # 128 + signal: how the daemon and its init report one


@dataclass(frozen=True, slots=True)
class Publication:
    """Where a container's ports are reached: ``bind`` is the address on the daemon's host they are bound to,
    ``host`` the name we connect to."""

    ports: Ports
    host: str = "127.0.0.1"
    bind: str = "127.0.0.1"


def name_of(fleet: str, instance: str) -> str:
    """``demo-main-0.3``: the daemon keeps names unique, so an instance can only be started once."""
    return f"{fleet}-{instance}"


def labels(spec: LaunchSpec, at: Publication, *, state_dir: str, now: float) -> dict[str, str]:
    told = {
        "schema": SCHEMA,
        "fleet": spec.fleet,
        "pool": spec.pool,
        "replica": spec.replica,
        "generation": str(spec.generation),
        "config-hash": spec.config_hash,
        "devices": ",".join(device.id for device in spec.devices),
        "host": at.host,
        "grpc-port": str(at.ports.grpc),
        "http-port": str(at.ports.http),
        "metrics-port": str(at.ports.metrics),
        "started-at": repr(now),
        "exit-timeout": str(spec.exit_timeout_s),
        "state-dir": state_dir,
    }
    if spec.tls is not None:
        told["tls"] = msgspec.json.encode(spec.tls.client).decode()
    return {LABEL + key: value for key, value in told.items()}


def creation(
    spec: LaunchSpec, at: Publication, told: Mapping[str, str], *, log_max_bytes: int, log_keep: int
) -> dict[str, Any]:
    """The body of the daemon's POST /containers/create, in the Engine API's own words."""
    return {
        "Image": spec.container.image,
        "Cmd": command(spec),
        "Env": [f"{key}={value}" for key, value in environment(spec).items()],
        "Labels": dict(told),
        "User": spec.container.user,
        "StopTimeout": spec.exit_timeout_s + STOP_MARGIN_S,
        "ExposedPorts": {f"{port}/tcp": {} for port in (INSIDE.grpc, INSIDE.http, INSIDE.metrics)},
        "HostConfig": {
            # Process 1 of a container ignores SIGTERM until it has a handler, and Triton has none while it
            # loads; an init passes the signal on and reaps what the Python stubs leave.
            "Init": True,
            "Mounts": [
                {"Type": "bind", "Source": source, "Target": target, "ReadOnly": True}
                for source, target in mounts(spec)
            ],
            "PortBindings": {
                f"{inside}/tcp": [{"HostIp": at.bind, "HostPort": str(outside)}]
                for inside, outside in (
                    (INSIDE.grpc, at.ports.grpc),
                    (INSIDE.http, at.ports.http),
                    (INSIDE.metrics, at.ports.metrics),
                )
            },
            "DeviceRequests": device_requests(spec),
            "ShmSize": spec.container.shm_size,
            "Ulimits": ulimits(spec),
            "SecurityOpt": ["no-new-privileges"],
            "LogConfig": {
                "Type": "json-file",
                "Config": {"max-size": str(max(SMALLEST_LOG, log_max_bytes)), "max-file": str(log_keep + 1)},
            },
            # Restarting is the controller's: it knows about devices, backoff and what the file says now.
            "RestartPolicy": {"Name": "no"},
        },
    }


def mounts(spec: LaunchSpec) -> list[tuple[str, str]]:
    """What the container sees of its host, read only: paths there and here."""
    found = [(spec.model_repository, MODELS)]
    if spec.tls is not None:
        inside = _tls_inside(spec.tls)
        found += [(spec.tls.cert, inside.cert), (spec.tls.key, inside.key)]
        if spec.tls.mutual:
            found.append((spec.tls.ca, inside.ca))
    return found


def _tls_inside(tls: ServerTls) -> ServerTls:
    return tls.at(f"{TLS}/cert.pem", f"{TLS}/key.pem", f"{TLS}/ca.pem")


def command(spec: LaunchSpec) -> list[str]:
    return arguments(
        TRITON,
        model_repository=MODELS,
        models=spec.models,
        ports=INSIDE,
        shm_prefix=f"tf-{spec.instance}-",
        exit_timeout_s=spec.exit_timeout_s,
        devices=spec.devices,
        extra=spec.args,
        address="0.0.0.0",  # noqa: S104 # within the container; the daemon publishes to where we say
        tls=_tls_inside(spec.tls) if spec.tls is not None else None,
    )


def environment(spec: LaunchSpec) -> dict[str, str]:
    env = {
        "PYTHONDONTWRITEBYTECODE": "1",  # Python models leave nothing in the repository
        "TRITONFLEET_FLEET": spec.fleet,
        "TRITONFLEET_REPLICA": spec.replica,
        "TRITONFLEET_INSTANCE": spec.instance,
    }
    if all(device.kind is DeviceKind.CPU for device in spec.devices):
        # NVIDIA's images ask for all GPUs; where its runtime is the default one, they would get them.
        env["NVIDIA_VISIBLE_DEVICES"] = "void"
    return {**env, **spec.env}


def device_requests(spec: LaunchSpec) -> list[dict[str, Any]]:
    gpus = [device.id for device in spec.devices if device.kind is not DeviceKind.CPU]
    if not gpus:
        return []
    return [{"Driver": "nvidia", "DeviceIDs": gpus, "Capabilities": [["gpu"]]}]


def ulimits(spec: LaunchSpec) -> list[dict[str, Any]]:
    wanted = spec.container.ulimits
    if wanted is None:  # a daemon without privileges cannot raise them: asked for only where they matter
        wanted = RECOMMENDED_ULIMITS if device_requests(spec) else ()
    return [{"Name": name, "Soft": limit, "Hard": limit} for name, limit in wanted]


def instance_of(identity: str, told: Mapping[str, str]) -> Instance:
    """The running instance that a container's labels tell of. Raises DriverError when they tell nonsense."""
    try:
        if told[LABEL + "schema"] != SCHEMA:
            raise ValueError(f"its labels have schema {told[LABEL + 'schema']}, known is {SCHEMA}")
        devices = told[LABEL + "devices"]
        return Instance(
            fleet=told[LABEL + "fleet"],
            pool=told[LABEL + "pool"],
            replica=told[LABEL + "replica"],
            generation=int(told[LABEL + "generation"]),
            config_hash=told[LABEL + "config-hash"],
            devices=tuple(devices.split(",")) if devices else (),
            handle=handle_of(identity),
            host=told[LABEL + "host"],
            grpc_port=int(told[LABEL + "grpc-port"]),
            http_port=int(told[LABEL + "http-port"]),
            metrics_port=int(told[LABEL + "metrics-port"]),
            started_at=float(told[LABEL + "started-at"]),
            exit_timeout_s=int(told[LABEL + "exit-timeout"]),
            tls=msgspec.json.decode(told.get(LABEL + "tls", "null"), type=ReplicaTls | None),
        )
    except (KeyError, ValueError) as error:
        raise DriverError(
            f"container {identity[:12]} carries the fleet's label, but {error!r}",
            remedy=f"`docker rm -f {identity[:12]}`, if it is none of yours",
            transient=False,
        ) from error


def launched_of(found: Mapping[str, Any], image: str, image_env: Sequence[str]) -> Launched:
    """From a container's inspection. What the image itself sets (``image_env``) is left out."""
    host = found["HostConfig"]
    env = dict(text.split("=", 1) for text in found["Config"]["Env"] if text not in image_env and "=" in text)
    gpus = [name for one in host.get("DeviceRequests") or () for name in one.get("DeviceIDs") or ()]
    rows = [("GPUs", ", ".join(gpus))] if gpus else []
    for mount in host.get("Mounts") or ():
        rights = ", read only" if mount.get("ReadOnly") else ""
        rows.append(("Mount", f"{mount['Source']} as {mount['Target']}{rights}"))
    rows.append(("Shared memory", f"{host['ShmSize'] / 2**20:.0f} MiB"))
    if user := found["Config"].get("User"):
        rows.append(("User", user))
    return masked(found["Config"]["Cmd"] or (), env, image, rows)


def handle_of(identity: str) -> str:
    return f"container {identity[:12]}"


def identity_of(instance: Instance) -> str:
    return instance.handle.removeprefix("container ")


def has_ended(state: str) -> bool:
    """Whether a container in this state (``State.Status``) will not go on by itself. One that was created
    and never started has ended as well: its launch was cut short."""
    return state in ("created", "exited", "dead", "removing")


def exit_of(state: Mapping[str, Any], now: float) -> ExitStatus:
    """How a container ended, from the ``State`` of its inspection."""
    if state["Status"] == "created":
        return ExitStatus(now, detail=state.get("Error") or "the controller ended before it was launched")
    code = int(state["ExitCode"])
    detail = "out of memory: the kernel ended it" if state.get("OOMKilled") else state.get("Error", "")
    if code in _NOT_EXECUTED and not detail:
        detail = f"the image holds no {TRITON.binary} that can be run; is triton.image a Triton image?"
    return status_from_code(code, _seconds(state["FinishedAt"], now), detail)


def status_from_code(code: int, at: float, detail: str = "") -> ExitStatus:
    if code in _SHELL_SIGNALS:
        return ExitStatus(at, signal=code - 128, detail=detail)
    return ExitStatus(at, code=code, detail=detail)


def _seconds(text: str, otherwise: float) -> float:
    """``2026-01-31T10:00:00.123456789Z`` → seconds since the epoch; the zero time means not known."""
    when = datetime.fromisoformat(text)
    return when.timestamp() if when.year > 1 else otherwise


def published_where(remote_name: str, address: str, ports: Ports) -> Publication:
    """On this host: loopback. On another: the address that its name stands for, or nobody could connect."""
    return Publication(ports, remote_name, address) if remote_name else Publication(ports)


def whole_seconds(seconds: float) -> int:
    return max(1, ceil(seconds))

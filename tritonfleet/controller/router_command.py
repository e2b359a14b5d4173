"""The command line of a router worker, by which the controller starts one and recognises it again."""

import sys
from hashlib import sha256

import msgspec

from tritonfleet.config.router_spec import RouterSpec
from tritonfleet.controller.paths import FleetPaths
from tritonfleet.core.managers import TOKEN


def worker_command(fleet: str, spec: RouterSpec, paths: FleetPaths, index: int) -> tuple[str, ...]:
    """Worker ``index`` of ``spec.workers``, which learns of the replicas from the fleet's control socket."""
    return (
        sys.executable, "-m", "tritonfleet.router",
        "--fleet", fleet,
        "--listen", str(spec.listen),
        "--worker", str(index),
        "--workers", str(spec.workers),
        "--control", str(paths.control_socket),
        "--drain-timeout", f"{spec.drain_timeout:g}",
        "--connections", str(spec.connections_per_replica),
        "--management", ",".join(spec.management),
        "--limits", msgspec.json.encode(spec.limits.figures()).decode(),
        "--settings", settings_digest(spec),
        *(("--board", str(paths.board_file)) if spec.workers > 1 else ()),
        *(("--siblings", str(paths.siblings_file)) if spec.external else ()),
        *_access_log(spec),
        *_traces(spec),
        *_tls(spec),
    )  # fmt: skip


def settings_digest(spec: RouterSpec) -> str:
    """Of what a worker is started with: whether one that somebody else has started is as the file says.
    Without paths, which may be others in its container."""
    log, traces, tls = spec.access_log, spec.traces, spec.tls
    settings = (
        str(spec.listen),
        spec.workers,
        spec.drain_timeout,
        spec.connections_per_replica,
        [TOKEN if one.startswith(TOKEN) else one for one in spec.management],
        spec.limits.figures(),
        log and log.sample,
        traces and (traces.endpoint, traces.sample),
        tls and bool(tls.client_ca),
    )
    return sha256(msgspec.json.encode(settings)).hexdigest()[:12]


def markers(fleet: str, paths: FleetPaths) -> dict[str, str]:
    """What tells a worker that a controller of this fleet has started, by its environment."""
    return {
        "TRITONFLEET_FLEET": fleet,
        "TRITONFLEET_STATE_DIR": str(paths.root.parent),
        "TRITONFLEET_ROLE": "router",
    }


def _access_log(spec: RouterSpec) -> tuple[str, ...]:
    log = spec.access_log
    return () if log is None else ("--access-log", log.path, "--access-sample", f"{log.sample:g}")


def _traces(spec: RouterSpec) -> tuple[str, ...]:
    traces = spec.traces
    if traces is None:
        return ()
    return ("--trace-endpoint", traces.endpoint, "--trace-sample", f"{traces.sample:g}")


def _tls(spec: RouterSpec) -> tuple[str, ...]:
    tls = spec.tls
    if tls is None:
        return ()
    client_ca = ("--tls-client-ca", tls.client_ca) if tls.client_ca is not None else ()
    return ("--tls-cert", tls.cert, "--tls-key", tls.key, *client_ca)

"""The command line of a router worker, by which the controller starts one and recognises it again."""

import sys

import msgspec

from tritonfleet.config.router_spec import RouterSpec
from tritonfleet.controller.paths import FleetPaths


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
        *(("--board", str(paths.board_file)) if spec.workers > 1 else ()),
        *_access_log(spec),
        *_traces(spec),
        *_tls(spec),
    )  # fmt: skip


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

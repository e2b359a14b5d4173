"""What a shell offers at TAB: names that the running fleet has now.

Runs at every TAB, so it imports next to nothing, waits for a moment only, and says nothing when no controller
answers. The snapshot is read as plain JSON: decoding it properly would take longer than fetching it.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer

FILE = "tritonfleet.yaml"
CONNECT_S, READ_S = 0.2, 0.5
OK = 200  # HTTP
Completer = Callable[[typer.Context, str], list[str]]


def _snapshot(context: typer.Context) -> dict[str, Any]:
    """The fleet that the words so far mean; empty where it does not answer."""
    import json

    from tritonfleet.cli import unix_http
    from tritonfleet.config import fleet_name
    from tritonfleet.controller.paths import FleetPaths

    given = context.find_root().params
    name = given.get("fleet") or fleet_name(Path(given.get("file") or FILE), os.environ)
    if not name:
        return {}
    timeouts = unix_http.Timeouts(CONNECT_S, READ_S)
    try:
        with unix_http.asked(
            FleetPaths.of(name).control_socket, "GET", "/v1/snapshot", timeouts=timeouts
        ) as answer:
            found = json.loads(answer.body()) if answer.status == OK else {}
    except (*unix_http.FAILURES, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _names(kinds: Callable[[dict[str, Any]], Iterable[str]]) -> Completer:
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        found = _snapshot(ctx)
        return [name for name in kinds(found) if name.startswith(incomplete)] if found else []

    return complete


def _ids(found: dict[str, Any]) -> list[str]:
    return [replica["id"] for replica in found["replicas"]]


def _pools(found: dict[str, Any]) -> list[str]:
    return [pool["name"] for pool in found["pools"]]


def _devices(found: dict[str, Any]) -> list[str]:
    return [f"device/{device['id']}" for device in found["devices"]]


def _models(found: dict[str, Any]) -> list[str]:
    return sorted({model["name"] for replica in found["replicas"] for model in replica["models"]})


replicas = _names(_ids)
pools = _names(_pools)
models = _names(_models)
sizes = _names(lambda found: [f"{pool}=" for pool in _pools(found)])
logs = _names(lambda found: [*_ids(found), *_pools(found), "router", "controller"])
drained = _names(lambda found: [*_ids(found), *_devices(found)])
described = _names(lambda found: [*_ids(found), *_pools(found), *_devices(found)])


def fleets(incomplete: str) -> list[str]:
    """Fleets that have a state directory here, whether or not they run."""
    from tritonfleet.controller.paths import state_home

    home = state_home(os.environ)
    found = sorted(entry.name for entry in home.iterdir() if entry.is_dir()) if home.is_dir() else []
    return [name for name in found if name.startswith(incomplete)]

"""`config`, `validate`, `schema`, `controller`, `router`: what needs a fleet file but no running fleet."""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from tritonfleet.cli import fleet
from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.launch import controller_command
from tritonfleet.cli.names import parse_sizes
from tritonfleet.cli.terminal import Output, Settings, say, show_data, show_line
from tritonfleet.controller.paths import FleetPaths, belongs_to_a_stranger


def config(settings: Settings, *, only_hash: bool) -> None:
    """The file with every default, variable and path resolved; or the hash of each pool."""
    from tritonfleet.config import pool_hash, resolved

    spec = fleet.load(settings)
    if only_hash:
        hashes = {name: pool_hash(spec, name) for name in spec.pools}
        if settings.output in (Output.JSON, Output.YAML):
            show_data(hashes, settings.output)
        else:
            for name, value in hashes.items():
                show_line(f"{name} {value}")
        return
    show_data(resolved(spec), Output.JSON if settings.output is Output.JSON else Output.YAML)


def validate(settings: Settings) -> None:
    """Every mistake of the file at once (exit 2), or one line that says what it describes."""
    path = fleet.fleet_file(settings)
    spec = fleet.load(settings)
    pools = ", ".join(f"{n} {p.replicas.min}..{p.replicas.max}" for n, p in spec.pools.items())
    say(settings, f"{path.name} is valid: fleet {spec.name}, router {spec.router.listen}, pools {pools}")


def schema() -> None:
    from tritonfleet.config import fleet_schema

    sys.stdout.write(json.dumps(fleet_schema(), indent=2) + "\n")


def controller(settings: Settings, scale: list[str]) -> None:
    """Become the controller, in the foreground: for service managers. Returns only by an error."""
    file = fleet.fleet_file(settings).absolute()
    spec = fleet.load(settings)
    _become(controller_command(file, parse_sizes(scale, list(spec.pools))))


def router(settings: Settings, worker: int) -> None:
    """Become a router worker of a fleet whose file says `router.external`. Returns only by an error."""
    from tritonfleet.controller.router_command import worker_command

    path, spec = fleet.fleet_file(settings), fleet.load(settings)
    if not spec.router.external:
        raise CliError(
            ExitCode.USAGE,
            f"the controller of fleet {spec.name} runs the router itself",
            hint=f"to run it apart, write `external: true` under router in {path.name}",
        )
    if worker >= spec.router.workers:
        raise CliError(
            ExitCode.USAGE,
            f"there is no worker {worker}: router.workers in {path.name} is {spec.router.workers}",
            hint="they are counted from 0",
        )
    paths = FleetPaths.of(spec.name)
    # The controller need not have been there yet, and workers share a file in it. It may be read-only here:
    # the worker says what it lacks then.
    with suppress(OSError):
        paths.make()
    if belongs_to_a_stranger(folder := paths.control_socket.parent):
        raise CliError(
            ExitCode.FAILED,
            f"{folder} belongs to another user",
            hint="the controller's socket is to be there: see TRITONFLEET_STATE_DIR and XDG_RUNTIME_DIR",
        )
    _become(worker_command(spec.name, spec.router, paths, worker))


def _become(command: Sequence[str]) -> NoReturn:
    """Go on as another program, as this very process: for service managers."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], list(command))  # noqa: S606 - no shell is involved

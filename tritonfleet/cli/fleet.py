"""Which fleet is meant, and where it lives: the file's name → paths, client, specification."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.terminal import Settings
from tritonfleet.controller.paths import FleetPaths

if TYPE_CHECKING:
    from tritonfleet.cli.client import ControlClient
    from tritonfleet.config import FleetSpec

DEFAULT_FILE = "tritonfleet.yaml"


@dataclass(frozen=True, slots=True)
class Target:
    """One fleet. ``listen``, the router's address, is known where the whole file was read."""

    name: str
    paths: FleetPaths
    listen: str = ""

    @classmethod
    def of(cls, spec: "FleetSpec") -> "Target":
        return cls(spec.name, FleetPaths.of(spec.name), str(spec.router.listen))

    def client(self) -> "ControlClient":
        from tritonfleet.cli.client import ControlClient

        return ControlClient(self.name, self.paths.control_socket)


def fleet_file(settings: Settings) -> Path:
    """The fleet file, as it was named. Raises CliError (usage) when there is none."""
    path = Path(settings.file or DEFAULT_FILE)
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise CliError(
            ExitCode.USAGE,
            f"the fleet file {path} {what}" + ("" if settings.file else f" in {Path.cwd()}"),
            hint="name it with -f FILE or TRITONFLEET_FILE; a running fleet can be named without its file: "
            "--fleet NAME",
        )
    return path


def load(settings: Settings) -> "FleetSpec":
    """The validated fleet file. Raises CliError (usage) with every mistake of the file."""
    from tritonfleet.config import ConfigError, load_fleet

    path = fleet_file(settings)
    try:
        return load_fleet(path, os.environ)
    except ConfigError as error:
        raise CliError(ExitCode.USAGE, f"{path.name} is not valid:\n{error}") from error


def locate(settings: Settings) -> Target:
    """The fleet that is meant: ``--fleet``, or the one the fleet file describes.

    Of the file only the name is looked at, so that one with mistakes still serves to see what runs. Raises
    CliError (usage) where not even that can be read.
    """
    if settings.fleet:
        return Target(settings.fleet, FleetPaths.of(settings.fleet))
    from tritonfleet.config import fleet_name

    if name := fleet_name(fleet_file(settings), os.environ):
        return Target(name, FleetPaths.of(name))
    try:
        spec = load(settings)
    except CliError as error:
        error.hint = error.hint or "a running fleet can be reached without its file: --fleet NAME"
        raise
    return Target.of(spec)

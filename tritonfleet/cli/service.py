"""`service install`: the controller under systemd."""

import getpass
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tritonfleet.cli import fleet
from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.terminal import Settings, say, show_line
from tritonfleet.cli.unit_text import Service, unit_text
from tritonfleet.controller.paths import FleetPaths

SYSTEM_UNITS = Path("/etc/systemd/system")
VERIFY_S = 60.0


def install(settings: Settings, *, system: bool, user: str, dry_run: bool, force: bool) -> None:
    """Write the unit, let systemd check it, and say what to type next; with ``dry_run`` only print it."""
    service = _service(settings, system=system, user=user)
    text = unit_text(service)
    if dry_run:
        show_line(text.rstrip())
        return
    path = units(os.environ, system=system) / service.name
    if path.exists() and path.read_text() != text and not force:
        raise CliError(ExitCode.USAGE, f"{path} exists and is another", hint="--force writes over it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise CliError(
            ExitCode.FAILED,
            f"{path} cannot be written: {error.strerror}",
            hint="sudo, or --user for a unit of your own" if system else "see --dry-run",
        ) from error
    say(settings, f"wrote {path}")
    if complaint := verified(path, system=system):
        raise CliError(
            ExitCode.FAILED, f"systemd does not take {path}", details=tuple(complaint.splitlines())
        )
    if given := variables(fleet.fleet_file(settings).read_text(encoding="utf-8"), os.environ):
        say(settings, f"set here, and not in the unit: {', '.join(given)}")
        say(
            settings,
            f"  add them, [Service] Environment=NAME=VALUE, by: {_systemctl(service)} edit {service.name}",
        )
    say(settings, _next(service))


def variables(file: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Those that the fleet file uses, or that say where tritonserver is, and that are set now.

    Their values may be secrets, so they are not written into a file that everybody can read."""
    used = {*re.findall(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)", file), "TRITONFLEET_TRITONSERVER"}
    return tuple(sorted(name for name in used if name in environ))


def _systemctl(service: Service) -> str:
    return "sudo systemctl" if service.system else "systemctl --user"


def units(environ: Mapping[str, str], *, system: bool) -> Path:
    if system:
        return SYSTEM_UNITS
    return Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def verified(path: Path, *, system: bool) -> str:
    """What `systemd-analyze verify` says of the unit; "" if nothing, or where there is no systemd."""
    program = shutil.which("systemd-analyze")
    if program is None:
        return ""
    command = [program, "--system" if system else "--user", "verify", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=VERIFY_S, check=False)
    mine = [line for line in done.stderr.splitlines() if path.name in line]
    return "\n".join(mine) if done.returncode else ""


def _service(settings: Settings, *, system: bool, user: str) -> Service:
    file = fleet.fleet_file(settings).absolute()
    spec = fleet.load(settings)
    program = Path(sys.executable).with_name("tritonfleet")
    start = [str(program)] if program.is_file() else [sys.executable, "-m", "tritonfleet.cli.main"]
    state = os.environ.get("TRITONFLEET_STATE_DIR", "")
    return Service(
        fleet=spec.name,
        command=(*start, "--file", str(file)),
        folder=str(file.parent),
        user=(user or os.environ.get("SUDO_USER") or getpass.getuser()) if system else "",
        system=system,
        state_dir=str(FleetPaths.of(spec.name).root.parent) if state else "",
        docker=spec.driver == "docker",
    )


def _next(service: Service) -> str:
    control = _systemctl(service)
    lines = [
        "next:",
        "  tritonfleet down                        # first, if it runs already",
        f"  {control} daemon-reload",
        f"  {control} enable --now {service.name}",
        f"  {control} status {service.name}",
    ]
    if not service.system:
        lines.append(
            "  loginctl enable-linger                  # so that it runs without you being logged in"
        )
    elif not service.state_dir:
        lines.append(
            "  export TRITONFLEET_STATE_DIR=/var/lib/tritonfleet   # where tritonfleet ps then finds it"
        )
    return "\n".join(lines)

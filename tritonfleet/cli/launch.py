"""Start the controller detached, and learn whether it came up.

The controller outlives this command: own session, no terminal, output appended to its log. It is up
when it answers on its socket; when it ends instead, its own words explain why.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from tritonfleet.cli.client import UnreachableError
from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.fleet import Target
from tritonfleet.cli.logfiles import last_lines, what_went_wrong

START_TIMEOUT_S = 30.0
POLL_S = 0.05
CANNOT_LISTEN = 98  # the controller's exit code when the router's address is taken
ALREADY_RUNS = 5  # and when another controller holds the fleet


def controller_command(file: Path, sizes: Mapping[str, int]) -> list[str]:
    """The controller as a foreground process; what service managers run, and what is detached here."""
    command = [sys.executable, "-m", "tritonfleet.controller", "--file", str(file)]
    for pool, size in sizes.items():
        command += ["--size", f"{pool}={size}"]
    return command


def start_controller(target: Target, file: Path, sizes: Mapping[str, int]) -> bool:
    """Start it and return once it answers. False: somebody was faster, and theirs answers. Raises CliError
    with the end of its log when none does."""
    log_path = target.paths.controller_log
    try:
        target.paths.make()
        log_path.touch()
    except OSError as error:
        raise CliError(
            ExitCode.FAILED,
            f"the fleet's state cannot be kept in {target.paths.root}: {error.strerror or error}",
            hint="TRITONFLEET_STATE_DIR names another folder",
        ) from error
    with log_path.open("ab") as log:
        began_at = log.tell()
        process = subprocess.Popen(
            controller_command(file, sizes),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=dict(os.environ),
        )
    deadline = monotonic() + START_TIMEOUT_S
    with target.client() as client:
        while True:
            code = process.poll()
            if code is not None and code != ALREADY_RUNS:
                raise _ended(code, target, log_path, began_at)
            with suppress(UnreachableError):
                answered = client.snapshot().controller.pid
                break
            if monotonic() > deadline:
                ours = f"the controller (pid {process.pid})"
                which = "another controller holds the fleet and" if code == ALREADY_RUNS else ours
                raise CliError(
                    ExitCode.TIMED_OUT,
                    f"{which} did not answer within {START_TIMEOUT_S:.0f} s",
                    hint=f"its log: {log_path}",
                    details=tuple(last_lines(log_path, 10)),
                )
            sleep(POLL_S)
    # It is meant to outlive this command: without this, Popen would warn that it still runs.
    process.returncode = 0
    return answered == process.pid


def _ended(code: int, target: Target, log_path: Path, began_at: int) -> CliError:
    with log_path.open("rb") as log:
        log.seek(began_at)
        lines = log.read().decode(errors="replace").splitlines()
    words = what_went_wrong(lines)
    if code == CANNOT_LISTEN:
        address = f" {target.listen}" if target.listen else ""
        return CliError(
            ExitCode.FAILED,
            f"the router's address{address} is taken by another program",
            hint="free it, or use another port: router.listen in the fleet file "
            "(the shipped one reads TRITONFLEET_PORT: TRITONFLEET_PORT=8101 tritonfleet up)",
            details=words,
        )
    return CliError(
        ExitCode.USAGE if code == ExitCode.USAGE else ExitCode.FAILED,
        f"the controller ended at once, with exit code {code}",
        hint=f"its log: {log_path}",
        details=words,
    )

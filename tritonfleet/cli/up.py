"""`up` and `down`: bring the fleet of a file to life, to the file's state, and to an end."""

import os
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep

import typer

from tritonfleet.cli import fleet, render
from tritonfleet.cli.client import ControlClient, UnreachableError
from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.launch import start_controller
from tritonfleet.cli.logfiles import last_lines, what_went_wrong
from tritonfleet.cli.names import parse_sizes
from tritonfleet.cli.plan import Plan, plan
from tritonfleet.cli.preview import show_plan, wishes
from tritonfleet.cli.terminal import Progress, Settings, say, say_error, say_verbose, show
from tritonfleet.cli.waiting import settled
from tritonfleet.core.rollout import Revision, last_asked
from tritonfleet.core.wire import ApplyRequest, DownRequest, FleetSnapshot, Replica, WorkerInfo
from tritonfleet.drivers.spawn import ProcessIdentity, alive, identify

POLL_S = 0.2
GONE_TIMEOUT_S = 600.0  # how long `down` waits beyond the drain and exit timeouts it asked for


def up(
    settings: Settings,
    scale: list[str],
    timeout_s: float,
    *,
    detach: bool,
    wait: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Start or adopt the fleet, or apply the file to a running one; then wait, follow or return."""
    file = fleet.fleet_file(settings).absolute()
    spec = fleet.load(settings)
    target = fleet.Target.of(spec)
    sizes = parse_sizes(scale, list(spec.pools))
    for pool in sizes:
        if pool not in spec.pools:
            raise CliError(
                ExitCode.USAGE,
                f"--scale {pool}={sizes[pool]}: no pool {pool!r} in {file.name}",
                hint=f"its pools: {', '.join(spec.pools)}",
            )
    say_verbose(settings, f"file {file}, state {target.paths.root}, socket {target.paths.control_socket}")
    with target.client() as client:
        try:
            snapshot: FleetSnapshot | None = client.snapshot()
        except UnreachableError:
            snapshot = None
        wished = wishes(spec, sizes)
        if dry_run:
            show_plan(settings, spec, wished, snapshot, nothing=f"{file.name} says")
            return
        if snapshot is None:
            say(settings, f"starting fleet {spec.name} from {file.name}")
            ours = start_controller(target, file, sizes)
            snapshot = None if ours else client.snapshot()
        if snapshot is not None:
            _apply(client, settings, file, sizes, plan(wished, snapshot), yes=yes)
        if detach and not wait:
            say(
                settings,
                f"fleet {spec.name} is at work in the background: tritonfleet ps, tritonfleet events -f",
            )
        elif detach:
            ready = wait_settled(client, target, settings, timeout_s, rollout=True)
            say(settings, _ready_message(ready))
        else:
            _attached(client, target, settings, timeout_s)


def _apply(
    client: ControlClient, settings: Settings, file: Path, sizes: Mapping[str, int], wish: Plan, *, yes: bool
) -> None:
    """A running fleet: say so, ask before ready replicas go, and hand the file over."""
    if wish.removed and not yes:
        question = f"This removes {len(wish.removed)} ready replicas: {', '.join(wish.removed)}."
        if not settings.interactive:
            raise CliError(
                ExitCode.USAGE, question, hint="nothing was changed; to agree, add -y", details=wish.changes
            )
        say(settings, "\n".join(wish.changes))
        if not typer.confirm(f"{question} Go on?", err=True):
            raise CliError(ExitCode.FAILED, "nothing was changed")
    accepted = client.apply(ApplyRequest(path=str(file), environ=_environ(), sizes=dict(sizes), by="up"))
    say(settings, f"the fleet is already running: {accepted.message}")


def _environ() -> dict[str, str]:
    """What a fleet file may refer to. A variable that is no text can neither stand in one nor in JSON."""
    return {name: value for name, value in os.environ.items() if _is_text(name) and _is_text(value)}


def _is_text(value: str) -> bool:
    """Bytes that are none come as lone surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in value)


def wait_settled(
    client: ControlClient,
    target: fleet.Target,
    settings: Settings,
    timeout_s: float,
    pools: frozenset[str] | None = None,
    *,
    rollout: bool = False,
) -> FleetSnapshot:
    """Until every pool has its size ready. Raises CliError: a replica in crash_loop or a router worker that
    does not stay up (1), time over (3); with ``rollout``, also when what the fleet was last asked to be has
    been rolled back (1)."""
    deadline = monotonic() + timeout_s
    with Progress(settings) as progress:
        while True:
            snapshot = client.snapshot()
            verdict = settled(snapshot, pools)
            progress.update(snapshot, verdict.waiting_for)
            if rollout and (asked := last_asked(client.rollout())) and asked.status == "rolled_back":
                raise rolled_back_error(target, asked)
            if verdict.broken:
                raise broken_error(target, verdict.broken[0])
            if verdict.broken_workers:
                raise broken_worker_error(target, verdict.broken_workers[0])
            if verdict.done:
                return snapshot
            if monotonic() > deadline:
                raise CliError(
                    ExitCode.TIMED_OUT,
                    f"still waiting after {render.duration(timeout_s)} for {verdict.waiting_for}",
                    hint="it goes on in the background: tritonfleet ps; a longer wait: --wait-timeout 20m",
                )
            sleep(POLL_S)


def broken_error(target: fleet.Target, replica: Replica) -> CliError:
    """The failure of a replica that cannot start, with its server's own words."""
    path = target.paths.logs / f"{replica.id}.log"
    return CliError(
        ExitCode.FAILED,
        f"{replica.id} is in {replica.state}: {replica.reason}",
        hint=f"the whole log: tritonfleet logs {replica.id} ({path})\n"
        "once the cause is mended: tritonfleet restart " + replica.id,
        details=what_went_wrong(last_lines(path, 400)),
    )


def broken_worker_error(target: fleet.Target, worker: WorkerInfo) -> CliError:
    """The failure of a router worker that ends as soon as it is started."""
    path = target.paths.logs / f"router-{worker.index}.log"
    return CliError(
        ExitCode.FAILED,
        f"router worker {worker.index} fails again and again: {worker.reason or 'it ends at once'}",
        hint=f"the whole log: tritonfleet logs router ({path})\n"
        "once the cause is mended, it starts by itself; after a change of the fleet file: tritonfleet up",
        details=what_went_wrong(last_lines(path, 400)),
    )


def rolled_back_error(target: fleet.Target, revision: Revision) -> CliError:
    path = target.paths.logs / f"{revision.replica}.log"
    return CliError(
        ExitCode.FAILED,
        f"revision {revision.number} was rolled back: {revision.reason}",
        hint="the fleet goes on as before: tritonfleet rollout history\n"
        f"the whole log: tritonfleet logs {revision.replica} ({path})\n"
        "once the cause is mended: tritonfleet up",
        details=what_went_wrong(last_lines(path, 400)),
    )


def _ready_message(snapshot: FleetSnapshot) -> str:
    parts = [f"{pool.name} {pool.ready} of {pool.desired} ready" for pool in snapshot.pools]
    return f"fleet {snapshot.fleet}: {', '.join(parts)}, behind {snapshot.router.address}"


def _attached(client: ControlClient, target: fleet.Target, settings: Settings, timeout_s: float) -> None:
    """Show the way to ready, then the events, until Ctrl-C: which lets go of the fleet, never stops it."""
    try:
        since = _last_event(client)
        try:
            ready = wait_settled(client, target, settings, timeout_s, rollout=True)
            say(settings, _ready_message(ready))
            say(
                settings,
                "following events; Ctrl-C lets go, and the fleet goes on (tritonfleet down stops it)",
            )
        except CliError as error:
            if error.code is ExitCode.UNREACHABLE:
                raise
            say_error(error, settings.progress)
        for event in client.events(since, follow=True):
            show(render.event_line(event))
    except KeyboardInterrupt:
        say(settings, f"\nlet go; fleet {target.name} goes on. Stop it with: tritonfleet down")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    say(settings, "the controller has ended: tritonfleet up takes the fleet up again")


def _last_event(client: ControlClient) -> int:
    return max((event.seq for event in client.events()), default=0)


def down(settings: Settings, timeout_s: float | None, *, force: bool, yes: bool) -> None:
    """Drain and stop everything. A fleet that does not run is no error: that is the state asked for."""
    target = fleet.locate(settings)
    with target.client() as client:
        try:
            snapshot = client.snapshot()
        except UnreachableError:
            if not left_behind(target):
                say(settings, f"fleet {target.name} is not running")
                return
            said = "the controller is gone; starting it again to stop what it left running"
            say(settings, "waiting for the controller to answer" if is_held(target) else said)
            start_controller(target, fleet.fleet_file(settings).absolute(), {})
            snapshot = client.snapshot()
        busy = sum(replica.in_flight or 0 for replica in snapshot.replicas)
        if busy and settings.interactive and not yes:
            question = f"{busy} requests are in flight. Stop fleet {target.name}?"
            if not typer.confirm(question, err=True):
                raise CliError(ExitCode.FAILED, "nothing was stopped")
        controller = identify(snapshot.controller.pid)
        accepted = client.down(DownRequest(timeout_s=timeout_s, force=force, by="down"))
        say(settings, accepted.message)
        _wait_gone(client, settings, (timeout_s or 0.0) + GONE_TIMEOUT_S, controller)
    say(settings, f"fleet {target.name} is stopped")


def left_behind(target: fleet.Target) -> bool:
    """Whether a controller that ended left records of a fleet, which `down` removes, or one is starting."""
    paths = target.paths
    return paths.controller_file.exists() or paths.state_file.exists() or is_held(target)


def is_held(target: fleet.Target) -> bool:
    """Whether a controller holds the fleet's lock. By looking only: who tries it keeps others from it."""
    try:
        inode = target.paths.lock.stat().st_ino
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return False
    return any("FLOCK" in line and f":{inode} " in line for line in locks)


def _wait_gone(
    client: ControlClient, settings: Settings, timeout_s: float, controller: ProcessIdentity | None
) -> None:
    """Until the controller, the last to go, has ended."""
    deadline = monotonic() + timeout_s
    with Progress(settings) as progress:
        while monotonic() < deadline:
            try:
                snapshot = client.snapshot()
                progress.update(snapshot, f"{len(snapshot.replicas)} replicas to stop")
            except UnreachableError:
                if controller is None or not alive(controller):
                    return
            sleep(POLL_S)
    raise CliError(
        ExitCode.TIMED_OUT,
        f"the fleet is still stopping after {render.duration(timeout_s)}",
        hint="see what it waits for: tritonfleet ps; do not wait: tritonfleet down --force",
    )

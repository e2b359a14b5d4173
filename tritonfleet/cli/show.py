"""`events`, `logs`, `describe`: look, change nothing."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from time import time

import msgspec
from rich.text import Text

from tritonfleet.cli import fleet, logfiles, names, render
from tritonfleet.cli.client import ControlClient, UnreachableError
from tritonfleet.cli.describe import describe_device, describe_pool, describe_replica
from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.terminal import Output, Settings, say, show, show_data, show_data_line, show_line, width
from tritonfleet.core.launched import Launched
from tritonfleet.core.wire import Event, PoolSnapshot, Replica

SHOWN_EVENTS = 50  # to a person who does not say how many; a program gets all
DESCRIBED_EVENTS = 10
DESCRIBED_LOG_LINES = 15


def events(settings: Settings, since: str, kind: str, tail: int | None, *, follow: bool) -> None:
    """The journal, from the controller where one answers, else from the file it left."""
    after_seq, after_time = parse_since(since)
    target = fleet.locate(settings)
    wanted = matching(after_time, kind)
    with target.client() as client:
        past = past_events(settings, target, client, after_seq, follow=follow)
        shown = [event for event in past if wanted(event)]
        if tail is None and not since and settings.output in (Output.TABLE, Output.WIDE):
            tail = SHOWN_EVENTS
        if tail is not None:
            shown = shown[max(len(shown) - tail, 0) :]
        if not follow and settings.output is Output.YAML:
            show_data(shown, settings.output)
            return
        _print_events(settings, shown)
        if follow:
            last = past[-1].seq if past else after_seq
            _print_events(settings, filter(wanted, client.events(last, follow=True)))
            say(settings, "the controller has ended")


def past_events(
    settings: Settings, target: fleet.Target, client: ControlClient, after_seq: int, *, follow: bool = False
) -> list[Event]:
    """From the controller, or, unless they are to be followed, from its journal."""
    try:
        return list(client.events(after_seq))
    except UnreachableError:
        if follow or not target.paths.journal.exists():
            raise
        say(settings, f"the controller does not run; from {target.paths.journal}")
        return [event for event in read_journal(target) if event.seq > after_seq]


def _print_events(settings: Settings, found: Iterable[Event]) -> None:
    for event in found:
        if settings.output in (Output.JSON, Output.YAML):
            show_data_line(event)  # one line of JSON is YAML, too
        elif settings.output is Output.NAME:
            show_line(str(event.seq))
        else:
            show(render.event_line(event))


def matching(after: float, kind: str) -> Callable[[Event], bool]:
    """Whether an event is of type ``kind`` ("replica": all of "replica.…") and not older than ``after``."""

    def matches(event: Event) -> bool:
        right_kind = not kind or event.type == kind or event.type.startswith(kind + ".")
        return right_kind and event.at >= after

    return matches


def parse_since(text: str) -> tuple[int, float]:
    """``120`` → events after number 120; ``10m`` → those of the last ten minutes; "" → all.

    Returns (number, time in epoch seconds), of which one is 0.
    """
    if not text:
        return 0, 0.0
    if text.isascii() and text.isdigit():
        return int(text), 0.0
    return 0, time() - names.parse_duration(text, "--since")


def read_journal(target: fleet.Target) -> Iterator[Event]:
    """Events of the journal file, oldest first; a half-written last line is left out."""
    for line in target.paths.journal.read_bytes().splitlines():
        try:
            yield msgspec.json.decode(line, type=Event)
        except msgspec.MsgspecError:
            continue


def logs(settings: Settings, name: str, tail: int, *, follow: bool) -> None:
    """Log lines of a replica, a pool, the routers, the controller, or all of them with their names."""
    target = fleet.locate(settings)
    folder = target.paths.logs
    paths = logfiles.chosen(folder, name)
    if not paths:
        if not logfiles.names(folder):
            raise CliError(
                ExitCode.FAILED,
                f"fleet {target.name!r} has no logs yet in {folder}",
                hint="start it: tritonfleet up",
            )
        pools = () if settings.fleet else tuple(fleet.load(settings).pools)
        if name in pools:
            raise CliError(ExitCode.FAILED, f"no replica of pool {name!r} has logged yet")
        if name == "router":
            raise CliError(
                ExitCode.FAILED,
                f"the router of fleet {target.name!r} has logged nothing in {folder}",
                hint="with router.external its log is where it was started: `docker compose logs router`",
            )
        known = {*logfiles.names(folder), *pools, "router"}
        raise names.unknown("log", name, known, target.name)
    if follow:
        for source, line in logfiles.follow(paths, tail):
            _log_line(settings, source, line, several=len(paths) > 1)
        return
    for path in paths:
        for line in logfiles.last_lines(path, tail):
            _log_line(settings, path.stem, line, several=len(paths) > 1)


def _log_line(settings: Settings, source: str, line: str, *, several: bool) -> None:
    if settings.output is Output.JSON:
        show_data_line({"source": source, "line": line})
    elif several:
        show(Text().append(f"{source} | ", "dim").append(line))
    else:
        show_line(line)


def describe(settings: Settings, name: str) -> None:
    """A replica, a pool, or ``device/ID``."""
    target = fleet.locate(settings)
    with target.client() as client:
        snapshot = client.snapshot()
        as_data = settings.output in (Output.JSON, Output.YAML)
        device = names.device_named(snapshot, name)
        if device is not None:
            if as_data:
                show_data(device, settings.output)
            else:
                events = _last_events(client, {device.id})
                show(describe_device(snapshot, device, events, width()))
            return
        pool = next((pool for pool in snapshot.pools if pool.name == name), None)
        if pool is not None:
            members = {replica.id for replica in snapshot.replicas if replica.pool == name}
            launched = client.launched("pools", name)
            if as_data:
                show_data(_with_launch(pool, launched), settings.output)
            else:
                said = _last_events(client, {name, *members})
                show(describe_pool(snapshot, pool, said, width(), launched=launched))
            return
        known = {replica.id for replica in snapshot.replicas} | {
            replica.instance for replica in snapshot.replicas
        }
        if name not in known:
            everything = (*(r.id for r in snapshot.replicas), *(p.name for p in snapshot.pools))
            devices = (f"device/{device.id}" for device in snapshot.devices)
            raise names.unknown("replica, pool or device", name, (*everything, *devices), snapshot.fleet)
        replica = names.replica_named(snapshot, name)
        launched = client.launched("replicas", replica.id)
        if as_data:
            show_data(_with_launch(replica, launched), settings.output)
            return
        path = target.paths.logs / f"{replica.id}.log"
        lines = logfiles.last_lines(path, DESCRIBED_LOG_LINES)
        said = _last_events(client, {replica.id})
        show(describe_replica(snapshot, replica, said, lines, str(path), width(), launched=launched))


def _with_launch(of: PoolSnapshot | Replica, launched: Launched | None) -> dict[str, object]:
    """Its own fields, and ``launch``."""
    found: dict[str, object] = msgspec.to_builtins(of)
    return {**found, "launch": msgspec.to_builtins(launched)}


def _last_events(client: ControlClient, subjects: set[str]) -> list[Event]:
    mine = [event for event in client.events() if event.subject in subjects]
    return list(islice(mine, max(len(mine) - DESCRIBED_EVENTS, 0), None))

"""`autoscale status | explain | history | pause | resume`: the load's say in sizes, looked at and held."""

from collections.abc import Mapping, Sequence
from datetime import tzinfo

from rich.text import Text

from tritonfleet.cli import fleet, names
from tritonfleet.cli.client import ControlClient, UnreachableError
from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.layout import Cell, Column, Row, fields, table
from tritonfleet.cli.render import BROKEN, clock, duration
from tritonfleet.cli.show import parse_since, past_events
from tritonfleet.cli.terminal import Output, Settings, say, show, show_data, show_line, width
from tritonfleet.core.autoscale_record import DecisionRecord, read
from tritonfleet.core.signals import shown
from tritonfleet.core.wire import AutoscaleStatus, ScaleRequest

_COLUMNS = (
    Column("POOL"),
    Column("MODE"),
    Column("SIZE", right=True),
    Column("WANTED", right=True),
    Column("ASKED", right=True),
    Column("READY", right=True),
    Column("COMING", right=True),
    Column("BOUNDS"),
)
_HISTORY_COLUMNS = (
    Column("TIME"),
    Column("POOL"),
    Column("FROM", right=True),
    Column("TO", right=True),
    Column("ASKED", right=True),
    Column("BOUNDS"),
    Column("DONE"),
)
_ANSWER_COLUMNS = (Column("TARGET"), Column("REPLICAS", right=True))
_SIGNAL_COLUMNS = (
    Column("SIGNAL"),
    Column("VALUE", right=True),
    Column("PANIC WINDOW", right=True),
    Column("AGE", right=True),
)


def autoscale(settings: Settings, action: str, pool: str, for_s: float | None, since: str) -> None:
    """``pool`` "": all of them."""
    if for_s is not None and action != "pause":
        raise CliError(ExitCode.USAGE, f"--for goes with pause, not with {action}")
    if since and action != "history":
        raise CliError(ExitCode.USAGE, f"--since goes with history, not with {action}")
    if action == "history":
        _history(settings, pool, since)
        return
    with fleet.locate(settings).client() as client:
        if pool:
            names.pool_named(client.snapshot(), pool)
        found = [status for status in client.autoscale() if pool in ("", status.pool)]
        if action in ("pause", "resume"):
            say(settings, client.scale(_wish(found, action, for_s)).message)
            return
    _show(settings, found, in_full=action == "explain")


def _history(settings: Settings, pool: str, since: str) -> None:
    """Decisions that changed a size, or would have, oldest first."""
    after_seq, after_time = parse_since(since)
    target = fleet.locate(settings)
    with target.client() as client:
        past = past_events(settings, target, client, after_seq)
        running = _pools(settings, client)
    known = [record for event in past if (record := read(event)) is not None]
    pools = running | {record.pool for record in known}
    if pool and pools and pool not in pools:
        raise names.unknown("pool", pool, pools, target.name)
    records = [record for record in known if record.at >= after_time and pool in ("", record.pool)]
    if settings.output in (Output.JSON, Output.YAML):
        show_data(records, settings.output)
    elif settings.output is Output.NAME:
        for record in records:
            show_line(record.pool)
    elif not records:
        say(settings, "no size was changed by autoscaling" + (f" since {since}" if since else ""))
    else:
        show(history(records, width(), wide=settings.output is Output.WIDE))


def _pools(settings: Settings, client: ControlClient) -> set[str]:
    """Those of the fleet that runs, else of its file; none if neither can be read."""
    try:
        return {pool.name for pool in client.snapshot().pools}
    except UnreachableError:
        try:
            return set() if settings.fleet else set(fleet.load(settings).pools)
        except CliError:
            return set()


def history(
    records: Sequence[DecisionRecord], columns: int | None, *, wide: bool = False, zone: tzinfo | None = None
) -> Text:
    """``wide``: with the signals and the settings that each rested on."""
    return table(_HISTORY_COLUMNS, [_history_row(record, zone, wide=wide) for record in records], columns)


def _history_row(record: DecisionRecord, zone: tzinfo | None, *, wide: bool) -> Row:
    bounds = record.bounds
    cells = (
        Cell(clock(record.at, zone), "dim"),
        Cell(record.pool, "bold"),
        Cell(str(record.before)),
        Cell(str(record.after)),
        Cell("-" if record.asked is None else str(record.asked)),
        Cell(f"{bounds['minimum']}..{bounds['maximum']}" if "maximum" in bounds else "-"),
        Cell("yes" if record.done else "no"),
    )
    if not wide:
        return Row(cells, record.reason)
    parts = {"signals": record.signals, "policy": record.policy}
    told = "; ".join(f"{title}: {_listed(part)}" for title, part in parts.items() if part)
    return Row(cells, f"{record.reason} [{told}]" if told else record.reason)


def _listed(part: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in part.items() if value is not None)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _wish(found: Sequence[AutoscaleStatus], action: str, for_s: float | None) -> ScaleRequest:
    """Raises CliError when there is nothing to pause or to resume."""
    if action == "pause":
        chosen = tuple(status.pool for status in found if status.mode in ("on", "dry run"))
        request = ScaleRequest(by="autoscale pause", for_s=for_s, pause=chosen)
    else:
        chosen = tuple(status.pool for status in found if status.mode == "pinned")
        request = ScaleRequest(by="autoscale resume", auto=chosen)
    if not chosen:
        modes = ", ".join(f"{status.pool}: {status.mode}" for status in found)
        raise CliError(
            ExitCode.FAILED, f"there is nothing to {action} ({modes})", hint="tritonfleet autoscale"
        )
    return request


def _show(settings: Settings, found: Sequence[AutoscaleStatus], *, in_full: bool) -> None:
    if settings.output in (Output.JSON, Output.YAML):
        show_data(found, settings.output)
    elif settings.output is Output.NAME:
        for status in found:
            show_line(status.pool)
    elif in_full:
        show(Text("\n\n").join(explained(status, width()) for status in found))
    else:
        show(table(_COLUMNS, [_row(status) for status in found], width()))


def _row(status: AutoscaleStatus) -> Row:
    cells = (
        Cell(status.pool, "bold"),
        Cell(status.mode),
        Cell(str(status.size)),
        Cell("-" if status.wanted is None else str(status.wanted)),
        Cell("-" if status.asked is None else str(status.asked)),
        Cell("-" if status.at is None else str(status.ready + status.warming)),
        Cell("-" if status.at is None else str(status.loading + status.pending)),
        Cell(f"{status.minimum}..{status.maximum}"),
    )
    return Row(cells, status.reason or "no autoscale section in the fleet file")


def explained(status: AutoscaleStatus, columns: int | None) -> Text:
    """All that the last decision rests on."""
    mode = status.mode
    if status.pinned_until is not None and status.at is not None:
        mode += f", for {duration(status.pinned_until - status.at)} more"
    pairs: list[tuple[str, str | Cell]] = [
        ("Pool", Cell(status.pool, "bold")),
        ("Mode", mode),
        ("Size", f"{status.size}; bounds {status.minimum}..{status.maximum}"),
    ]
    if status.at is None:
        why = "no decision yet" if status.mode != "off" else "no autoscale section in the fleet file"
        return fields([*pairs, ("Decision", why)], columns)
    cold = "not measured yet" if status.cold_start_s is None else duration(status.cold_start_s)
    changed = "never" if status.changed_at is None else f"{duration(status.at - status.changed_at)} ago"
    pairs += [
        ("Decision", status.reason),
        (
            "Wanted",
            f"{status.wanted}" + (f" (asked {status.asked}: {status.clipped})" if status.clipped else ""),
        ),
        ("Panic", "yes" if status.panic else "no"),
        (
            "Replicas",
            f"{status.ready} measured, {status.warming} warm up, {status.loading} load, "
            f"{status.pending} wait for a device, {status.leaving} leave",
        ),
        ("Cold start", cold),
        ("Last change", changed),
        ("Forecast", status.forecast or "none"),
    ]
    answers = [
        Row(
            (
                Cell(one.target),
                Cell("?" if one.count is None else str(one.count), BROKEN if one.count is None else ""),
            ),
            one.why,
        )
        for one in status.answers
    ]
    signals = [
        Row(
            (
                Cell(one.name),
                Cell(one.shown),
                Cell(shown(one.name, one.fast)),
                Cell("-" if one.age_s is None else f"{one.age_s:.1f}s", BROKEN if one.trouble else ""),
            ),
            one.trouble,
        )
        for one in status.signals
    ]
    return Text("\n\n").join(
        [
            fields(pairs, columns),
            table(_ANSWER_COLUMNS, answers, columns),
            table(_SIGNAL_COLUMNS, signals, columns),
        ]
    )

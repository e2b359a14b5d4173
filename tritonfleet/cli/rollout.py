"""`rollout`: how a change of the fleet file does, what changes there were, and the way back."""

from collections.abc import Sequence
from datetime import tzinfo

import typer
from rich.text import Text

from tritonfleet.cli import fleet
from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.layout import Cell, Column, Row, fields, table
from tritonfleet.cli.render import BROKEN, GOOD, clock
from tritonfleet.cli.terminal import Output, Settings, say, show, show_data, show_line, width
from tritonfleet.cli.up import wait_settled
from tritonfleet.core.rollout import Revision, RolloutStatus, UndoRequest, last_asked

_BAD = ("rolled_back", "failed")
_HISTORY_COLUMNS = (
    Column("REVISION", right=True),
    Column("AT"),
    Column("BY"),
    Column("STATUS"),
)
_POOL_COLUMNS = (
    Column("POOL"),
    Column("STATE"),
    Column("WANTED", right=True),
    Column("UPDATED", right=True),
    Column("OUTDATED", right=True),
    Column("CONFIG"),
)


def rollout(settings: Settings, action: str, number: int | None, timeout_s: float, *, wait: bool) -> None:
    if number is not None and action != "undo":
        raise CliError(ExitCode.USAGE, f"{action} takes no revision", hint="only undo does")
    target = fleet.locate(settings)
    with target.client() as client:
        if action == "undo":
            say(settings, client.undo(UndoRequest(number, by="rollout undo")).message)
        if wait and action != "history":
            wait_settled(client, target, settings, timeout_s, rollout=True)
        if action == "undo":
            return
        status = client.rollout()
    if action == "history":
        _history(settings, status.revisions)
    else:
        _status(settings, status)


def _history(settings: Settings, revisions: Sequence[Revision]) -> None:
    if settings.output in (Output.JSON, Output.YAML):
        show_data(revisions, settings.output)
    elif settings.output is Output.NAME:
        for revision in revisions:
            show_line(str(revision.number))
    else:
        show(history(revisions, width()))


def history(revisions: Sequence[Revision], columns: int | None, zone: tzinfo | None = None) -> Text:
    """Oldest first."""
    rows = [
        Row(
            (
                Cell(str(one.number), "bold"),
                Cell(clock(one.at, zone), "dim"),
                Cell(one.by),
                _state(one.status),
            ),
            f"{one.changes}: {one.reason}" if one.status in _BAD else one.changes,
        )
        for one in revisions
    ]
    return table(_HISTORY_COLUMNS, rows, columns)


def _status(settings: Settings, status: RolloutStatus) -> None:
    """Exit code 1 when the last change that was asked for has failed."""
    if settings.output in (Output.JSON, Output.YAML):
        show_data(status, settings.output)
    elif settings.output is Output.NAME:
        for revision in status.revisions[-1:]:
            show_line(str(revision.number))
    else:
        show(state_of(status, width()))
    asked = last_asked(status)
    if asked is not None and asked.status in _BAD:
        raise typer.Exit(ExitCode.FAILED)


def state_of(status: RolloutStatus, columns: int | None, zone: tzinfo | None = None) -> Text:
    """The last revision that was asked for, what runs if that is another one, and how each pool does."""
    asked = last_asked(status)
    told = [one for one in status.revisions[-1:] if one != asked]
    parts = [fields(_about(one, zone), columns) for one in ([asked] if asked else []) + told]
    rows = [
        Row(
            (
                Cell(one.pool, "bold"),
                _state(one.state),
                Cell(str(one.wanted)),
                Cell(str(one.updated), GOOD if one.updated >= one.wanted else ""),
                Cell(str(one.outdated)),
                Cell(one.config_hash),
            ),
            one.reason,
        )
        for one in status.pools
    ]
    return Text("\n\n").join([*parts, table(_POOL_COLUMNS, rows, columns)])


def _about(one: Revision, zone: tzinfo | None) -> list[tuple[str, str | Cell]]:
    pairs: list[tuple[str, str | Cell]] = [
        ("Revision", Cell(str(one.number), "bold")),
        ("Status", _state(one.status)),
        ("Begun", f"{clock(one.at, zone)} by {one.by}, {one.file}"),
        ("Changes", one.changes),
    ]
    return [*pairs, ("Reason", one.reason)] if one.reason else pairs


def _state(word: str) -> Cell:
    return Cell(word.replace("_", " "), BROKEN if word in _BAD else GOOD if word == "deployed" else "")

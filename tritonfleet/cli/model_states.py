"""A snapshot → the models of the fleet, with their state on each replica that serves. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.text import Text

from tritonfleet.cli.layout import Cell, Column, Row, table
from tritonfleet.cli.render import BROKEN, GOOD
from tritonfleet.core.wire import FleetSnapshot, ModelStatus

_COLUMNS = (Column("MODEL"), Column("POOL"), Column("READY", right=True), Column("VERSIONS"))
_WIDE_COLUMNS = (Column("MODEL"), Column("REPLICA"), Column("STATE"), Column("VERSIONS"))


@dataclass(frozen=True, slots=True)
class FleetModel:
    """One model in one pool. ``ready``: on how many of its serving replicas; ``versions`` that any has."""

    model: str
    pool: str
    ready: int
    versions: tuple[str, ...]
    replicas: dict[str, ModelStatus] = field(default_factory=dict)  # by id


def fleet_models(snapshot: FleetSnapshot, only: str = "") -> tuple[FleetModel, ...]:
    """By pool and name. ``only``: that model, in whatever pools it is."""
    found: dict[tuple[str, str], dict[str, ModelStatus]] = {}
    for replica in snapshot.replicas:
        if replica.state.serving:
            for status in replica.models:
                if status.name == only or not only:
                    found.setdefault((replica.pool, status.name), {})[replica.id] = status
    return tuple(
        FleetModel(
            name,
            pool,
            sum(status.ready for status in statuses.values()),
            tuple(sorted({v for status in statuses.values() for v in status.versions}, key=_version_order)),
            statuses,
        )
        for (pool, name), statuses in sorted(found.items())
    )


def _version_order(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdigit() else (0, version)


def shown(models: Sequence[FleetModel], width: int | None, *, wide: bool) -> Text:
    if not models:
        return Text("no replica serves, so no model is known")
    if not wide:
        return table(_COLUMNS, [_row(model) for model in models], width)
    rows = [
        Row(
            (Cell(model.model, "bold"), Cell(name), _state(status), Cell(_versions(status.versions))),
            status.reason,
        )
        for model in models
        for name, status in model.replicas.items()
    ]
    return table(_WIDE_COLUMNS, rows, width)


def _row(model: FleetModel) -> Row:
    count = len(model.replicas)
    cells = (
        Cell(model.model, "bold"),
        Cell(model.pool),
        Cell(f"{model.ready}/{count}", GOOD if model.ready == count else BROKEN if model.ready else "dim"),
        Cell(_versions(model.versions)),
    )
    return Row(cells, reason(model))


def reason(model: FleetModel) -> str:
    """What is not everywhere as it is elsewhere, by replica; "" where all have the same."""
    missing = {name: status.reason for name, status in model.replicas.items() if not status.ready}
    if len(missing) == len(model.replicas):
        return f"on no replica: {next(iter(missing.values())) or 'not loaded'}"
    said = [f"{name}: {why or 'not loaded'}" for name, why in missing.items()]
    said += [
        f"{name} has version {_versions(status.versions)} only"
        for name, status in model.replicas.items()
        if status.ready and status.versions != model.versions
    ]
    return "; ".join(said)


def _state(status: ModelStatus) -> Cell:
    return Cell("● ready", GOOD) if status.ready else Cell("○ not ready", "dim")


def _versions(versions: Sequence[str]) -> str:
    return ",".join(versions) or "-"

"""`plan` and `up --dry-run`: what `up` would change, and where new replicas would go."""

from collections.abc import Mapping, Sequence
from time import time
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from tritonfleet.cli import fleet
from tritonfleet.cli.client import UnreachableError
from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.layout import Cell, Column, Row, table
from tritonfleet.cli.placements import Placed, placements
from tritonfleet.cli.plan import Plan, PoolWish, plan
from tritonfleet.cli.render import short_names
from tritonfleet.cli.terminal import Output, Settings, show, show_data, show_line, width
from tritonfleet.core.model import Device
from tritonfleet.core.placement import DeviceView
from tritonfleet.core.wire import FleetSnapshot

if TYPE_CHECKING:
    from tritonfleet.config import FleetSpec

_COLUMNS = (Column("NEW REPLICA"), Column("DEVICE"))


def preview(settings: Settings) -> None:
    """What `up` would change, on stdout; exit code 5 when there is something, for scripts."""
    spec = fleet.load(settings)
    with fleet.Target.of(spec).client() as client:
        try:
            snapshot: FleetSnapshot | None = client.snapshot()
        except UnreachableError:
            snapshot = None
    if show_plan(settings, spec, wishes(spec, {}), snapshot, nothing="its file says"):
        raise typer.Exit(ExitCode.CHANGES)


def show_plan(
    settings: Settings,
    spec: "FleetSpec",
    wished: Sequence[PoolWish],
    snapshot: FleetSnapshot | None,
    *,
    nothing: str,
) -> bool:
    """Whether there is anything to do."""
    from tritonfleet.config.schema import router_hash

    found = plan(wished, snapshot, router_hash(spec))
    placed = placements(wished, snapshot, *_devices(spec, snapshot), time()) if found.changes else ()
    if settings.output in (Output.JSON, Output.YAML):
        body = {
            "fleet": spec.name,
            "changes": found.changes,
            "new": placed,
            "removed": found.removed,
            "replaced": found.replaced,
        }
        show_data(body, settings.output)
    elif settings.output is Output.NAME:
        for one in placed:
            show_line(one.replica)
    else:
        show(_text(found, placed, f"fleet {spec.name} already is as {nothing}"))
    return bool(found.changes)


def _text(found: Plan, placed: Sequence[Placed], nothing: str) -> Text:
    if not found.changes:
        return Text(nothing)
    parts = [Text("\n".join(found.changes))]
    if placed:
        shown = short_names(name for one in placed for name in one.devices)
        rows = [
            Row(
                (Cell(one.replica, "bold"), Cell(",".join(shown[name] for name in one.devices) or "-")),
                one.reason if one.devices else f"waits: {one.reason}",
            )
            for one in placed
        ]
        parts.append(table(_COLUMNS, rows, width(), reason="WHY"))
    return Text("\n\n").join(parts)


def _devices(spec: "FleetSpec", snapshot: FleetSnapshot | None) -> tuple[tuple[Device, ...], DeviceView]:
    """The devices and what is known of them: the running controller's, else what this host shows.

    Raises CliError for devices that are not there."""
    failures: dict[str, int] = {}
    aside: tuple[str, ...] = ()
    if snapshot is not None:
        infos = snapshot.devices
        devices = tuple(Device(one.id, one.kind, one.name, one.memory_bytes) for one in infos)
        readings = {one.id: one.reading for one in infos if one.reading is not None}
        failures = {one.id: one.failures for one in infos}
        aside = tuple(one.id for one in infos if one.set_aside)
    else:
        from tritonfleet.drivers.base import DriverError
        from tritonfleet.drivers.device_readings import NvmlReader
        from tritonfleet.drivers.devices import discover

        try:
            devices = discover(spec.devices, trusting=spec.driver != "process")
        except DriverError as error:
            raise CliError(ExitCode.FAILED, str(error), hint=error.remedy) from error
        reader = NvmlReader()
        readings = reader.read(devices, time())
        reader.close()
    known = {name: reading.free_bytes for name, reading in readings.items()}
    free = {name: size for name, size in known.items() if size is not None}
    return devices, DeviceView(free, failures, aside)


def wishes(spec: "FleetSpec", sizes: Mapping[str, int]) -> list[PoolWish]:
    from tritonfleet.config import pool_hash

    return [
        PoolWish(
            name,
            pool.replicas.min,
            pool.replicas.max,
            pool.replicas.first_size,
            pool_hash(spec, name),
            sizes.get(name),
            pool.replicas.per_device,
            pool.replicas.devices_per_replica,
            pool.autoscale is not None and not pool.autoscale.dry_run,
        )
        for name, pool in spec.pools.items()
    ]

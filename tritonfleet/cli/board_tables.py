"""The dashboard's tables: columns that leave as the width shrinks, one line a row. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text

from tritonfleet.cli.board_marks import bar
from tritonfleet.cli.board_view import View, chosen
from tritonfleet.cli.layout import Cell
from tritonfleet.cli.render import (
    BROKEN,
    GOOD,
    age,
    clock,
    milliseconds,
    replica_reason,
    short_names,
    state_cell,
)
from tritonfleet.core.board import Board, TrafficRates
from tritonfleet.core.wire import AutoscaleStatus, DeviceInfo, ModelReading, Replica

HEADING = "bold"
LEAST_REASON = 16
_NONE = TrafficRates()


@dataclass(frozen=True, slots=True)
class Column:
    """``rank``: the highest leaves first where there is no room."""

    title: str
    rank: int
    right: bool = True


def fitted(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int, rest: Sequence[str] = ()
) -> list[Text]:
    """Heading and rows. ``rest`` is the last column, the reason: it takes what is left of the width."""
    kept = list(range(len(columns)))
    sizes = [
        max([len(column.title), *(len(row[index].text) for row in rows)])
        for index, column in enumerate(columns)
    ]
    wanted = min(max((len(text) for text in rest), default=0), LEAST_REASON) if rest else 0
    while len(kept) > 1 and sum(sizes[i] + 2 for i in kept) - 2 + (wanted + 2 if wanted else 0) > width:
        kept.remove(max(kept, key=lambda i: columns[i].rank))
    lines: list[Text] = []
    titles = [Cell(column.title, HEADING) for column in columns]
    lasts = ["REASON", *rest] if wanted else [""] * (len(rows) + 1)
    for row, last in zip([titles, *rows], lasts, strict=True):
        line = Text()
        for index in kept:
            text, style = row[index].text, row[index].style
            pad = " " * (sizes[index] - len(text))
            line.append("  " if len(line) else "")
            line.append(pad + text if columns[index].right else text + pad, style)
        if last:
            line.append("  ").append(last, HEADING if not lines else "")
        line.rstrip()
        line.truncate(width, overflow="ellipsis")
        lines.append(line)
    return lines


_REPLICA_COLUMNS = (
    Column(" REPLICA", 0, right=False), Column("POOL", 11, right=False), Column("STATE", 1, right=False),
    Column("DEVICE", 8, right=False), Column("IN-FLIGHT", 3), Column("QUEUE", 9), Column("P50", 7),
    Column("P99", 4), Column("REQ/S", 2), Column("ERR%", 5), Column("RESTARTS", 10), Column("AGE", 6),
)  # fmt: skip


def replicas(board: Board, view: View) -> list[Text]:
    snapshot = board.snapshot
    found = chosen(board, view)
    if not found:
        why = f"no replica has {view.filter!r} in its row" if view.filter else "no replicas"
        return [Text(" REPLICA", HEADING), Text(f" {why}")]
    at = min(view.selected, len(found) - 1) if view.height is not None else -1
    shown = short_names(name for replica in found for name in replica.devices)
    several = len(snapshot.pools) > 1
    columns = [column for column in _REPLICA_COLUMNS if several or column.title != "POOL"]
    rows = []
    for index, replica in enumerate(found):
        cells = _replica(board, replica, shown, marked=index == at)
        rows.append([cell for cell, column in zip(cells, _REPLICA_COLUMNS, strict=True) if column in columns])
    reasons = [replica_reason(replica, snapshot.at) for replica in found]
    lines = fitted(columns, rows, view.width, reasons)
    if at >= 0:
        lines[at + 1].stylize("reverse", 0, len(rows[at][0].text))
    return lines


def _replica(board: Board, replica: Replica, shown: dict[str, str], *, marked: bool) -> list[Cell]:
    rates = board.traffic.replicas.get(replica.id, _NONE) if replica.state.serving else _NONE
    busy = rates.request_rate > 0
    own = [reading for reading in board.snapshot.readings if reading.replica == replica.id]
    in_flight = "?" if replica.in_flight is None else str(replica.in_flight)
    return [
        Cell(("▸" if marked else " ") + replica.id, "bold"),
        Cell(replica.pool),
        state_cell(replica.state),
        Cell(",".join(shown.get(name, name) for name in replica.devices) or "-"),
        Cell(in_flight if replica.state.serving else "-"),
        Cell(_mean(own, "queue_s") if replica.state.serving else "-"),
        Cell(_time(rates.p50_s)),
        Cell(_time(rates.p99_s)),
        Cell(f"{rates.request_rate:.1f}" if replica.state.serving else "-"),
        Cell(f"{rates.error_share * 100:.1f}" if busy else "-", BROKEN if rates.error_rate else ""),
        Cell(str(replica.restarts), BROKEN if replica.restarts else ""),
        Cell(age(board.snapshot.at - replica.started_at) if replica.started_at is not None else "-"),
    ]


def _mean(readings: Sequence[ModelReading], what: str) -> str:
    """Of Triton's times, weighted by requests."""
    requests = sum(reading.request_rate for reading in readings)
    if not requests:
        return "-"
    total: float = sum(getattr(reading, what) * reading.request_rate for reading in readings)
    return milliseconds(total / requests)


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else milliseconds(seconds)


_MODEL_COLUMNS = (
    Column("MODEL", 0, right=False), Column("READY ON", 5), Column("REQ/S", 1), Column("ERR%", 6),
    Column("P50", 7), Column("P99", 2), Column("QUEUE", 3), Column("COMPUTE", 4), Column("BATCH", 8),
    Column("WAITING", 9),
)  # fmt: skip


def models(board: Board, width: int) -> list[Text]:
    """The busiest first: with many, those are what fits."""
    snapshot, traffic = board.snapshot, board.traffic
    names = {model.name for replica in snapshot.replicas for model in replica.models} | traffic.models.keys()
    rows = []
    for name in sorted(names, key=lambda name: (-traffic.models.get(name, _NONE).request_rate, name)):
        rates = traffic.models.get(name, _NONE)
        readings = [reading for reading in snapshot.readings if reading.model == name]
        executions = sum(reading.execution_rate for reading in readings)
        items = sum(reading.inference_rate for reading in readings)
        ready = sum(
            m.name == name and m.ready for r in snapshot.replicas if r.state.serving for m in r.models
        )
        waiting = traffic.waiting_by_model.get(name, 0)
        rows.append(
            [
                Cell(name, "bold"),
                Cell(str(ready), "" if ready else BROKEN),
                Cell(f"{rates.request_rate:.1f}"),
                Cell(
                    f"{rates.error_share * 100:.1f}" if rates.request_rate else "-",
                    BROKEN if rates.error_rate else "",
                ),
                Cell(_time(rates.p50_s)),
                Cell(_time(rates.p99_s)),
                Cell(_mean(readings, "queue_s")),
                Cell(_mean(readings, "compute_s")),
                Cell(f"{items / executions:.1f}" if executions else "-"),
                Cell(str(waiting), BROKEN if waiting else ""),
            ]
        )
    return fitted(_MODEL_COLUMNS, rows, width) if rows else []


_DEVICE_COLUMNS = (
    Column("DEVICE", 0, right=False), Column("NAME", 6, right=False), Column("UTILIZATION", 1, right=False),
    Column("MEMORY", 2), Column("TEMP", 5), Column("POWER", 4), Column("REPLICAS", 3, right=False),
)  # fmt: skip


def devices(board: Board, width: int) -> list[Text]:
    found = board.snapshot.devices
    shown = short_names(device.id for device in found)
    return fitted(_DEVICE_COLUMNS, [_device(device, shown) for device in found], width)


def _device(device: DeviceInfo, shown: dict[str, str]) -> list[Cell]:
    reading = device.reading
    utilization, memory, warm, power = Cell("-"), Cell("-"), "-", "-"
    if reading is not None and reading.trouble:
        utilization = Cell(reading.trouble, BROKEN)
    elif reading is not None:
        if reading.utilization is not None:
            utilization = Cell(f"{bar(reading.utilization, 12)} {reading.utilization:>4.0%}", GOOD)
        if reading.memory_used_bytes is not None and reading.memory_bytes:
            used, there = reading.memory_used_bytes / 2**30, reading.memory_bytes / 2**30
            memory = Cell(f"{used:.1f}/{there:.0f}G", BROKEN if used > 0.95 * there else "")
        warm = "-" if reading.temperature_c is None else f"{reading.temperature_c:.0f}C"
        power = "-" if reading.power_w is None else f"{reading.power_w:.0f}W"
    here = Cell(",".join(device.replicas) or "-")
    if device.set_aside:
        here = Cell(",".join(["set aside", *device.replicas]), BROKEN)
    return [
        Cell(shown.get(device.id, device.id), "bold"), Cell(device.name or device.kind.value), utilization,
        memory, Cell(warm), Cell(power), here,
    ]  # fmt: skip


_POOL_COLUMNS = (
    Column("POOL", 0, right=False), Column("SCALING", 2, right=False), Column("DESIRED", 5),
    Column("TARGET", 3), Column("READY", 1), Column("BOUNDS", 4),
)  # fmt: skip


def autoscaler(board: Board, width: int) -> list[Text]:
    """Desired: what the targets ask for, before bounds; target: the size held; ready: what there is."""
    statuses = {status.pool: status for status in board.autoscale}
    rows, reasons = [], []
    for pool in board.snapshot.pools:
        status = statuses.get(pool.name)
        short = pool.ready < pool.desired
        rows.append(
            [
                Cell(pool.name, "bold"),
                Cell(_mode(status, pool.pinned, board.snapshot.at)),
                Cell("-" if status is None or status.asked is None else str(status.asked)),
                Cell(str(pool.desired)),
                Cell(str(pool.ready), BROKEN if short else GOOD),
                Cell(f"{pool.minimum}..{pool.maximum}"),
            ]
        )
        reasons.append((status.reason if status and status.reason else pool.reason) or "-")
    return fitted(_POOL_COLUMNS, rows, width, reasons) if rows else []


def _mode(status: AutoscaleStatus | None, pinned: bool, now: float) -> str:
    if status is None:
        return "pinned" if pinned else "off"
    if status.pinned_until is not None:
        return f"{status.mode} {age(status.pinned_until - now)}"
    return status.mode


def events(board: Board, count: int, zone: Callable[[float], str] | None = None) -> list[Text]:
    """Oldest first, with the time of day only."""
    of_day = zone or (lambda at: clock(at).partition(" ")[2])
    lines = [Text("LAST EVENTS", HEADING)]
    for event in board.events[-count:]:
        line = Text(of_day(event.at), "dim").append(f"  {event.type:<18}", "")
        lines.append(line.append(f"  {event.subject:<10}", "bold").append(f"  {event.reason}"))
    if len(lines) == 1:
        lines.append(Text("none", "dim"))
    return lines

"""A snapshot → what `ps` shows. Pure: the clock is the snapshot's, the width an argument.

States are a word and a glyph, blue for what serves and orange for what is broken (readable without
telling red from green, and without any colour).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, tzinfo

from rich.text import Text

from tritonfleet.cli.layout import Cell, Column, Row, table, wrapped
from tritonfleet.cli.waiting import is_amiss
from tritonfleet.core.certificates import Validity, described, validity
from tritonfleet.core.wire import (
    DeviceInfo,
    Event,
    FleetSnapshot,
    ModelReading,
    PoolSnapshot,
    Replica,
    ReplicaState,
    RouterInfo,
    WorkerInfo,
)

STALE_S = 15.0  # a reading older than this is marked: the replica does not answer

_GLYPHS = {
    ReplicaState.PENDING: "·",
    ReplicaState.STARTING: "◔",
    ReplicaState.LOADING: "◑",
    ReplicaState.READY: "●",
    ReplicaState.DRAINING: "◐",
    ReplicaState.STOPPING: "○",
    ReplicaState.FAILED: "✗",
    ReplicaState.CRASH_LOOP: "↻",
}
_STYLES = {
    ReplicaState.READY: "bold blue",
    ReplicaState.FAILED: "bold dark_orange",
    ReplicaState.CRASH_LOOP: "bold dark_orange",
    ReplicaState.DRAINING: "dim",
    ReplicaState.STOPPING: "dim",
}
BROKEN = "bold dark_orange"
GOOD = "bold blue"

_POOL_COLUMNS = (
    Column("POOL"),
    Column("DESIRED", right=True),
    Column("READY", right=True),
    Column("STARTING", right=True),
    Column("FAILED", right=True),
    Column("DRAINING", right=True),
    Column("BOUNDS"),
)
_REPLICA_COLUMNS = (
    Column("REPLICA"),
    Column("STATE"),
    Column("DEVICE"),
    Column("ADDRESS"),
    Column("IN-FLIGHT", right=True),
    Column("RESTARTS", right=True),
    Column("AGE", right=True),
)
_DEVICE_COLUMNS = (Column("DEVICE"), Column("STATE"), Column("REPLICAS"))
_WIDE_COLUMNS = (
    Column("GEN", right=True),
    Column("HTTP", right=True),
    Column("METRICS", right=True),
    Column("HANDLE"),
    Column("MODELS"),
)
_READING_COLUMNS = (
    Column("REPLICA"),
    Column("MODEL"),
    Column("VERSION", right=True),
    Column("REQ/S", right=True),
    Column("FAIL/S", right=True),
    Column("BATCH", right=True),
    Column("QUEUE", right=True),
    Column("COMPUTE", right=True),
    Column("REQUESTS", right=True),
    Column("AGE", right=True),
)


def state_cell(state: ReplicaState) -> Cell:
    return Cell(f"{_GLYPHS[state]} {state.value}", _STYLES.get(state, ""))


def duration(seconds: float) -> str:
    """Two units at most: ``850ms``, ``12s``, ``3m05s``, ``2h10m``, ``4d03h``. Negative counts as 0."""
    seconds = max(seconds, 0.0)
    if 0 < seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def milliseconds(seconds: float) -> str:
    """A service time to three figures: ``0.42ms``, ``18.3ms``, ``250ms``, ``1.25s``."""
    value = seconds * 1000
    if value >= 1000:
        return f"{seconds:.2f}s"
    if value >= 100:
        return f"{value:.0f}ms"
    return f"{value:.1f}ms" if value >= 10 else f"{value:.2f}ms"


def age(seconds: float) -> str:
    """Whole seconds: an age in milliseconds is noise in a table."""
    return duration(float(int(max(seconds, 0.0))))


def header(snapshot: FleetSnapshot, width: int | None = None) -> Text:
    """The fleet in one line, or two where one does not fit: name, router; controller, driver."""
    line = Text().append(snapshot.fleet, "bold")
    line.append("  router ").append(snapshot.router.address).append(" ")
    line.append_text(_workers(snapshot.router))
    rest = Text(f"controller pid {snapshot.controller.pid}  driver {snapshot.driver}")
    if snapshot.stopping:
        rest.append("  stopping", BROKEN)
    fits = width is None or len(line) + 2 + len(rest) <= width
    return line.append("  " if fits else "\n" + " " * (len(snapshot.fleet) + 2)).append_text(rest)


def _workers(router: RouterInfo) -> Text:
    wanted = [worker for worker in router.workers if not worker.leaving]
    running, leaving = sum(worker.running for worker in wanted), len(router.workers) - len(wanted)
    rate = sum(worker.request_rate for worker in router.workers if worker.running)
    more = f", {leaving} more finish{'es its' if leaving == 1 else ' their'} calls" if leaving else ""
    text = f"({running} of {len(wanted)} workers{more}, {rate:.1f} req/s)"
    return Text(text, "" if running == len(wanted) else BROKEN)


def ps(snapshot: FleetSnapshot, width: int | None = None, *, wide: bool = False) -> Text:
    """The whole of ``ps``: one line of fleet, pools, replicas, and with ``wide`` Triton's statistics."""
    parts = [header(snapshot, width), pools(snapshot, width)]
    parts[0] = Text("\n").join([parts[0], *complaints(snapshot, width)])
    if any(device.set_aside for device in snapshot.devices):
        parts.append(devices_set_aside(snapshot, width))
    if snapshot.replicas:
        parts.append(replicas(snapshot, width, wide=wide))
    else:
        parts.append(Text("no replicas"))
    if wide and snapshot.readings:
        parts.append(readings(snapshot.readings))
    return Text("\n\n").join(parts)


def complaints(snapshot: FleetSnapshot, width: int | None = None) -> list[Text]:
    """What is wrong with the fleet itself."""
    dead = [one for one in snapshot.router.workers if is_amiss(one)]
    ends = [one for one in snapshot.certificates if validity(one, snapshot.at) is not Validity.GOOD]
    return [
        *(line for worker in dead for line in _dead(worker, width)),
        *(line for one in ends for line in wrapped(Text(), described(one, snapshot.at), width, BROKEN)),
    ]


def _dead(worker: WorkerInfo, width: int | None) -> list[Text]:
    head = Text(f"router worker {worker.index}: ", BROKEN)
    return wrapped(head, worker.reason or "not running", width, BROKEN)


def pools(snapshot: FleetSnapshot, width: int | None = None) -> Text:
    return table(_POOL_COLUMNS, [_pool_row(pool) for pool in snapshot.pools], width)


def _pool_row(pool: PoolSnapshot) -> Row:
    enough = pool.ready >= pool.desired
    return Row(
        (
            Cell(pool.name, "bold"),
            Cell(str(pool.desired)),
            Cell(str(pool.ready), GOOD if enough else ""),
            Cell(str(pool.starting)),
            Cell(str(pool.failed), BROKEN if pool.failed else ""),
            Cell(str(pool.draining)),
            Cell(f"{pool.minimum}..{pool.maximum}{' pinned' if pool.pinned else ''}"),
        ),
        pool.reason,
    )


def replicas(snapshot: FleetSnapshot, width: int | None = None, *, wide: bool = False) -> Text:
    columns = (*_REPLICA_COLUMNS, *_WIDE_COLUMNS) if wide else _REPLICA_COLUMNS
    shown = {} if wide else short_names(device.id for device in snapshot.devices)
    rows = [_replica_row(replica, snapshot.at, shown, wide=wide) for replica in snapshot.replicas]
    return table(columns, rows, width)


def short_names(devices: Iterable[str]) -> dict[str, str]:
    """UUIDs up to their first block, ``GPU-1a2b3c4d``, where that names one device only; the rest as it is.
    `describe device/…` takes both."""
    short = {name: "-".join(name.split("-")[:2]) for name in devices}
    used = Counter(short.values())
    return {name: brief if used[brief] == 1 else name for name, brief in short.items()}


def _replica_row(replica: Replica, now: float, shown: Mapping[str, str], *, wide: bool) -> Row:
    cells = [
        Cell(replica.id, "bold"),
        state_cell(replica.state),
        Cell(",".join(shown.get(name, name) for name in replica.devices) or "-"),
        Cell(f"{replica.host}:{replica.grpc_port}" if replica.grpc_port else "-"),
        Cell(_in_flight(replica)),
        Cell(str(replica.restarts), BROKEN if replica.restarts else ""),
        Cell(age(now - replica.started_at) if replica.started_at is not None else "-"),
    ]
    if wide:
        cells += [
            Cell(str(replica.generation)),
            Cell(str(replica.http_port or "-")),
            Cell(str(replica.metrics_port or "-")),
            Cell(replica.handle or "-"),
            Cell(",".join(m.name if m.ready else f"{m.name}(not ready)" for m in replica.models) or "-"),
        ]
    return Row(tuple(cells), replica_reason(replica, now))


def devices_set_aside(snapshot: FleetSnapshot, width: int | None = None) -> Text:
    shown = short_names(device.id for device in snapshot.devices)
    rows = [
        Row(
            (
                Cell(shown[device.id], "bold"),
                Cell("✗ set aside", BROKEN),
                Cell(",".join(device.replicas) or "-"),
            ),
            device_trouble(device, snapshot.at),
        )
        for device in snapshot.devices
        if device.set_aside
    ]
    return table(_DEVICE_COLUMNS, rows, width)


def device_trouble(device: DeviceInfo, now: float) -> str:
    """Why nothing is placed there, and what ends that."""
    by_hand = f"`tritonfleet undrain device/{device.id}` brings it back"
    if device.set_aside_until is None:
        return f"{device.set_aside}; {by_hand}"
    return f"{device.set_aside}; back in {age(device.set_aside_until - now)}, or {by_hand}"


def replica_reason(replica: Replica, now: float) -> str:
    """The recorded reason, with the time left where something is awaited."""
    if replica.state in (ReplicaState.FAILED, ReplicaState.CRASH_LOOP) and replica.retry_at is not None:
        left = replica.retry_at - now
        return f"{replica.reason}; next start {f'in {age(left)}' if left >= 1 else 'now'}"
    if replica.state is ReplicaState.DRAINING and replica.drain_deadline is not None:
        return f"{replica.reason}; at most {age(replica.drain_deadline - now)} more"
    return replica.reason


def _in_flight(replica: Replica) -> str:
    if not replica.state.serving:
        return "-"
    return "?" if replica.in_flight is None else str(replica.in_flight)


def readings(values: tuple[ModelReading, ...]) -> Text:
    """Triton's own statistics, one line per model and replica; a stale one is marked by its age."""
    rows = []
    for reading in values:
        batch = reading.inference_rate / reading.execution_rate if reading.execution_rate else 0.0
        busy = reading.request_rate > 0
        rows.append(
            Row(
                (
                    Cell(reading.replica),
                    Cell(reading.model),
                    Cell(reading.version),
                    Cell(f"{reading.request_rate:.1f}"),
                    Cell(f"{reading.failure_rate:.1f}", BROKEN if reading.failure_rate else ""),
                    Cell(f"{batch:.1f}" if batch else "-"),
                    Cell(milliseconds(reading.queue_s) if busy else "-"),
                    Cell(milliseconds(reading.compute_s) if busy else "-"),
                    Cell(str(reading.requests_total)),
                    Cell(age(reading.age_s), BROKEN if reading.age_s > STALE_S else ""),
                )
            )
        )
    return table(_READING_COLUMNS, rows, None, reason="")


def clock(at: float, zone: tzinfo | None = None) -> str:
    """``2026-11-24 02:03:27`` in ``zone`` (None: this machine's)."""
    return datetime.fromtimestamp(at, UTC).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def event_line(event: Event, zone: tzinfo | None = None) -> Text:
    """One journal line; never wrapped here, so that it greps."""
    kind = event.type.rpartition(".")[2]
    style = (
        BROKEN
        if kind in ("exited", "failed", "crash_loop", "unhealthy", "error", "cannot_listen", "set_aside")
        else ""
    )
    line = Text().append(clock(event.at, zone), "dim")
    line.append(f"  {event.type:<20}", style)
    return line.append(f"  {event.subject:<12}", "bold").append(f"  {event.reason}")

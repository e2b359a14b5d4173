"""One replica, pool or device in full: state, settings, last events, last log lines. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import tzinfo

from rich.text import Text

from tritonfleet.cli.describe_launch import launch_text, launch_title
from tritonfleet.cli.layout import Cell, fields
from tritonfleet.cli.render import (
    BROKEN,
    age,
    clock,
    device_trouble,
    event_line,
    readings,
    replica_reason,
    replicas,
    state_cell,
)
from tritonfleet.core.launched import Launched
from tritonfleet.core.wire import DeviceInfo, DeviceReading, Event, FleetSnapshot, PoolSnapshot, Replica


def describe_replica(
    snapshot: FleetSnapshot,
    replica: Replica,
    events: Sequence[Event],
    log: Sequence[str],
    log_path: str,
    width: int | None = None,
    zone: tzinfo | None = None,
    launched: Launched | None = None,
) -> Text:
    now = snapshot.at
    cold_start = snapshot.cold_starts_s.get(replica.id)
    pairs: list[tuple[str, str | Cell]] = [
        ("Replica", Cell(replica.id, "bold")),
        ("Instance", f"{replica.instance} (launch {replica.generation} of this slot)"),
        ("Pool", replica.pool),
        ("State", state_cell(replica.state)),
        ("Since", f"{clock(replica.since, zone)} ({age(now - replica.since)} ago)"),
        ("Reason", replica_reason(replica, now)),
        ("Devices", ", ".join(replica.devices) or "none yet"),
        ("Handle", replica.handle or "no process"),
        (
            "gRPC",
            f"{replica.host}:{replica.grpc_port}{', by TLS' * replica.tls}" if replica.grpc_port else "-",
        ),
        ("HTTP", f"{replica.host}:{replica.http_port}" if replica.http_port else "-"),
        ("Metrics", f"{replica.host}:{replica.metrics_port}" if replica.metrics_port else "-"),
        ("In flight", _in_flight(replica)),
        ("Restarts", str(replica.restarts)),
        ("Cold start", _cold_start(cold_start)),
        ("Config hash", replica.config_hash),
    ]
    for model in replica.models:
        versions = f" (version {', '.join(model.versions)})" if model.versions else ""
        missing = f"not ready: {model.reason}" if model.reason else "not loaded"
        ready = f"ready{versions}" if model.ready else missing
        pairs.append((f"Model {model.name}", ready))
    parts = [fields(pairs, width), *_launch(launched, width)]
    mine = tuple(reading for reading in snapshot.readings if reading.replica == replica.id)
    if mine:
        parts.append(_titled("Statistics (Triton's own)", readings(mine)))
    parts.append(_events(events, zone))
    shown = Text("\n").join(Text(line) for line in log) if log else Text("nothing logged yet")
    parts.append(_titled(f"Last log lines ({log_path})", shown))
    return Text("\n\n").join(parts)


def describe_pool(
    snapshot: FleetSnapshot,
    pool: PoolSnapshot,
    events: Sequence[Event],
    width: int | None = None,
    zone: tzinfo | None = None,
    launched: Launched | None = None,
) -> Text:
    pinned = ", pinned by `scale`" if pool.pinned else ", set by load" if pool.autoscaled else ""
    if pool.pinned and pool.pinned_until is not None:
        pinned += f" for {age(pool.pinned_until - snapshot.at)} more"
    pairs: list[tuple[str, str | Cell]] = [
        ("Pool", Cell(pool.name, "bold")),
        (
            "Size",
            f"{pool.desired} desired{pinned}, {pool.ready} ready; bounds {pool.minimum}..{pool.maximum}",
        ),
        ("Reason", pool.reason),
        ("Repository", pool.model_repository),
        ("Cold start", _cold_start(pool.cold_start_s)),
        ("Config hash", pool.config_hash),
    ]
    parts = [fields(pairs, width)]
    if launched is not None:
        parts.append(_titled("What its replicas are launched with", launch_text(launched, width)))
    if any(replica.pool == pool.name for replica in snapshot.replicas):
        parts.append(replicas(_only(snapshot, pool=pool.name), width))
    parts.append(_events(events, zone))
    return Text("\n\n").join(parts)


def describe_device(
    snapshot: FleetSnapshot,
    device: DeviceInfo,
    events: Sequence[Event] = (),
    width: int | None = None,
    zone: tzinfo | None = None,
) -> Text:
    memory = f"{device.memory_bytes / 2**30:.1f} GiB" if device.memory_bytes else "unknown"
    pairs: list[tuple[str, str | Cell]] = [
        ("Device", Cell(device.id, "bold")),
        ("Kind", device.kind.value),
        ("Name", device.name or "-"),
        ("Memory", memory),
        *_device_health(device, snapshot.at),
        *_device_reading(device.reading, snapshot.at),
    ]
    here = _only(snapshot, device=device.id)
    shown = replicas(here, width) if here.replicas else Text("no replicas here")
    return Text("\n\n").join([fields(pairs, width), shown, *([_events(events, zone)] if events else [])])


def _device_health(device: DeviceInfo, now: float) -> list[tuple[str, str | Cell]]:
    pairs: list[tuple[str, str | Cell]] = []
    if device.failures:
        pairs.append(("Failures", f"{device.failures} launches ended badly here lately"))
    if device.set_aside:
        pairs.append(("Set aside", Cell(device_trouble(device, now), BROKEN)))
    return pairs


def _device_reading(reading: DeviceReading | None, now: float) -> list[tuple[str, str | Cell]]:
    """What NVML says; nothing for a device that it does not know."""
    if reading is None:
        return []
    if reading.trouble:
        return [("Reading", Cell(f"none: {reading.trouble}", BROKEN))]
    pairs: list[tuple[str, str | Cell]] = []
    if reading.free_bytes is not None and reading.memory_used_bytes is not None:
        used, free = reading.memory_used_bytes / 2**30, reading.free_bytes / 2**30
        pairs.append(("Memory used", f"{used:.1f} GiB, {free:.1f} GiB free"))
    if reading.utilization is not None:
        pairs.append(("Utilization", f"{reading.utilization:.0%}"))
    if reading.temperature_c is not None:
        pairs.append(("Temperature", f"{reading.temperature_c:.0f} °C"))
    if reading.power_w is not None:
        pairs.append(("Power", f"{reading.power_w:.0f} W"))
    if reading.ecc_errors is not None:
        errors = f"{reading.ecc_errors} uncorrected"
        pairs.append(("ECC errors", Cell(errors, BROKEN if reading.ecc_errors else "")))
    return [*pairs, ("Read", f"{age(now - reading.at)} ago")]


def _launch(launched: Launched | None, width: int | None) -> list[Text]:
    return [] if launched is None else [_titled(launch_title(launched), launch_text(launched, width))]


def _in_flight(replica: Replica) -> str:
    if not replica.state.serving:
        return f"none: {replica.state} replicas get no requests"
    return "unknown: no router has reported lately" if replica.in_flight is None else str(replica.in_flight)


def _cold_start(seconds: float | None) -> str:
    return "not measured yet" if seconds is None else f"{seconds:.1f} s from launch to ready"


def _only(snapshot: FleetSnapshot, *, pool: str | None = None, device: str | None = None) -> FleetSnapshot:
    kept = tuple(
        replica
        for replica in snapshot.replicas
        if (pool is None or replica.pool == pool) and (device is None or device in replica.devices)
    )
    return replace(snapshot, replicas=kept)


def _events(events: Sequence[Event], zone: tzinfo | None) -> Text:
    shown = Text("\n").join(event_line(event, zone) for event in events) if events else Text("none")
    return _titled("Last events", shown)


def _titled(title: str, body: Text) -> Text:
    return Text().append(title, "bold").append("\n").append_text(body)

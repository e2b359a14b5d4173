"""The fleet as Prometheus metrics: a pure function from its state to families, and their text.

Everything is in seconds, bytes and ratios from 0 to 1. Series of a replica are there while its slot is. The
table in docs/metrics.md says what each metric means.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from tritonfleet.controller.traffic import Traffic, replica_of
from tritonfleet.core.answers import status_name
from tritonfleet.core.histogram import Histogram, edges_of
from tritonfleet.core.model import ReplicaState
from tritonfleet.core.wire import AutoscaleStatus, FleetSnapshot, RouterTelemetry

PREFIX = "tritonfleet_"

# Upper edges in µs that are edges of `core.histogram` too, so that no count is split: 256 µs, 384 µs … 50 s.
BUCKETS_US = tuple(edge for power in range(8, 26) for edge in (1 << power, 3 << (power - 1)))

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class MetricsState:
    """All that is exported. ``reports``: the newest of each running router worker; ``decisions``: how often
    autoscaling decided, by (pool, direction); ``unanswered``: by replica, scrapes it did not answer."""

    snapshot: FleetSnapshot
    traffic: Traffic
    autoscale: tuple[AutoscaleStatus, ...] = ()
    reports: tuple[RouterTelemetry, ...] = ()
    decisions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    unanswered: Mapping[str, int] = field(default_factory=dict)


def families(state: MetricsState) -> Iterator[Metric]:
    """Every family, those without a sample too."""
    yield from _calls(state)
    yield from _gauges_of_routers(state)
    yield from _replicas(state)
    yield from _autoscaler(state)
    yield from _devices(state)
    yield _certificates(state)


def exposition(state: MetricsState) -> bytes:
    """The text format that Prometheus reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(families(state)))
    return generate_latest(registry)


class _Once(Collector):
    """What `generate_latest` takes."""

    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        return self._found


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, text, labels=labels)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, labels=labels)


def buckets(latency: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts by upper edge in seconds, ``+Inf`` last."""
    counted = sorted((round(edges_of(bucket)[1] * 1e6), count) for bucket, count in latency.counts.items())
    found: list[tuple[str, float]] = []
    total, index = 0, 0
    for edge in BUCKETS_US:
        while index < len(counted) and counted[index][0] <= edge:
            total += counted[index][1]
            index += 1
        found.append((f"{edge / 1e6:g}" if edge < 1_000_000 else str(edge / 1e6), total))
    return [*found, ("+Inf", latency.count)]


def _calls(state: MetricsState) -> Iterator[Metric]:
    alive = {replica.id for replica in state.snapshot.replicas}
    traffic = state.traffic
    finished = _counter("requests", "Calls that a replica ended.", "model", "replica", "grpc_code")
    duration = HistogramMetricFamily(
        PREFIX + "request_duration_seconds",
        "Unary calls, from their dispatch to a replica to the end of the answer.",
        labels=("model", "replica"),
    )
    for (replica, model), totals in sorted(traffic.calls.items()):
        if replica in alive:
            for code, count in sorted(totals.codes.items()):
                finished.add_metric((model, replica, status_name(int(code))), count)
            duration.add_metric((model, replica), buckets(totals.latency), totals.latency.sum_s)
    accepted = _counter("requests_accepted", "Calls that routers accepted from clients.")
    accepted.add_metric((), traffic.requests)
    refused = _counter("requests_refused", "Calls that routers answered without a replica.", "grpc_code")
    for code, count in sorted(traffic.refused.items()):
        if code or count:
            refused.add_metric((status_name(int(code)) if code else "HTTP",), count)
    retries = _counter("retries", "Calls that were sent to another replica.")
    retries.add_metric((), traffic.retries)
    denied = _counter("retries_denied", "Calls that were not sent again for want of budget.")
    denied.add_metric((), traffic.retries_denied)
    panics = _counter("panics", "Times that ejected replicas were used, since too few others were left.")
    panics.add_metric((), traffic.panics)
    slow_starts = _counter(
        "slow_starts", "Times that a replica was given less for its first seconds.", "replica"
    )
    for replica, count in sorted(traffic.slow_starts.items()):
        if replica in alive:
            slow_starts.add_metric((replica,), count)
    ejections = _counter("ejections", "Times that a router left a replica out for a while.", "replica")
    queue = SummaryMetricFamily(
        PREFIX + "replica_queue_time_seconds",
        "Time of requests in Triton's queue.",
        labels=("model", "replica"),
    )
    compute = SummaryMetricFamily(
        PREFIX + "replica_compute_time_seconds",
        "Time of requests in Triton's input, inference and output.",
        labels=("model", "replica"),
    )
    for replica, count in sorted(traffic.ejections.items()):
        if replica in alive:
            ejections.add_metric((replica,), count)
    for (replica, model), times in sorted(traffic.times.items()):
        if replica in alive:
            queue.add_metric((model, replica), times.requests, times.queue_s)
            compute.add_metric((model, replica), times.requests, times.compute_s)
    wait = HistogramMetricFamily(
        PREFIX + "request_wait_seconds", "Requests that waited in a router for a replica.", labels=("model",)
    )
    for model, waited in sorted(traffic.waits.items()):
        wait.add_metric((model,), buckets(waited), waited.sum_s)
    yield from (finished, duration, wait, accepted, refused, retries, denied)
    yield from (ejections, panics, slow_starts, queue, compute)


def _gauges_of_routers(state: MetricsState) -> Iterator[Metric]:
    alive = {replica.id for replica in state.snapshot.replicas}
    flying: dict[tuple[str, str], int] = {}
    waiting: dict[str, int] = {}
    paces: dict[str, float] = {}
    streams: dict[str, int] = {}
    for report in state.reports:
        for row in report.replicas:
            if (replica := replica_of(row.instance)) in alive and row.connections:
                paces[replica] = max(row.pace, paces.get(replica, 0.0))
                streams[replica] = streams.get(replica, 0) + row.streams
        for call in report.calls:
            if (replica := replica_of(call.instance)) in alive:
                flying[call.model, replica] = flying.get((call.model, replica), 0) + call.in_flight
        for model, count in report.waiting_by_model.items():
            waiting[model] = waiting.get(model, 0) + count
    in_flight = _gauge(
        "requests_in_flight", "Requests sent to a replica and not answered in full.", "model", "replica"
    )
    for labels, count in sorted(flying.items()):
        in_flight.add_metric(labels, count)
    pace = _gauge("replica_pace", "Seconds it is taken to need for each that is expected.", "replica")
    for replica, value in sorted(paces.items()):
        pace.add_metric((replica,), value)
    opened = _gauge("streams_open", "Streams of inferences that have not ended.", "replica")
    for replica, count in sorted(streams.items()):
        opened.add_metric((replica,), count)
    queued = _gauge("requests_queued", "Requests that wait in the routers.", "model")
    for model in sorted({*waiting, *(model for model, _ in flying if model)}):
        queued.add_metric((model,), waiting.get(model, 0))
    age = _gauge("telemetry_age_seconds", "Since the last report of a router worker.", "worker")
    clients = _gauge("client_connections", "Connections of clients.", "worker")
    for worker in state.snapshot.router.workers:
        if worker.telemetry_age_s is not None:
            age.add_metric((str(worker.index),), worker.telemetry_age_s)
            clients.add_metric((str(worker.index),), worker.client_connections)
    yield from (in_flight, opened, queued, pace, age, clients)


def _replicas(state: MetricsState) -> Iterator[Metric]:
    snapshot = state.snapshot
    count = _gauge("replicas", "Replicas by state.", "pool", "state")
    for pool in snapshot.pools:
        states = [replica.state for replica in snapshot.replicas if replica.pool == pool.name]
        for one in ReplicaState:
            count.add_metric((pool.name, one.value), states.count(one))
    cold = _gauge("cold_start_seconds", "The last time from launch to ready.", "replica")
    for replica, seconds in sorted(snapshot.cold_starts_s.items()):
        cold.add_metric((replica,), seconds)
    unanswered = _counter(
        "replica_scrapes_unanswered", "Scrapes that left a replica out, because it did not answer.", "replica"
    )
    for replica, times in sorted(state.unanswered.items()):
        if any(one.id == replica for one in snapshot.replicas):
            unanswered.add_metric((replica,), times)
    yield from (count, cold, unanswered)


def _autoscaler(state: MetricsState) -> Iterator[Metric]:
    desired = _gauge("autoscaler_desired_replicas", "What the load asks for, before bounds.", "pool")
    target = _gauge("autoscaler_target_replicas", "The size in force.", "pool")
    actual = _gauge("autoscaler_actual_replicas", "Replicas that are ready.", "pool")
    for status in state.autoscale:
        if status.asked is not None:
            desired.add_metric((status.pool,), status.asked)
    for pool in state.snapshot.pools:
        target.add_metric((pool.name,), pool.desired)
        actual.add_metric((pool.name,), pool.ready)
    decisions = _counter("autoscaler_decisions", "Decisions: up, down or hold.", "pool", "direction")
    for labels, count in sorted(state.decisions.items()):
        decisions.add_metric(labels, count)
    yield from (desired, target, actual, decisions)


def _devices(state: MetricsState) -> Iterator[Metric]:
    busy = _gauge("device_utilization_ratio", "The share of the time that a kernel ran.", "device")
    used = _gauge("device_memory_used_bytes", "Memory in use, by whomever.", "device")
    total = _gauge("device_memory_bytes", "Memory in all.", "device")
    aside = _gauge("device_set_aside", "1: no replica is placed there.", "device")
    heat = _gauge("device_temperature_celsius", "Temperature of the GPU.", "device")
    power = _gauge("device_power_watts", "Power that the GPU draws.", "device")
    errors = _counter("device_ecc_errors", "Uncorrected memory errors since the driver was loaded.", "device")
    for device in state.snapshot.devices:
        aside.add_metric((device.id,), 1 if device.set_aside else 0)
        reading = device.reading
        if reading is None:
            continue
        for family, value in (
            (busy, reading.utilization),
            (used, reading.memory_used_bytes),
            (total, reading.memory_bytes),
            (heat, reading.temperature_c),
            (power, reading.power_w),
            (errors, reading.ecc_errors),
        ):
            if value is not None:
                family.add_metric((device.id,), value)
    yield from (busy, used, total, aside, heat, power, errors)


def _certificates(state: MetricsState) -> Metric:
    ends = _gauge("certificate_expiry_timestamp_seconds", "When a certificate expires.", "use")
    for found in state.snapshot.certificates:
        if not found.error:
            ends.add_metric((found.use,), found.ends_at)
    return ends


_SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("_count", "_sum"),
}


def sample_names(found: Iterable[Metric]) -> frozenset[str]:
    """The names that queries use."""
    return frozenset(family.name + suffix for family in found for suffix in _SUFFIXES.get(family.type, ("",)))

"""What the routers and the replicas have counted, summed so that it only grows.

A worker counts from zero when it is started again, and so does a Triton when its model is loaded again; what
one had counted before stays in the sums here. They are by replica (slot), not by launch, so a replica that
was restarted goes on with its series. They begin with the controller: what live workers and replicas had
counted before is in their first report.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tritonfleet.core.histogram import Histogram
from tritonfleet.core.stats import ModelCounters
from tritonfleet.core.wire import CallTelemetry, RouterTelemetry
from tritonfleet.core.wire_routers import Process

MOST_PROCESSES = 256  # of router workers that are remembered: 64 run at most, and as many finish their calls

ReplicaModel = tuple[str, str]


@dataclass(slots=True)
class CallTotals:
    """Finished calls by gRPC status number as text, and how long unary ones took."""

    codes: dict[str, int] = field(default_factory=dict)
    latency: Histogram = field(default_factory=Histogram)


@dataclass(slots=True)
class TimeTotals:
    """Requests that Triton executed, and the seconds they spent in its queue and in computing."""

    requests: int = 0
    queue_s: float = 0.0
    compute_s: float = 0.0


@dataclass(slots=True)
class Traffic:
    """Fed by every report; read by the metrics."""

    calls: dict[ReplicaModel, CallTotals] = field(default_factory=dict)
    times: dict[ReplicaModel, TimeTotals] = field(default_factory=dict)
    ejections: dict[str, int] = field(default_factory=dict)  # by replica
    slow_starts: dict[str, int] = field(default_factory=dict)  # by replica
    requests: int = 0
    refused: dict[str, int] = field(default_factory=dict)  # by gRPC status as text; "": answered in HTTP
    retries: int = 0
    retries_denied: int = 0
    panics: int = 0
    waits: dict[str, Histogram] = field(default_factory=dict)  # by model
    _reports: dict[Process, RouterTelemetry] = field(default_factory=dict)
    _readings: dict[tuple[str, str, str], ModelCounters] = field(default_factory=dict)

    def take(self, report: RouterTelemetry) -> None:
        """A worker's report; those of one worker in their order."""
        before = self._reports.pop(report.process, None)  # None: another process, which counts from zero
        self._reports[report.process] = report
        if len(self._reports) > MOST_PROCESSES:
            del self._reports[next(iter(self._reports))]  # who has been silent for longest
        self.requests += report.requests_total - (before.requests_total if before else 0)
        self.retries += report.retries_total - (before.retries_total if before else 0)
        self.retries_denied += report.retries_denied_total - (before.retries_denied_total if before else 0)
        self.panics += report.panics_total - (before.panics_total if before else 0)
        for model, (counts, sum_s) in report.waits.items():
            counted, counted_s = before.waits.get(model, ({}, 0.0)) if before else ({}, 0.0)
            self.waits.setdefault(model, Histogram()).merge([_new(counted, counted_s, counts, sum_s)])
        refused = _refused(before) if before else {}
        for status, count in _refused(report).items():
            self.refused[status] = self.refused.get(status, 0) + count - refused.get(status, 0)
        earlier_rows = {row.instance: row for row in before.replicas} if before else {}
        for row in report.replicas:
            replica, known = replica_of(row.instance), earlier_rows.get(row.instance)
            for totals, was, now in (
                (self.ejections, known.ejections if known else 0, row.ejections),
                (self.slow_starts, known.slow_starts if known else 0, row.slow_starts),
            ):
                totals[replica] = totals.get(replica, 0) + _grown(was, now)
        earlier = {(call.instance, call.model): call for call in before.calls} if before else {}
        for call in report.calls:
            self._add(earlier.get((call.instance, call.model)), call)

    def _add(self, before: CallTelemetry | None, after: CallTelemetry) -> None:
        totals = self.calls.setdefault((replica_of(after.instance), after.model), CallTotals())
        for code, count in after.codes.items():
            grown = _grown(before.codes.get(code, 0) if before else 0, count)
            totals.codes[code] = totals.codes.get(code, 0) + grown
        if before is not None and before.latency == after.latency:
            return
        known, known_s = (before.latency, before.latency_sum_s) if before else ({}, 0.0)
        totals.latency.merge([_new(known, known_s, after.latency, after.latency_sum_s)])

    def count(self, instance: str, reading: Iterable[ModelCounters]) -> None:
        """A replica's statistics; those of one instance in their order."""
        replica = replica_of(instance)
        for after in reading:
            key = (instance, after.model, after.version)
            before = self._readings.get(key)
            self._readings[key] = after
            if before is not None and after.success_count < before.success_count:
                before = None  # loaded again
            totals = self.times.setdefault((replica, after.model), TimeTotals())
            totals.requests += after.success_count - (before.success_count if before else 0)
            totals.queue_s += max(0, after.queue_ns - (before.queue_ns if before else 0)) / 1e9
            totals.compute_s += max(0, _compute_ns(after) - (_compute_ns(before) if before else 0)) / 1e9

    def settle(self, alive: Iterable[str]) -> None:
        """Instances that are not ``alive`` have ended and will say nothing more: their sums stay."""
        living = set(alive)
        for key in [key for key in self._readings if key[0] not in living]:
            del self._readings[key]


def replica_of(instance: str) -> str:
    """``main-0.3`` → ``main-0``."""
    return instance.rpartition(".")[0]


def _new(known: Mapping[str, int], known_s: float, counts: Mapping[str, int], sum_s: float) -> Histogram:
    """What was recorded since an earlier report."""
    grown = {bucket: _grown(known.get(bucket, 0), count) for bucket, count in counts.items()}
    return Histogram.from_sparse(grown, max(0.0, sum_s - known_s))


def _refused(report: RouterTelemetry) -> dict[str, int]:
    by_status = report.refused_by_status
    return {"": report.refused_total - sum(by_status.values()), **by_status}


def _grown(before: int, after: int) -> int:
    """Since the last report; a smaller number was counted from zero."""
    return after - before if after >= before else after


def _compute_ns(counters: ModelCounters) -> int:
    return counters.compute_input_ns + counters.compute_infer_ns + counters.compute_output_ns

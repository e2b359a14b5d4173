"""The traffic of the last minutes, from the routers' counters: so that a dashboard opened now shows the past.

Counters are cumulative and belong to a worker process and a launch of a replica. A sample holds all of them;
rates are differences of two samples. A series that began in between counts from zero; of a worker that is
older than a sample and is heard for the first time, nothing counts that it had counted until then.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tritonfleet.core.board import Traffic, TrafficPoint, TrafficRates
from tritonfleet.core.histogram import Histogram
from tritonfleet.core.wire import CallTelemetry, RouterTelemetry
from tritonfleet.core.wire_routers import Process
from tritonfleet.drivers.clock import steady_time as time

if TYPE_CHECKING:
    from tritonfleet.controller.fleet import Fleet

STEP_S = 2.0
POINTS = 150  # five minutes
WINDOW_STEPS = 5  # the rates of replicas and models are those of the last ten seconds

Series = tuple[Process, str, str]  # whose counters, instance, model


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    calls: dict[Series, CallTelemetry]
    refused: dict[Process, int]  # answered by the router itself


@dataclass(slots=True)
class _Grown:
    """What ended between two samples."""

    finished: int = 0
    failed: int = 0
    latency: Histogram = field(default_factory=Histogram)

    def add(self, before: CallTelemetry | None, after: CallTelemetry) -> None:
        for code, count in after.codes.items():
            grown = count - (before.codes.get(code, 0) if before else 0)
            self.finished += grown
            self.failed += grown if code != "0" else 0
        known = before.latency if before else {}
        grown_latency = {key: count - known.get(key, 0) for key, count in after.latency.items()}
        sum_s = after.latency_sum_s - (before.latency_sum_s if before else 0.0)
        self.latency.merge([Histogram.from_sparse(grown_latency, sum_s)])

    def rates(self, elapsed: float) -> TrafficRates:
        return TrafficRates(
            self.finished / elapsed,
            self.failed / elapsed,
            self.latency.quantile(0.5),
            self.latency.quantile(0.99),
            elapsed,
        )


class TrafficHistory:
    """`take` once every `STEP_S`; `traffic` is what the dashboard gets."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=WINDOW_STEPS + 1)
        self._points: deque[TrafficPoint] = deque(maxlen=POINTS)

    async def run(self, fleet: "Fleet") -> None:
        """Until cancelled."""
        while True:
            self.take(reports_of(fleet), time())
            await asyncio.sleep(STEP_S)

    def take(self, reports: Iterable[RouterTelemetry], now: float) -> None:
        sample = _Sample(now, {}, {})
        for report in reports:
            _add(sample, report)
            if self._samples and report.started_at < self._samples[-1].at:
                for earlier in self._samples:
                    if report.process not in earlier.refused:
                        _add(earlier, report)
        if self._samples and now > self._samples[-1].at:
            total = _between(self._samples[-1], sample).rates(now - self._samples[-1].at)
            self._points.append(
                TrafficPoint(now, total.request_rate, total.error_rate, total.p50_s, total.p99_s)
            )
        self._samples.append(sample)

    def traffic(self, reports: Iterable[RouterTelemetry]) -> Traffic:
        waiting, by_model = 0, dict[str, int]()
        for report in reports:
            waiting += report.waiting
            for model, count in report.waiting_by_model.items():
                by_model[model] = by_model.get(model, 0) + count
        points = tuple(self._points)
        if len(self._samples) < 2:
            return Traffic(STEP_S, points, waiting=waiting, waiting_by_model=by_model)
        first, last = self._samples[0], self._samples[-1]
        elapsed = last.at - first.at
        replicas: dict[str, _Grown] = {}
        models: dict[str, _Grown] = {}
        for series, after in last.calls.items():
            before = first.calls.get(series)
            replicas.setdefault(series[1].rpartition(".")[0], _Grown()).add(before, after)
            if series[2]:
                models.setdefault(series[2], _Grown()).add(before, after)
        return Traffic(
            STEP_S,
            points,
            _between(first, last).rates(elapsed),
            {name: grown.rates(elapsed) for name, grown in replicas.items()},
            {name: grown.rates(elapsed) for name, grown in models.items()},
            waiting,
            by_model,
        )


def _add(sample: _Sample, report: RouterTelemetry) -> None:
    sample.refused[report.process] = report.refused_total
    for call in report.calls:
        sample.calls[report.process, call.instance, call.model] = call


def _between(first: _Sample, last: _Sample) -> _Grown:
    grown = _Grown()
    for series, after in last.calls.items():
        grown.add(first.calls.get(series), after)
    for worker, count in last.refused.items():
        refused = count - first.refused.get(worker, 0)
        grown.finished += refused
        grown.failed += refused
    return grown


def reports_of(fleet: "Fleet") -> Iterator[RouterTelemetry]:
    """The newest report of every worker that runs."""
    for worker in fleet.workers.running:
        report = fleet.telemetry.of(worker)
        if report is not None:
            yield report

"""What the router workers report, and what follows from it: in flight, drained, their rates."""

from collections.abc import Iterable
from dataclasses import dataclass

from tritonfleet.core.wire import RouterTelemetry

FRESH_S = 3.0  # workers report every second at least


@dataclass(slots=True)
class _Reported:
    at: float
    report: RouterTelemetry
    request_rate: float = 0.0


class Telemetry:
    """The newest report of every worker, by the number that the fleet gives it: most often its index."""

    def __init__(self) -> None:
        self._workers: dict[int, _Reported] = {}

    def take(self, report: RouterTelemetry, now: float, number: int | None = None) -> None:
        number = report.worker if number is None else number
        before = self._workers.get(number)
        rate = 0.0
        if before is not None and before.report.process == report.process and now > before.at:
            grown = report.requests_total - before.report.requests_total
            rate = grown / (now - before.at)
            if now - before.at < 1.0:  # smooth over the quarter seconds of a busy worker
                rate = 0.7 * before.request_rate + 0.3 * rate
        self._workers[number] = _Reported(now, report, rate)

    def forget(self, worker: int) -> None:
        """Its process has ended: its numbers mean nothing any more."""
        self._workers.pop(worker, None)

    def rename(self, worker: int, to: int) -> None:
        """It has another number from now on."""
        if worker in self._workers:
            self._workers[to] = self._workers.pop(worker)

    def of(self, worker: int) -> RouterTelemetry | None:
        found = self._workers.get(worker)
        return found.report if found else None

    def all_of(self, workers: Iterable[int]) -> list[RouterTelemetry]:
        """The newest reports of those of ``workers`` that have reported."""
        return [report for worker in workers if (report := self.of(worker)) is not None]

    def age_s(self, worker: int, now: float) -> float | None:
        found = self._workers.get(worker)
        return now - found.at if found else None

    def request_rate(self, worker: int, now: float) -> float:
        found = self._workers.get(worker)
        return found.request_rate if found and now - found.at < FRESH_S else 0.0

    def in_flight(self, instance: str, workers: Iterable[int], now: float) -> int | None:
        """Over all ``workers`` that run; None unless each has reported lately."""
        total = 0
        asked = False
        for worker in workers:
            found = self._workers.get(worker)
            if found is None or now - found.at > FRESH_S:
                return None
            asked = True
            total += sum(row.in_flight for row in found.report.replicas if row.instance == instance)
        return total if asked else None

    def know_table(self, workers: Iterable[int], revision: int) -> bool:
        """Whether every running worker has said that it routes by the table of ``revision`` or later."""
        found = (self._workers.get(worker) for worker in workers)
        return all(one is not None and one.report.table_revision >= revision for one in found)

    def is_drained(
        self, instance: str, workers: Iterable[int], revision: int, flagged_at: float, now: float
    ) -> bool:
        """Whether every running worker has said, under a table at least as new as ``revision`` and after
        ``flagged_at``, that nothing is in flight there and no stream or sequence open. With no worker running
        nothing can be."""
        for worker in workers:
            found = self._workers.get(worker)
            if found is None or found.at <= flagged_at or now - found.at > FRESH_S:
                return False
            if found.report.table_revision < revision:
                return False
            if any(
                row.in_flight or row.streams or row.sequences
                for row in found.report.replicas
                if row.instance == instance
            ):
                return False
        return True

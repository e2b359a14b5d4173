"""The fleet's statistics: what its replicas count now, and what those that left had counted.

Triton counts per server process and from zero after each load. A client that watches one Triton sees counters
that only grow; perf_analyzer subtracts them as unsigned numbers. So the last reading of a replica that ends
stays in the sum, and so does what a counter had reached before it was reset.

A reading is flat: counter name → value, for each (model, version). Most counters add up; ``last_inference``
is a time, of which the latest counts; ``memory_usage/…`` are gauges, which leave with their replica.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LATEST = "last_inference"
GAUGE = "memory_usage/"

Counters = dict[str, int]
ModelVersion = tuple[str, str]
Reading = Mapping[ModelVersion, Counters]


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """For the disk: ``instance`` is "" for what is kept of those that left."""

    instance: str
    model: str
    version: str
    counters: Counters


def merged(first: Mapping[str, int], second: Mapping[str, int]) -> Counters:
    """Two readings of different servers as one."""
    total = dict(first)
    for name, value in second.items():
        known = total.get(name, 0)
        total[name] = max(known, value) if name == LATEST else known + value
    return total


def was_reset(before: Mapping[str, int], after: Mapping[str, int]) -> bool:
    """Whether the model was loaded again between two readings of one server: some counter is smaller."""
    return any(
        after.get(name, 0) < value
        for name, value in before.items()
        if name != LATEST and not name.startswith(GAUGE)
    )


def lasting(counters: Mapping[str, int]) -> Counters:
    return {name: value for name, value in counters.items() if not name.startswith(GAUGE)}


class Ledger:
    """Readings of one instance must be taken in the order in which they were made."""

    def __init__(self, lines: Iterable[LedgerLine] = ()) -> None:
        self._current: dict[str, dict[ModelVersion, Counters]] = {}
        self._kept: dict[ModelVersion, Counters] = {}
        for line in lines:
            of = self._current.setdefault(line.instance, {}) if line.instance else self._kept
            of[line.model, line.version] = dict(line.counters)

    def lines(self) -> list[LedgerLine]:
        """Everything, for the disk."""
        parts = [("", self._kept), *self._current.items()]
        return [
            LedgerLine(instance, model, version, dict(counters))
            for instance, part in parts
            for (model, version), counters in part.items()
        ]

    def take(self, instance: str, reading: Reading, *, complete: bool) -> None:
        """A reading of a live server. ``complete``: of all its models; one that is missing was unloaded."""
        current = self._current.setdefault(instance, {})
        for key, counters in reading.items():
            before = current.get(key)
            if before is not None and was_reset(before, counters):
                self._keep(key, before)
            current[key] = dict(counters)
        if complete:
            for key in [key for key in current if key not in reading]:
                self._keep(key, current.pop(key))

    def settle(self, alive: Iterable[str]) -> bool:
        """The instances that are not ``alive`` have ended: their last readings are kept. True if any had."""
        ended = set(self._current) - set(alive)
        for instance in ended:
            for key, counters in self._current.pop(instance).items():
                self._keep(key, counters)
        return bool(ended)

    def forget(self, model: str) -> None:
        """It was unloaded everywhere, on purpose: as on one server, it will count from zero."""
        for part in (self._kept, *self._current.values()):
            for key in [key for key in part if key[0] == model]:
                del part[key]

    def totals(self, model: str = "", version: str = "") -> dict[ModelVersion, Counters]:
        """The sums, by (model, version), of what some live server serves; of one model, of one version."""
        found: dict[ModelVersion, Counters] = {}
        for current in self._current.values():
            for key, counters in current.items():
                if (not model or key[0] == model) and (not version or key[1] == version):
                    found[key] = merged(found.get(key) or self._kept.get(key, {}), counters)
        return dict(sorted(found.items(), key=lambda item: item[0]))

    def _keep(self, key: ModelVersion, counters: Counters) -> None:
        self._kept[key] = merged(self._kept.get(key, {}), lasting(counters))

"""The fleet's statistics ledger (`core.ledger`), fed by every reading and kept across controllers."""

from collections.abc import Iterable
from pathlib import Path

from tritonfleet.controller import saved
from tritonfleet.controller.saved import Write
from tritonfleet.core.ledger import Ledger, LedgerLine, Reading
from tritonfleet.core.stats import ModelCounters

SAVE_S = 10.0  # between two writes, unless a replica ended


def reading_of(counters: Iterable[ModelCounters]) -> Reading:
    return {(entry.model, entry.version): entry.counters for entry in counters}


class FleetStatistics:
    """The ledger and its file. What is written is at most `SAVE_S` old: replicas that live on still know
    their own counts, so only what one did last that dies while no controller runs can be missing."""

    def __init__(self, path: Path, write: Write = saved.write) -> None:
        self._path, self._save = path, write
        self.ledger = Ledger(saved.read(path, list[LedgerLine]) or ())
        self._written_at = 0.0
        self._written: list[LedgerLine] = self.ledger.lines()

    def settle(self, alive: Iterable[str], now: float) -> None:
        """Keep what ended instances had counted; write what is due."""
        if self.ledger.settle(alive) or now - self._written_at >= SAVE_S:
            self.save(now)

    def save(self, now: float) -> None:
        self._written_at = now
        lines = self.ledger.lines()
        if lines != self._written:
            self._save(self._path, lines)
            self._written = lines

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)

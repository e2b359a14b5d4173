"""What several workers have in flight, shared, so that each chooses by what all of them have sent.

A file that all workers of an address map into their memory. Each has a row that only it writes, so there are
no locks on the way of a request; a row has a cell for each replica, named by a hash of its instance, with the
requests in flight there and the work they are expected to be. A worker writes its cells once per turn of its
loop and reads the others' when it chooses.

Who owns a row holds a lock on it (POSIX record locks, one byte for each), which ends with the process however
that ends: the rows that nobody holds are cleared by whoever looks next, within a second.

With one worker there is no board, and a request costs nothing for it.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonfleet.core.balance import Policy, RoundRobin
from tritonfleet.router.finishes import Finishes
from tritonfleet.router.transport import Touched

if TYPE_CHECKING:
    from tritonfleet.router.replica import Replica

log = logging.getLogger(__name__)

ROWS = 128  # workers: at most 64, and as many that finish their calls
COLUMNS = 256  # replicas
CELL = 4  # words of 8 bytes: a name, requests in flight, seconds of work, when it last got on with them
ROW = COLUMNS * CELL
SIZE = ROWS * ROW * 8


class Board:
    """One worker's place on the board in the file ``path``, and what the workers share beside it
    (`router.finishes`). Raises OSError if that cannot be mapped or every row is taken."""

    def __init__(self, path: Path) -> None:
        self.finishes = Finishes(path.with_suffix(".finishes"))
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, SIZE)
        self._memory = mmap.mmap(self._file, SIZE)
        self._names = memoryview(self._memory).cast("Q")
        self.cells = memoryview(self._memory).cast("d")
        self._row: int | None = None
        self._columns: dict[str, int] = {}  # by instance: where its cell begins
        self.sweep()
        if self._row is None:
            raise OSError(f"{path} has no free row for one more router worker")

    def sweep(self) -> None:
        """Clear the rows whose workers are gone; the first time, keep the first of them."""
        for row in range(ROWS):
            if row == self._row or (self._row is not None and not any(self._names[self._cells_of(row)])):
                continue
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, row)
            except OSError:
                continue  # its worker lives
            self._clear(row)
            if self._row is None:
                self._row = row
            else:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, row)

    @staticmethod
    def _cells_of(row: int) -> slice:
        return slice(row * ROW, (row + 1) * ROW, CELL)

    def _clear(self, row: int) -> None:
        self._memory[row * ROW * 8 : (row + 1) * ROW * 8] = bytes(ROW * 8)

    def look(self, replicas: Sequence[Replica]) -> None:
        """Give new replicas a cell, free those of ``replicas`` that are gone, and find the others' cells."""
        if self._row is None:
            raise AssertionError("a board without a row is not made")
        present = {replica.instance for replica in replicas}
        for instance in [instance for instance in self._columns if instance not in present]:
            gone = self._columns.pop(instance)
            self._names[gone] = 0
            for word in range(1, CELL):
                self.cells[gone + word] = 0.0
        taken = set(self._columns.values())
        own = range(self._row * ROW, (self._row + 1) * ROW, CELL)
        free = (at for at in own if at not in taken)
        for replica in replicas:
            if replica.instance not in self._columns and (at := next(free, None)) is not None:
                self._columns[replica.instance] = at
                self._names[at] = name_of(replica.instance)
        elsewhere = self._elsewhere(own)
        for replica in replicas:
            replica.elsewhere = elsewhere.get(name_of(replica.instance), ())

    def _elsewhere(self, own: range) -> dict[int, tuple[int, ...]]:
        """Where other workers' cells begin, by name."""
        found: dict[int, tuple[int, ...]] = {}
        for row in range(ROWS):
            if row * ROW in own:
                continue
            for column, name in enumerate(self._names[self._cells_of(row)]):
                if name:
                    found[name] = (*found.get(name, ()), row * ROW + column * CELL)
        return found

    def publish(self, replicas: Iterable[Replica]) -> None:
        """Write what is in flight on each."""
        cells, columns = self.cells, self._columns
        for replica in replicas:
            at = columns.get(replica.instance)
            if at is not None:
                cells[at + 1] = replica.in_flight
                cells[at + 2] = replica.work_s
                cells[at + 3] = replica.progress_at

    def close(self) -> None:
        """Take back all that this worker had written; what it publishes later is nowhere."""
        self._columns.clear()
        if self._row is not None:
            self._clear(self._row)
        self._names.release()
        self.cells.release()
        self._memory.close()
        os.close(self._file)


def name_of(instance: str) -> int:
    """8 bytes of an instance's name; never 0, which is an empty cell."""
    return int.from_bytes(blake2b(instance.encode(), digest_size=8).digest(), "big") or 1


class SharingTouched(Touched):
    """Publishes once per turn of the loop, when the turn's output is taken (`flush_all`)."""

    __slots__ = ("publish",)

    def __init__(self, publish: Callable[[], None]) -> None:
        super().__init__()
        self.publish = publish

    def clear(self) -> None:
        super().clear()
        self.publish()


class Seen:
    """A replica as all workers together see it: a candidate for a policy."""

    __slots__ = ("in_flight", "pace", "progress_at", "replica", "work_s")

    def __init__(self, replica: Replica, cells: memoryview[float]) -> None:
        self.replica, self.pace = replica, replica.pace
        self.in_flight, self.work_s = replica.in_flight, replica.work_s
        self.progress_at = replica.progress_at  # perf_counter is one clock for all processes of a host
        for at in replica.elsewhere:
            self.in_flight += int(cells[at + 1])
            self.work_s += cells[at + 2]
            if cells[at + 3] > self.progress_at:
                self.progress_at = cells[at + 3]


class SharedPolicy:
    """A policy that chooses by what all workers have in flight."""

    def __init__(self, policy: Policy, board: Board) -> None:
        self.name = policy.name
        self._policy, self._board = policy, board

    def pick(self, candidates: Sequence[Any], cost_s: float = 0.0, now: float = 0.0) -> Any:
        """``candidates`` are replicas."""
        cells = self._board.cells
        return self._policy.pick([Seen(one, cells) for one in candidates], cost_s, now).replica


def shared(policy: Policy, board: Board | None) -> Policy:
    """``policy``, by the board if there is one and it looks at what is in flight."""
    return policy if board is None or isinstance(policy, RoundRobin) else SharedPolicy(policy, board)

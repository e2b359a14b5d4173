"""One load under way: sends requests by its rule and keeps what became of them.

Closed loop: so many are out at any time, each answer is followed by the next request. Open loop: each is sent
when it is due, whatever is still out, and its latency counts from when it was due, so that neither a slow
server nor a slow client is forgiven ("coordinated omission").
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from tritonfleet.bench.client import Exchange, LoadClient, framed
from tritonfleet.bench.schedule import Timer
from tritonfleet.core.answers import status_name
from tritonfleet.triton.messages import replica_of, sequence_parameters


@dataclass(slots=True)
class Tally:
    """What was answered between two cuts."""

    latencies_s: list[float] = field(default_factory=list)  # of those with status OK
    late_s: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    replicas: dict[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.latencies_s) + sum(self.failures.values())

    def add(self, other: "Tally") -> None:
        self.latencies_s += other.latencies_s
        self.late_s += other.late_s
        self.texts |= other.texts
        for mine, theirs in ((self.failures, other.failures), (self.replicas, other.replicas)):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count


class Bodies:
    """The requests in turn; ``place`` is who asks."""

    def __init__(self, head: bytes, tails: Sequence[bytes]) -> None:
        self._bodies = [framed(head + tail) for tail in tails]
        self._at = 0

    def next(self, place: int) -> tuple[bytes, int]:
        """A request, and the ``place`` for `LoadClient.send`."""
        self._at = (self._at + 1) % len(self._bodies)
        return self._bodies[self._at], place


class SequenceBodies:
    """Requests of sequences, one running at each place; ``steps`` are one sequence's, or repeated to
    ``length``. A sequence keeps to one connection, so that its requests arrive in order."""

    def __init__(self, head: bytes, steps: Sequence[Sequence[bytes]], length: int, first_id: int) -> None:
        self._head, self._steps, self._length = head, steps, length
        self._next_id = first_id
        self._begun = 0
        self._running: dict[int, tuple[int, Sequence[bytes], int]] = {}  # id, steps, how many are sent

    def next(self, place: int) -> tuple[bytes, int]:
        running = self._running.get(place)
        if running is None:
            running = (self._next_id, self._steps[self._begun % len(self._steps)], 0)
            self._next_id += 1
            self._begun += 1
        number, steps, sent = running
        length = len(steps) if len(steps) > 1 else self._length
        last = sent + 1 == length
        body = self._head + sequence_parameters(number, start=sent == 0, end=last) + steps[sent % len(steps)]
        if last:
            self._running.pop(place, None)
        else:
            self._running[place] = (number, steps, sent + 1)
        return framed(body), -place - 1


class Traffic:
    """``tells_replica``: answers say which replica gave them, and are read for that."""

    def __init__(
        self, client: LoadClient, block: bytes, bodies: Bodies | SequenceBodies, *, tells_replica: bool
    ) -> None:
        self.tally = Tally()
        self.unanswered = 0
        self.queued_most = 0
        self.changed: Callable[[], None] = lambda: (
            None
        )  # after every answer, while somebody waits for a count
        self._client, self._block, self._bodies = client, block, bodies
        self._tells_replica = tells_replica
        self._running = False
        self._left = 0  # to be sent; below 0: without end
        self._out = 0  # sent and not ended
        self._again = False  # closed loop
        self._gaps: Iterator[float] | None = None
        self._places = 1
        self._sent = 0
        self._due = 0.0
        self._timer: Timer | None = None

    @property
    def out(self) -> int:
        return self._out

    def cut(self) -> Tally:
        """What was answered since the last cut."""
        tally, self.tally = self.tally, Tally()
        return tally

    def closed_loop(self, concurrency: int, count: int = -1) -> None:
        """``count``: end after so many; below 0: at `stop`."""
        self._running, self._again, self._left = True, True, count
        for place in range(concurrency):
            self._send(place, perf_counter())
        self._client.flush()

    def open_loop(self, gaps: Iterator[float], places: int, count: int = -1) -> None:
        """``places``: how many sequences run at a time, where the model has sequences."""
        self._running, self._again, self._left = True, False, count
        self._gaps, self._places = gaps, places
        self._due = perf_counter() + next(gaps)
        self._timer = Timer()
        asyncio.get_running_loop().add_reader(self._timer.fd, self._pump)
        self._pump()

    def stop(self) -> None:
        """Send no more."""
        self._running = False
        if self._timer is not None:
            asyncio.get_running_loop().remove_reader(self._timer.fd)
            self._timer.close()
            self._timer = None

    async def drain(self, seconds: float) -> None:
        """Wait for what is out; give up what is not answered by then."""
        empty = asyncio.Event()
        self.changed = lambda: None if self._out else empty.set()
        if self._out:
            with contextlib.suppress(TimeoutError):  # what is still out then is told below
                async with asyncio.timeout(seconds):
                    await empty.wait()
        if self._out:
            self.unanswered = self._out
            self._client.abandon("given up at the end of the load")
            self._out = 0

    def _send(self, place: int, due: float) -> None:
        if self._left == 0:
            return
        self._left -= 1
        self._out += 1
        body, place = self._bodies.next(place)
        self._client.send(self._block, body, due, place, self._ended)
        waiting = len(self._client.waiting)
        if waiting > self.queued_most:
            self.queued_most = waiting

    def _pump(self) -> None:
        """Send what is due; wake again when the next is."""
        timer, gaps = self._timer, self._gaps
        if timer is None or gaps is None:
            return
        timer.take()
        now = perf_counter()
        while self._due <= now and self._left:
            self._send(self._sent % self._places, self._due)
            self._sent += 1
            self._due += next(gaps)
        self._client.flush()
        if self._left:
            timer.set(self._due - perf_counter())

    def _ended(self, exchange: Exchange) -> None:
        self._out -= 1
        tally = self.tally
        status = exchange.status
        if status == 0:
            tally.latencies_s.append(exchange.ended_at - exchange.due)
            if self._tells_replica:
                name = replica_of(exchange.message)
                tally.replicas[name] = tally.replicas.get(name, 0) + 1
        else:
            code = status_name(status)
            tally.failures[code] = tally.failures.get(code, 0) + 1
            tally.texts[code] = exchange.text
        if self._again:
            if self._running:
                place = exchange.place
                self._send(place if place >= 0 else -place - 1, perf_counter())
        else:
            tally.late_s.append(exchange.sent_at - exchange.due)
        self.changed()

"""What the requests within a stream of inferences are to their replica: in flight, work, homes of sequences.

A stream is one call, and may carry no request for hours or a thousand at a time. Its bytes pass as they come;
of every message the first ones are looked at: which model is asked, whether a sequence begins or ends, which
response is a request's last. So a stream counts as many requests as are open in it, and none while it rests.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from tritonfleet.core.streamed import MOST_OPEN, Asked, OpenRequests
from tritonfleet.router import grpc, peek
from tritonfleet.router.replica import NO_WORK_S

if TYPE_CHECKING:
    from tritonfleet.http2.stream import Buffer
    from tritonfleet.router.call import CallStats, Leg
    from tritonfleet.router.client import ClientConnection
    from tritonfleet.router.dispatch import Dispatcher


class Streamed:
    """Of one call. Its leg counts as one request in flight, as any; from `begin` to `end` the requests count
    instead, for the models that they ask."""

    __slots__ = ("_answers", "_client", "_counted", "_dispatcher", "_leg", "_open", "_requests")

    def __init__(self, dispatcher: Dispatcher, client: ClientConnection) -> None:
        self._dispatcher = dispatcher
        self._client = client
        self._counted = 0  # of those open here, in the client's number
        self._leg: Leg | None = None
        self._requests = peek.StreamScanner()
        self._answers = peek.StreamScanner()
        self._open = OpenRequests()

    @property
    def oldest(self) -> float | None:
        """When the oldest open request was sent, by `perf_counter`; None while there is none."""
        found = self._open.oldest
        return found.started if found is not None else None

    def begin(self, leg: Leg, held: list[Buffer]) -> None:
        """It goes to a replica, with what has arrived of it."""
        self._leg = leg
        leg.replica.in_flight -= 1
        leg.stats.in_flight -= 1
        for payload in held:
            self.asked(payload)

    def asked(self, payload: Buffer) -> None:
        """Bytes that go to the replica."""
        for head in self._requests.feed(payload):
            size = int.from_bytes(head[1:5], "big")  # on the wire, as of a unary call
            self._ask(peek.plain(head) if head[0] else head, size)

    def answered(self, payload: Buffer) -> None:
        """Bytes that came from the replica."""
        for head in self._answers.feed(payload):
            if self._leg is not None:
                self._answer(self._leg, peek.plain(head) if head[0] else head)

    def end(self) -> None:
        """The call has left its replica: nothing is open any more, and the leg's own count is its own."""
        leg, self._leg = self._leg, None
        if leg is None:
            return
        waited_for = set()
        for asked in self._open.take_all():
            self._drop(leg, asked)
            waited_for.add(asked.model)
        self._recount()
        leg.replica.in_flight += 1
        leg.stats.in_flight += 1
        leg.stats.streams += 1
        waited_for.discard(leg.stats.model)  # who waits for that one is served as after any call
        if waited_for and self._dispatcher.work.queued:
            for model in waited_for:
                self._dispatcher.serve_soon(model)

    def _ask(self, head: Buffer, size: int) -> None:
        leg = self._leg
        if leg is None:
            return
        open_before = self._open.count
        model = grpc.peek_model(head) or ""
        sequence = peek.peek_sequence(head, model)
        if sequence is not None:  # it lives where the stream goes
            sequences = self._dispatcher.sequences
            if sequence.start:
                sequences.pin(sequence.key, leg.replica, self._dispatcher.loop.time())
            if sequence.end:
                sequences.release(sequence.key)
        replica = leg.replica
        stats = replica.stats.get(model) or replica.stats_of(model)
        cost_s = self._dispatcher.work.of(model).cost.estimate(size)
        if self._client.open_requests >= MOST_OPEN:
            return
        now = perf_counter()
        asked, before = self._open.sent(
            stats.model, now, cost_s, asks=peek.asks_for_final(head), decoupled=stats.decoupled
        )
        if before is not None:
            self._drop(leg, before)
        if asked is not None:
            stats.in_flight += 1
            stats.streaming += 1
            replica.in_flight += 1
            if replica.work_s < NO_WORK_S:
                replica.work_s, replica.progress_at = 0.0, now
            replica.work_s += cost_s
        if self._open.count != open_before:
            self._recount()

    def _recount(self) -> None:
        self._client.open_requests += self._open.count - self._counted
        self._counted = self._open.count

    def _answer(self, leg: Leg, head: Buffer) -> None:
        model = self._open.only_model or peek.peek_answering(head)
        final = peek.peek_final(head)
        stats = None
        if not final:
            stats = leg.replica.stats.get(model)
            if final is None:  # a server that does not mark them: an ordinary model answers once
                final = stats is None or not stats.decoupled
        if final:
            asked = self._open.ended(model)
            if asked is not None:
                self._recount()
                stats = self._drop(leg, asked)
                if not stats.decoupled and head[5:6] == b"\x12":  # no error_message: it was executed
                    stats.served += 1
                    stats.expected_s += asked.cost_s
                work = self._dispatcher.work
                if work.queued and work.waiting_for(asked.model):
                    self._dispatcher.serve_queue(asked.model)
        elif stats is not None and not stats.decoupled:
            stats.decoupled = True
            for asked in self._open.found_decoupled(model):
                self._drop(leg, asked)
            self._recount()

    @staticmethod
    def _drop(leg: Leg, asked: Asked) -> CallStats:
        replica = leg.replica
        stats = replica.stats[asked.model]
        stats.in_flight -= 1
        stats.streaming -= 1
        stats.streamed += 1
        replica.in_flight -= 1
        replica.work_s -= asked.cost_s
        replica.progress_at = perf_counter()
        return stats

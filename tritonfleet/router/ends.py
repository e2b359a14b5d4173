"""How calls end: answered, cancelled, given up by the replica, lost with it, sent again, refused.

The half of the dispatcher that runs after a call was sent to a replica. What is safe to send again
is decided here: what a replica provably did not look at, always; what was lost with its replica, if it is a
pure question outside of any sequence and no answer has begun, once, within the budget.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import TYPE_CHECKING

from tritonfleet.core.ejection import BAD_STATUSES, Ejection, for_failures
from tritonfleet.core.limits import RouterLimits
from tritonfleet.core.retry import RetryBudget
from tritonfleet.http2.fields import Fields, encode
from tritonfleet.http2.frames import ErrorCode
from tritonfleet.http2.stream import Stream
from tritonfleet.router import grpc
from tritonfleet.router.call import Call, Leg
from tritonfleet.router.grpc import Status
from tritonfleet.router.keeping import Keeping
from tritonfleet.router.sequences import Sequences
from tritonfleet.router.work import Work

if TYPE_CHECKING:
    from tritonfleet.router.needs import Needs
    from tritonfleet.router.replica import Replica

log = logging.getLogger(__name__)

MAX_TRIES = 3
MAX_LOSSES = 2  # tries of a call whose replica was lost
OK_HEADERS = encode(((b":status", b"200"), (b"content-type", b"application/grpc")))
OK_TRAILERS = encode(((b"grpc-status", b"0"),))


class Ends(Keeping):
    """See the module. `Dispatcher` adds the beginnings."""

    def __init__(self, limits: RouterLimits) -> None:
        super().__init__(limits)
        self.loop = asyncio.get_running_loop()
        self.replicas: dict[str, Replica] = {}  # by instance; those in the table
        self.sequences = Sequences()
        self.budget = RetryBudget()
        self.work = Work(self.refuse)
        self.retry = "safe"  # what may be sent again: "safe", "unsent" or "off"
        self.requests_total = 0
        self.refused_total = 0
        self.refused_by_status: dict[int, int] = {}
        self.retries_total = 0
        self.retries_denied_total = 0  # for want of budget
        self.panics_total = 0
        self.ejections_total = 0

    def dispatch(self, call: Call) -> None:
        raise NotImplementedError

    def room_changed(self) -> None:
        raise NotImplementedError

    def after_leg(self, leg: Leg) -> None:
        raise NotImplementedError

    def choose_anew(self) -> None:
        raise NotImplementedError

    def candidates(self, model: str, needs: Needs | None = None) -> list[Replica]:
        raise NotImplementedError

    def complete(self, call: Call, leg: Leg, status: int, trailers: Fields | None = None) -> None:
        """The replica has answered in full. What the client still sends of its request is of no use."""
        leg.finish(status, timed=not call.info.streaming)
        if leg.size:
            self.work.answered(leg, leg.stats.model, perf_counter(), ok=status == 0)
        call.done = True
        if not leg.send_closed:
            leg.connection.send_reset(leg, ErrorCode.NO_ERROR)
        leg.partner = call.partner = None
        if not call.receive_closed:
            call.connection.send_reset(call, ErrorCode.NO_ERROR, after_queue=True)
        if status == 0:
            leg.replica.failures_in_row = 0
        elif status in BAD_STATUSES and not (trailers is not None and grpc.was_unreadable(trailers)):
            self.note_failure(leg.replica)
        if call.sequence is not None and call.sequence.end and not call.info.streaming:
            self.sequences.release(call.sequence.key)
        self.after_leg(leg)

    def cancel(self, stream: Stream) -> None:
        """The client gave up (a reset, its deadline, a lost connection): so does the replica, at once."""
        call: Call = stream  # type: ignore[assignment] # only client streams come here
        leg: Leg | None = call.partner  # type: ignore[assignment] # whose partner is a Leg
        call.done = True
        if call.entry is not None:
            self.work.leave(call)
        call.waiting = False
        if leg is None:
            self.credit_unsent(call)
            return
        self.drop_replay(call)
        leg.connection.send_reset(leg, ErrorCode.CANCEL)
        leg.finish(Status.CANCELLED, timed=False)
        leg.partner = call.partner = None
        self.after_leg(leg)

    def expire(self, call: Call) -> None:
        """Its deadline has passed."""
        self.give_up(call, Status.DEADLINE_EXCEEDED, "the request's deadline has passed")

    def give_up(self, call: Call, status: Status, why: str) -> None:
        """End a call wherever it is: the replica hears of it, and so does the client."""
        leg: Leg | None = call.partner  # type: ignore[assignment] # a Call's partner is a Leg
        if leg is not None:
            leg.connection.send_reset(leg, ErrorCode.CANCEL)
            leg.finish(status, timed=False)
            leg.partner = call.partner = None
            self.drop_replay(call)
        if call.entry is not None:
            self.work.leave(call)
        call.waiting = False
        self.refuse(call, status, why)
        if leg is not None:
            self.after_leg(leg)

    def leg_reset(self, leg: Leg, code: int) -> None:
        """The replica gave up the call. REFUSED_STREAM promises that it did nothing yet: try again
        elsewhere (RFC 9113, 8.7); any other code keeps its meaning for the client."""
        call: Call | None = leg.partner  # type: ignore[assignment] # a Leg's partner is a Call
        leg.connection.discard_queue(leg)
        refused = code == ErrorCode.REFUSED_STREAM
        leg.finish(Status.UNAVAILABLE if refused else Status.INTERNAL, timed=False)
        leg.partner = None
        if call is not None:
            call.partner = None
            call.refused_by = leg.replica
            if refused and self.retry != "off" and self._try_again(call, MAX_TRIES):
                pass  # it is on its way to another replica
            elif refused:
                self.drop_replay(call)
                self.refuse(call, Status.UNAVAILABLE, f"replica {leg.replica.id} refused the request")
            else:
                call.done = True
                self.drop_replay(call)
                call.connection.send_reset(call, code, after_queue=True)
        self.after_leg(leg)

    def declined(self, call: Call, leg: Leg, fields: Fields) -> bool:
        """A response without a message. If it says that the replica does not have the model, as one that was
        told to exit does long before it hangs up, and the table says that another has it, that one is asked:
        nothing was executed. True if so; the table's next row of the replica says whether it has it again."""
        model, wanted = call.model or "", call.needs or call.model or ""
        if not grpc.was_not_executed(fields) or not call.info.names_model or not call.info.repeatable:
            return False
        if self.retry == "off" or call.sequence is not None or not self._can_repeat(call, MAX_TRIES):
            return False
        leg.replica.declines.add(wanted)
        self.choose_anew()
        version = call.needs.version if call.needs else ""
        if not any(
            wanted not in other.declines
            and model in other.row.models
            and other.row.has_version(model, version)
            for other in self.candidates(model, call.needs)
        ):
            return False
        leg.finish(grpc.status_of(fields), timed=False)
        leg.connection.discard_queue(leg)
        if not leg.send_closed:
            leg.connection.send_reset(leg, ErrorCode.NO_ERROR)
        leg.partner = call.partner = None
        call.refused_by = leg.replica
        self._repeat(call)
        self.after_leg(leg)
        return True

    def leg_lost(self, leg: Leg, why: str) -> None:
        """The replica's connection went while the call ran there. It may have been executed: only what may be
        executed twice is sent again (`grpc.RequestInfo.repeatable`), and nothing of a sequence, whose
        state went with the replica."""
        call: Call | None = leg.partner  # type: ignore[assignment] # a Leg's partner is a Call
        leg.connection.discard_queue(leg)
        leg.finish(Status.UNAVAILABLE, timed=False)
        leg.partner = None
        if call is not None:
            call.partner = None
            call.refused_by = leg.replica
            may_repeat = self.retry == "safe" and call.info.repeatable and call.sequence is None
            if not (may_repeat and self._try_again(call, MAX_LOSSES, budgeted=True)):
                text = f"replica {leg.replica.id} was lost during the request: {why}"
                self.drop_replay(call)
                self.refuse(call, Status.UNAVAILABLE, text)
        self.after_leg(leg)

    def _try_again(self, call: Call, tries: int, *, budgeted: bool = False) -> bool:
        if not self._can_repeat(call, tries):
            return False
        if budgeted and not self.budget.take(self.requests_total):
            self.retries_denied_total += 1
            return False
        self._repeat(call)
        return True

    @staticmethod
    def _can_repeat(call: Call, tries: int) -> bool:
        return not call.answered and call.replayable and call.held is not None and call.tries < tries

    def _repeat(self, call: Call) -> None:
        self.retries_total += 1
        call.delayed = True
        call.credited = call.held_bytes  # they had left, or were discarded
        self.dispatch(call)

    # ------------------------------------------------------------ replicas that answer badly

    def note_failure(self, replica: Replica) -> None:
        """It answered as only a broken server does, or a connection of its was lost."""
        replica.failures_in_row += 1
        ejected, replicas = self.ejected_beside(replica)
        verdict = for_failures(replica.failures_in_row, replica.ejections, ejected=ejected, replicas=replicas)
        if verdict is not None and replica.ejected_until is None:
            self.eject(replica, verdict)

    def ejected_beside(self, replica: Replica) -> tuple[int, int]:
        """How many of its pool are left out, and how many there are: one pool says nothing of another."""
        pool = [other for other in self.replicas.values() if other.row.pool == replica.row.pool]
        return sum(other.ejected_until is not None for other in pool), len(pool)

    def eject(self, replica: Replica, verdict: Ejection) -> None:
        replica.ejected_until = self.loop.time() + verdict.duration_s
        replica.last_error = verdict.reason
        replica.ejections += 1
        replica.failures_in_row = 0
        self.ejections_total += 1
        log.warning("%s: %s", replica.instance, verdict.reason)
        self.room_changed()

    # ------------------------------------------------------------ answers of our own

    def reply(self, call: Call, message: bytes, trailers: bytes = OK_TRAILERS) -> None:
        """End a unary call with one message (without its prefix) of our own."""
        if call.done:
            return
        call.done = call.answered = True
        connection = call.connection
        connection.send_headers(call, OK_HEADERS, False)
        connection.send_data(call, b"\0" + len(message).to_bytes(4, "big") + message, False)
        connection.send_headers(call, trailers, True)

    def refuse(self, call: Call, status: Status, message: str, pushback_s: float | None = None) -> None:
        """End a call ourselves, as a gRPC status that says who speaks and why; ``pushback_s``: how long a
        client that tries again should wait (gRFC A6)."""
        if call.done:
            return
        call.connection.discard_queue(call)
        self.refused_by_status[int(status)] = self.refused_by_status.get(int(status), 0) + 1
        text = f"tritonfleet: {message}"
        self.answer(
            call,
            grpc.trailers(status, text) if call.answered else grpc.trailers_only(status, text, pushback_s),
        )

    def answer(self, call: Call, block: bytes, body: bytes = b"") -> None:
        self.refused_total += 1
        self.credit_unsent(call)
        call.done = True
        call.connection.send_headers(call, block, not body)
        if body:
            call.connection.send_data(call, body, True)
        if not call.receive_closed:
            call.connection.send_reset(call, ErrorCode.NO_ERROR, after_queue=True)

"""What is kept of requests, and how much that may be.

A request's body is kept until its answer begins, to be sent again if its replica is lost; a request that the
router answers itself is kept whole until it is answered. Both count, for each client and for all together,
so that nobody can fill our memory with requests that take long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tritonfleet.core.limits import RouterLimits
from tritonfleet.http2.stream import Buffer, kept, put
from tritonfleet.router.call import Call
from tritonfleet.router.grpc import Status

if TYPE_CHECKING:
    from tritonfleet.router.client import ClientConnection
    from tritonfleet.router.guard import Guard

# Bytes of a body that are kept at most, and those that do not count: of 1024 calls they are a MiB.
MOST_KEPT = 1 << 20
KEPT_FREELY = 1024
WHOLE_READS_FROM = 64 * 1024  # bytes of a body, from which on its parts are kept with the reads they are in


class OwnAnswers(Protocol):
    """Answers the RPCs that speak of the whole fleet (`grpc.OWN_RPCS`)."""

    def unfit(self, call: Call) -> tuple[Status, str] | None:
        """Why the body of ``call``, as much as has come of it, is not to be taken; None if it is."""

    def answer(self, call: Call, body: bytes) -> None:
        """``body`` is the whole request as it stood on the wire: the 5-byte prefix and the message. Ends the
        call now or later, by `Dispatcher.reply` or `Dispatcher.refuse`; a call that was ``done`` meanwhile
        (cancelled) is left alone by both. What is counted for it is uncounted when it is answered."""


class Keeping:
    """The part of the dispatcher that counts what is kept."""

    def __init__(self, limits: RouterLimits) -> None:
        self.limits = limits
        self.kept_bytes = 0  # of all calls
        self.own: OwnAnswers | None = None  # answers fleet-wide RPCs; None: a replica answers them
        self.guard: Guard | None = None  # then says who may have those that change it; None: everybody

    def keep(self, call: Call, payload: Buffer) -> None:
        """Keep a further part of the body for another try, while there is room for it."""
        before = call.held_bytes
        call.held_bytes += len(payload)
        held = call.held
        if held is None:
            self.drop_replay(call)
        elif before < WHOLE_READS_FROM or type(payload) is not memoryview:
            if held:
                put(held, payload)
            else:
                held.append(kept(payload))
            if call.held_bytes > KEPT_FREELY and not self.may_keep(call, call.uncounted):
                self.drop_replay(call)
        else:  # copying costs more than the whole reads in which a large message comes
            last = held[-1]
            same = type(last) is memoryview and last.obj is payload.obj
            held.append(payload)
            if same and call.held_bytes <= MOST_KEPT:
                return
            if not self.may_keep(call, len(payload.obj)):  # type: ignore[arg-type] # a piece of a read
                self.drop_replay(call)

    def may_keep(self, call: Call, more: int) -> bool:
        """Whether ``call`` may keep what it holds. If so, ``more`` bytes of it count from now on."""
        client: ClientConnection = call.connection  # type: ignore[assignment] # a Call's is one
        of_client, of_all = client.kept_bytes + more, self.kept_bytes + more
        limits = self.limits
        if (
            call.held_bytes > MOST_KEPT
            or of_client > limits.kept_by_connection
            or of_all > limits.kept_by_all
        ):
            return False
        call.kept += more
        client.kept_bytes, self.kept_bytes = of_client, of_all
        return True

    def uncount_kept(self, call: Call) -> None:
        size, call.kept = call.kept, 0
        call.connection.kept_bytes -= size  # type: ignore[attr-defined] # see above
        self.kept_bytes -= size

    def drop_replay(self, call: Call) -> None:
        call.replayable = False
        if call.held is not None:
            call.held = None
            if call.kept:
                self.uncount_kept(call)

    def credit_unsent(self, call: Call) -> None:
        """Body bytes that were held and will never be sent: the client's other streams get their room. Those
        of a request that is ours to answer, or no gRPC, were credited as they came; those of an earlier try
        then."""
        if call.held and not (call.info.is_own and self.own is not None):
            call.connection.credit_connection(call.held_bytes - (call.credited if call.tries else 0))
        self.drop_replay(call)

"""What the router does once a second: budgets, ejections, deadlines, sequences nobody goes on with."""

import asyncio
import logging

from tritonfleet.core.ejection import for_age
from tritonfleet.http2.frames import ErrorCode, ProtocolError
from tritonfleet.http2.stream import Stream
from tritonfleet.router.call import Call, Leg
from tritonfleet.router.client import ClientConnection
from tritonfleet.router.dispatch import Dispatcher
from tritonfleet.router.replica import Replica
from tritonfleet.router.transport import flush_all

log = logging.getLogger(__name__)

INTERVAL_S = 1.0


async def watch(dispatcher: Dispatcher) -> None:
    """Look after ``dispatcher`` until cancelled."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        look(dispatcher, dispatcher.loop.time())


def look(dispatcher: Dispatcher, now: float) -> None:
    """One look, at ``now`` (the loop's clock)."""
    dispatcher.budget.tick(dispatcher.requests_total)
    dispatcher.sequences.sweep(now)
    dispatcher.work.expire(now)
    if dispatcher.board is not None:
        dispatcher.board.sweep()
        dispatcher.look_at_board()
    for replica in dispatcher.replicas.values():
        replica.paces.relax(INTERVAL_S)
        replica.settle_pace()
        if replica.declines:  # it may have the model again, or have it declined for one version of it
            replica.declines.clear()
            dispatcher.choose_anew()
        if replica.ejected_until is not None and now >= replica.ejected_until:
            _take_back(dispatcher, replica)
        elif replica.ejected_until is None and replica.in_flight:
            _eject_if_stuck(dispatcher, replica)
    _enforce_deadlines(dispatcher, now)
    for client in list(dispatcher.clients):
        _hurry(client, now)
    flush_all(dispatcher.touched)


def _hurry(client: ClientConnection, now: float) -> None:
    """Hang up on whoever keeps a connection without making use of it, or does not take its answers."""
    if client.in_header_block:
        client.block_since = client.block_since if client.block_since is not None else now
    else:
        client.block_since = None
    why, limits = "", client.limits
    if not client.greeted and now - client.opened_at > limits.greeting_s:
        why = f"no HTTP/2 settings within {limits.greeting_s:g} s"
    elif client.block_since is not None and now - client.block_since > limits.greeting_s:
        why = f"a header block was not ended within {limits.greeting_s:g} s"
    elif client.stalled_since is not None and now - client.stalled_since > limits.stalled_s:
        why = f"answers were not read for {limits.stalled_s:g} s"
    if why and client.stalled_since is None:
        client.fail(ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, why))
    elif why:  # nothing that we say would reach it
        log.info("hanging up on %r: %s", client, why)
        client.abort()
    elif client.blocked or client.stuck:
        _end_stuck(client, now)


def _end_stuck(client: ClientConnection, now: float) -> None:
    """Reset the streams whose window the client has kept shut for too long: what waits there is held for
    nothing. Progress is seen by what waits first, which is another object once any of it has left."""
    seen: dict[Stream, tuple[object, float]] = {}
    for stream in list(client.blocked):
        first = stream.queue[0] if stream.queue else None
        before, since = client.stuck.get(stream, (None, now))
        if first is None or first is not before:
            since = now
        if now - since > client.limits.stalled_s:
            log.info("%r: %r took nothing for %g s", client, stream, now - since)
            client.send_reset(stream, ErrorCode.CANCEL)
            client.dispatcher.cancel(stream)
        else:
            seen[stream] = first, since
    client.stuck = seen


def _take_back(dispatcher: Dispatcher, replica: Replica) -> None:
    log.info("%s is chosen again", replica.instance)
    replica.ejected_until = None
    replica.failures_in_row = 0  # those of a panic in which it was asked all the same
    replica.last_error = ""
    replica.start_slow()
    dispatcher.room_changed()


def _eject_if_stuck(dispatcher: Dispatcher, replica: Replica) -> None:
    oldest = oldest_unary(replica)
    if oldest is None:
        return
    age = oldest.age_s
    ejected = sum(other.ejected_until is not None for other in dispatcher.replicas.values())
    verdict = for_age(
        age,
        oldest.stats.latency.quantile(0.99),
        replica.ejections,
        ejected=ejected,
        replicas=len(dispatcher.replicas),
    )
    if verdict is not None:
        dispatcher.eject(replica, verdict)


def oldest_unary(replica: Replica) -> Leg | None:
    """The call that has been there longest, streams apart: they may be silent for long. Streams of a
    connection are in the order of their beginning."""
    found: Leg | None = None
    for connection in replica.connections:
        for stream in connection.streams.values():
            call = stream.partner
            if isinstance(stream, Leg) and isinstance(call, Call) and not call.info.streaming:
                if found is None or stream.started < found.started:
                    found = stream
                break
    return found


def _enforce_deadlines(dispatcher: Dispatcher, now: float) -> None:
    """A client gives up by itself when its time is over; this is for one that does not."""
    for client in dispatcher.clients:
        for stream in list(client.streams.values()):
            if (
                isinstance(stream, Call)
                and stream.deadline is not None
                and now > stream.deadline + INTERVAL_S
            ):
                if stream.done:
                    continue
                dispatcher.expire(stream)

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
YOUNG_S = 2.0  # what is in flight for less waits for nobody yet


async def watch(dispatcher: Dispatcher) -> None:
    """Look after ``dispatcher`` until cancelled. A fault ends one look, not all that would come."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        try:
            look(dispatcher, dispatcher.loop.time())
        except Exception:  # no later look would mean no deadlines and no limits of queues
            log.exception("the router's look at itself failed")


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
            _eject_if_stuck(dispatcher, replica, now)
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


def _eject_if_stuck(dispatcher: Dispatcher, replica: Replica, now: float) -> None:
    found = longest_wait(replica, now)
    if found is None:
        return
    leg, waited_s = found
    ejected, replicas = dispatcher.ejected_beside(replica)
    verdict = for_age(
        waited_s,
        leg.stats.latency.quantile(0.99),
        replica.ejections,
        ejected=ejected,
        replicas=replicas,
    )
    if verdict is not None:
        dispatcher.eject(replica, verdict)


def longest_wait(replica: Replica, now: float) -> tuple[Leg, float] | None:
    """The call that has waited longest for the replica, and for how long; streams apart, which may be silent
    for long. Time in which the client has not sent its request, or does not take its answer, is none of the
    replica's. It is known to a look; streams of a connection are in the order of their beginning."""
    seen: dict[Leg, tuple[object, object, float]] = {}
    found: tuple[Leg, float] | None = None
    for connection in replica.connections:
        for stream in connection.streams.values():
            call = stream.partner
            if not isinstance(stream, Leg) or not isinstance(call, Call) or call.info.streaming:
                continue
            if stream.age_s < YOUNG_S:
                break
            first = stream.queue[0] if stream.queue else None
            came = stream.receive_room, stream.drained
            before, had_come, since = replica.stuck.get(stream, (first, came, now - stream.age_s))
            clients_turn = call.queue is not None or (first is None and not stream.send_closed)
            if clients_turn or first is not before or came != had_come:
                since = now
            seen[stream] = first, came, since
            if found is None or now - since > found[1]:
                found = stream, now - since
    replica.stuck = seen
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

"""The router's heart: which replica takes a call, and what becomes of the call afterwards.

A call arrives with its model's name peeked; `dispatch` picks among the replicas where that model is ready
and connects the two streams. From then on bytes flow between the connections without coming through here;
the dispatcher hears again of a call when it ends: completed, cancelled, reset, or its replica lost.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

from tritonfleet.core.balance import POLICIES, late_bind
from tritonfleet.core.ejection import in_panic
from tritonfleet.core.limits import RouterLimits
from tritonfleet.core.wire import RouterTable, TableReplica
from tritonfleet.http2.sending import Held, Sender
from tritonfleet.router import grpc
from tritonfleet.router.board import Board, SharingTouched, shared
from tritonfleet.router.call import Call, Leg
from tritonfleet.router.ends import Ends
from tritonfleet.router.grpc import Status
from tritonfleet.router.keeping import KEPT_FREELY
from tritonfleet.router.needs import Needs, Regions, holders_of
from tritonfleet.router.peek import SequenceRef
from tritonfleet.router.replica import NO_WORK_S, Replica, ReplicaConnection
from tritonfleet.router.sequences import pointed_at
from tritonfleet.router.transport import Touched, flush_all

if TYPE_CHECKING:
    from tritonfleet.router.client import ClientConnection

log = logging.getLogger(__name__)

SETTLED_S = 10.0  # in the table for longer than a slow start takes
MOST_NAMES = 4096  # of models: they come from clients, and must not fill memory
MAX_WAITING = 1024  # calls that wait for a connection with room


class Dispatcher(Ends):
    """All of one worker's state: the table in force, its replicas, the clients, the counters."""

    replica_connection = ReplicaConnection  # what carries calls to replicas

    def __init__(
        self,
        connections_per_replica: int = 2,
        workers: int = 1,
        limits: RouterLimits = RouterLimits(),  # noqa: B008 # frozen
        board: Board | None = None,
    ) -> None:
        super().__init__(limits)
        self.board = board
        self.held = Held(limits.held_by_all)
        self.listening = False
        self.touched = Touched() if board is None else SharingTouched(self._publish)
        self.clients: set[ClientConnection] = set()
        self.retired: dict[str, Replica] = {}  # left the table with calls still running
        self.table: RouterTable | None = None
        self.awaits_table = False  # a first table is expected any moment: calls wait for it
        self.policy = shared(POLICIES["least_requests"](), board)
        self.client_drained: Callable[[ClientConnection], None] = lambda _client: None
        self.workers = workers  # that share the address: what one pins the others must find
        self._connections = connections_per_replica
        self._waiting: deque[Call] = deque()
        self.regions: Regions = {}
        self._panicking: set[str] = set()  # models
        self._candidates: dict[str | Needs, list[Replica]] = {}  # emptied whenever anything changes

    @property
    def waiting_count(self) -> int:
        return self.work.queued + sum(call.waiting for call in self._waiting)

    # ------------------------------------------------------------ the table

    def apply(self, table: RouterTable) -> None:
        """Take over a newer picture of the fleet."""
        if table.policy != self.policy.name and table.policy in POLICIES:
            self.policy = shared(POLICIES[table.policy](), self.board)
        self.retry = table.settings.retry
        self.work.configure(table.settings)
        self.work.sleep(table.asleep, self.loop.time())
        self.work.take_priors(table.priors)
        self.work.know(model for row in table.replicas for model in row.models)
        self.regions = holders_of(table.regions)
        rows = {row.instance: row for row in table.replicas}
        for instance in [instance for instance in self.replicas if instance not in rows]:
            replica = self.replicas.pop(instance)
            self.sequences.release_replica(replica)
            self.retired[instance] = replica
            replica.retire()
        for instance, row in rows.items():
            known = self.replicas.get(instance)
            if known is None:
                self.replicas[instance] = self._newcomer(row)
            else:
                known.update(row)
        self._forget_idle()
        self.table = table
        self.look_at_board()
        self.room_changed()
        flush_all(self.touched)

    def _newcomer(self, row: TableReplica) -> Replica:
        """One that comes to peers which are at work starts slowly; a fleet's first ones all begin alike."""
        now = self.loop.time()
        replica = Replica(self, row, self._connections)
        if any(peer.row.pool == row.pool and now - peer.since > SETTLED_S for peer in self.replicas.values()):
            replica.start_slow()
        return replica

    def _publish(self) -> None:
        if self.board is not None:
            self.board.publish((*self.replicas.values(), *self.retired.values()))

    def look_at_board(self) -> None:
        if self.board is not None:
            self.board.look((*self.replicas.values(), *self.retired.values()))

    def _forget_idle(self) -> None:
        for instance, replica in list(self.retired.items()):
            if replica.in_flight == 0 and not replica.connections:
                del self.retired[instance]

    def room_changed(self) -> None:
        """Connections came, went or changed their limits: choose anew, and try what waits."""
        self.choose_anew()
        for _ in range(len(self._waiting)):
            call = self._waiting.popleft()
            if call.waiting:
                call.waiting = False
                self.dispatch(call)
        if self.work.queued:
            for model in list(self.work.models):
                self.serve_queue(model)

    def choose_anew(self) -> None:
        """Who may take a call has changed."""
        self._candidates.clear()

    def candidates(self, model: str, needs: Needs | None = None) -> list[Replica]:
        """Replicas that may take a request for ``model``. What no replica is known to serve, a model or what
        a request ``needs`` besides, may go to any: Triton's own answer is the right one."""
        key = needs or model
        found = self._candidates.get(key)
        if found is None:
            found = self._choose(model, needs)
            if len(self._candidates) < MOST_NAMES:
                self._candidates[key] = found
        return found

    def _choose(self, model: str, needs: Needs | None) -> list[Replica]:
        everyone = list(self.replicas.values())
        serving = [replica for replica in everyone if model in replica.row.models] if model else everyone
        if not serving and model not in self.work.asleep:
            serving = everyone
        if needs is not None:
            serving = needs.narrowed(serving, self.regions)
        available = [replica for replica in serving if replica.available]
        wanted = needs or model
        available = [replica for replica in available if wanted not in replica.declines] or available
        healthy = [replica for replica in available if replica.ejected_until is None]
        expected = sum(not replica.row.draining for replica in serving)
        panics = in_panic(len(healthy), len(available), expected)
        if panics and model not in self._panicking:
            if not self._panicking:  # names come from clients: one line, not one for each
                used = ", ".join(one.instance for one in available)
                log.warning(
                    "%r: %d of %d replicas are healthy, so these are used, left out or not: %s",
                    model,
                    len(healthy),
                    expected,
                    used,
                )
            if len(self._panicking) < MOST_NAMES:
                self._panicking.add(model)
            self.panics_total += 1
        elif not panics:
            self._panicking.discard(model)
        return available if panics else healthy

    def after_leg(self, leg: Leg) -> None:
        """A call has left a replica: whoever waits for that goes on."""
        if leg.replica.retired:
            leg.replica.close_if_idle()
            self._forget_idle()
        elif self._waiting and leg.connection.peer_max_streams < 1 << 20:
            self.room_changed()
        if self.work.queued and self.work.waiting_for(leg.stats.model):
            self.serve_queue(leg.stats.model)
        if leg.connection.refusing:  # type: ignore[attr-defined] # a Leg's is a ReplicaConnection
            leg.connection.close_if_refusing()  # type: ignore[attr-defined] # see above

    def _connecting(self, model: str) -> bool:
        """Whether the first connection to a replica that could take it is only being made: then a call
        waits the moment that takes, so that a restarted router refuses nothing."""
        if self.table is None:
            return self.awaits_table
        staying = [replica for replica in self.replicas.values() if not replica.row.draining]
        serving = [replica for replica in staying if not model or model in replica.row.models]
        if not serving and model not in self.work.asleep:
            serving = staying  # as in `_choose`
        return any(replica.untried for replica in serving)

    def stop_awaiting_table(self) -> None:
        """No controller answers: calls that hoped for a table are refused from now on."""
        self.awaits_table = False
        if self.table is None:
            self.room_changed()
            flush_all(self.touched)

    # ------------------------------------------------------------ a call's life

    def dispatch(self, call: Call) -> None:
        model = call.model or ""
        if call.needs is None:
            candidates = self._candidates.get(model) or self.candidates(model)
        else:
            candidates = self.candidates(model, call.needs)
        if call.sequence is not None:
            candidates = self._home_of(call.sequence, call, candidates)
        if not candidates:
            if self._connecting(model):
                self._wait(call)
            elif model in self.work.asleep:  # the controller sees that it waits, and starts a replica
                self.work.wait(call, 0.0, [], self.loop.time())
            else:
                self.refuse(call, Status.UNAVAILABLE, self._why_none(call))
            return
        if call.refused_by is not None and len(candidates) > 1:
            candidates = [replica for replica in candidates if replica is not call.refused_by]
        cost_s, size = 0.0, 0
        if call.info.infers and not call.info.streaming and call.held:
            size = int.from_bytes(call.held[0][1:5], "big")
            cost_s = self.work.of(model).cost.estimate(size)
        at = perf_counter()
        replica = self.policy.pick(candidates, cost_s, at) if len(candidates) > 1 else candidates[0]
        stats = replica.stats.get(model) or replica.stats_of(model)
        if (
            stats.slots
            and stats.in_flight >= stats.slots
            and replica.work_s >= stats.busy_s
            and call.sequence is None
            and size
        ):
            chosen = late_bind(self.policy, candidates, lambda r: r.has_room(model), cost_s, at)
            if chosen is None:
                if call.needs is not None:
                    call.needs = call.needs.distinguishing(self.replicas.values())
                self.work.wait(call, cost_s, candidates, self.loop.time())
                return
            replica, stats = chosen, chosen.stats_of(model)
        connection = replica.connection()
        if connection is None:
            with_room = [candidate for candidate in candidates if candidate.connection() is not None]
            if not with_room:
                self._wait(call)
                return
            replica = self.policy.pick(with_room, cost_s, at)
            stats = replica.stats_of(model)
            connection = replica.connection()
            if connection is None:
                raise AssertionError("a replica with room has a connection with room")
        block = call.fields.block
        if call.delayed:
            now = self.loop.time()
            if call.deadline is not None:
                if call.deadline <= now:
                    text = "the deadline passed before a replica had room"
                    self.refuse(call, Status.DEADLINE_EXCEEDED, text)
                    return
                block = grpc.with_timeout(call.fields, call.deadline - now)
            self.work.has_waited(call, now)
        stream_id = connection.open_stream_id()
        leg = Leg(connection, stream_id, replica, stats, at)
        if size:
            leg.size, leg.cost_s = size, cost_s
            if replica.work_s < NO_WORK_S:
                replica.work_s, replica.progress_at = 0.0, at
            replica.work_s += cost_s
        connection.streams[stream_id] = leg
        leg.partner = call
        call.partner = leg
        call.tries += 1
        held = call.held or ()
        connection.send_headers(leg, block, call.receive_closed and not held)
        self._send_held(call, leg, connection)

    def serve_queue(self, model: str) -> None:
        """Give waiting calls to replicas that have room for them."""
        for needs in self.work.of(model).turns(self.loop.time()):
            while any(replica.has_room(model) for replica in self.candidates(model, needs)):
                call = self.work.next(model, needs, self.loop.time())
                if call is None:
                    break
                if not call.done:
                    self.dispatch(call)
                    if call.entry is not None:  # it waits on, for a replica that will be done sooner
                        break

    def serve_soon(self, model: str) -> None:
        """As `serve_queue`, when what goes on now is done."""
        self.loop.call_soon(self._serve_now, model)

    def _serve_now(self, model: str) -> None:
        self.serve_queue(model)
        flush_all(self.touched)

    def _send_held(self, call: Call, leg: Leg, connection: Sender) -> None:
        """Send what has arrived of the body; keep it for another try while it is small."""
        held = call.held
        if held is None:
            return
        if call.tries > 1:
            leg.credited = call.credited
        if len(held) == 1 and call.tries == 1:  # the usual call: the loop below without what it need not do
            if connection.send_data(leg, held[0], call.receive_closed):
                call.connection.credit(call, call.held_bytes)
        else:
            last = len(held) - 1
            for index, payload in enumerate(held):
                if connection.send_data(leg, payload, call.receive_closed and index == last):
                    connection.on_drained(leg, len(payload))
        if call.info.streaming:
            if call.streamed is not None:
                call.streamed.begin(leg, held)
            self.drop_replay(call)
        elif call.held_bytes > KEPT_FREELY and not self.may_keep(call, call.uncounted):
            self.drop_replay(call)

    def _home_of(self, sequence: SequenceRef, call: Call, candidates: list[Replica]) -> list[Replica]:
        """Where a sequence's request must go: the replica that holds its state, draining or not. A start that
        is not known yet, or comes again while its replica drains, is pinned by the choice that follows; with
        several workers, by the choice that all of them would make."""
        now = self.loop.time()
        home = self.sequences.replica_of(sequence.key, now)
        if home is not None and any(connection.usable for connection in home.connections):
            leaves = sequence.start and home.row.draining and candidates
            if not leaves:
                return [home]
        if sequence.start:
            if not candidates:
                return []
            chosen = (
                pointed_at(sequence.key, candidates) if self.workers > 1 else self.policy.pick(candidates)
            )
            self.sequences.pin(sequence.key, chosen, now)
            return [chosen]
        if self.workers > 1:
            serving = [replica for replica in self.replicas.values() if call.model in replica.row.models]
            holders = (call.needs.narrowed(serving, self.regions) if call.needs else serving) or candidates
            return [pointed_at(sequence.key, holders)] if holders else []
        return candidates

    def _wait(self, call: Call) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._waiting = deque(one for one in self._waiting if one.waiting)
        if len(self._waiting) >= MAX_WAITING:
            self.refuse(
                call,
                Status.RESOURCE_EXHAUSTED,
                f"{MAX_WAITING} requests already wait for a replica with room",
            )
            return
        call.waiting = call.delayed = True
        self._waiting.append(call)

    def _why_none(self, call: Call) -> str:
        if self.table is None:
            return "the router has not yet heard from its controller"
        rows = self.table.replicas
        if not rows:
            return f"no replica of fleet {self.table.fleet!r} is ready; `tritonfleet ps` says why"
        lost = [replica for replica in self.replicas.values() if not replica.reachable]
        draining = sum(row.draining for row in rows)
        what = str(call.needs) if call.needs else f"model {call.model!r}" if call.model else "this request"
        detail = f"{draining} of {len(rows)} replicas draining, {len(lost)} not reachable"
        if lost:
            detail += f" (last: {lost[-1].id}: {lost[-1].last_error})"
        return f"no replica can take {what}: {detail}; `tritonfleet ps` says why"

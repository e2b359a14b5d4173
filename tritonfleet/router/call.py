"""One call on its way through the router: `Call` on the client's connection, `Leg` on the replica's.

They are streams of their connections and each other's ``partner``. The leg owns the in-flight count: it is
taken by `Leg` when it is made and given back by `finish`, exactly once, whatever ends the call.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from tritonfleet.core.cost import Attribution
from tritonfleet.core.histogram import Histogram
from tritonfleet.http2.fields import Fields
from tritonfleet.http2.sending import Sender
from tritonfleet.http2.stream import Buffer, Stream

if TYPE_CHECKING:
    from tritonfleet.core.queue import Waiting
    from tritonfleet.router.grpc import RequestInfo
    from tritonfleet.router.needs import Needs
    from tritonfleet.router.peek import SequenceRef
    from tritonfleet.router.replica import Replica
    from tritonfleet.router.streamed import Streamed


class CallStats:
    """Cumulative counters for one (instance, model)."""

    __slots__ = (
        "attribution",
        "busy_s",
        "codes",
        "decoupled",
        "expected_s",
        "in_flight",
        "latency",
        "model",
        "served",
        "slots",
        "streamed",
        "streaming",
        "streams",
    )

    def __init__(self, model: str = "") -> None:
        self.model = model
        self.slots = 0  # how many calls it can usefully hold at once; 0: no limit
        self.busy_s = 0.0  # with less expected work than this there may be more
        self.decoupled = False  # may answer a request often, and end it unseen
        self.attribution = Attribution()
        self.in_flight = 0
        self.codes: dict[int, int] = {}
        self.served = 0  # inferences that succeeded, but for those of decoupled models
        self.expected_s = 0.0  # what those were expected to take, in all
        self.latency = Histogram()
        self.streaming = 0  # of those in flight: requests in streams
        self.streamed = 0  # requests in streams that have ended
        self.streams = 0  # streams that have ended: codes counts each as one

    @property
    def held(self) -> int:
        """How many of its slots are taken. Requests in streams take some, too, but nobody holds them back:
        half of the slots are kept from them, or one stream could keep all others waiting."""
        return self.in_flight - max(0, self.streaming - self.slots // 2)


class Call(Stream):
    """A client's request. ``held`` is what has arrived of its body and was not yet sent to a replica, or is
    kept for sending again; ``replayable`` tells whether ``held`` is the whole body so far."""

    __slots__ = (
        "answered",
        "credited",
        "deadline",
        "delayed",
        "done",
        "entry",
        "fields",
        "held",
        "held_bytes",
        "info",
        "kept",
        "model",
        "needs",
        "queued_at",
        "received",
        "refused_by",
        "replayable",
        "sequence",
        "streamed",
        "tries",
        "waiting",
    )

    credited: int
    """Of the bytes in ``held``, those its client was credited for; only set when it is tried again."""

    def __init__(self, connection: Sender, stream_id: bytes, fields: Fields, info: RequestInfo) -> None:
        Stream.__init__(self, connection, stream_id)
        self.fields = fields
        self.info = info
        self.model: str | None = None
        self.needs: Needs | None = None  # a version, or regions: not every replica of the model has them
        self.held: list[Buffer] | None = []
        self.held_bytes = 0
        self.replayable = True
        self.answered = False  # response headers have been passed on
        self.received = 0  # bytes of its body, counted where a content-length says how many there are
        self.done = False  # fully answered: more of the request's body is thrown away
        self.waiting = False  # in the router's queue for a connection with room
        self.tries = 0
        self.kept = 0  # bytes of its body that count among those kept for another try
        self.sequence: SequenceRef | None = None
        self.streamed: Streamed | None = None  # of a stream of inferences: the requests in it
        self.deadline: float | None = None  # by the loop's clock
        self.queued_at: float | None = None  # when it first had to wait, by the loop's clock
        self.entry: Waiting[Call] | None = None  # its place in a queue
        self.delayed = False  # its time upstream is shorter than its client gave it
        self.refused_by: Replica | None = None  # not asked again while another can be

    @property
    def uncounted(self) -> int:
        """Bytes it holds that do not count as kept yet (whole reads count, which are more than it holds)."""
        return max(0, self.held_bytes - self.kept)


class Leg(Stream):
    """The same request on a replica's connection. ``credited``: how many of the bytes still to be sent the
    client has already been credited for, when they went to another replica before."""

    __slots__ = ("cost_s", "credited", "finished", "replica", "size", "started", "stats")

    def __init__(
        self, connection: Sender, stream_id: bytes, replica: Replica, stats: CallStats, now: float
    ) -> None:
        Stream.__init__(self, connection, stream_id)
        self.replica = replica
        self.stats = stats
        self.credited = 0
        self.cost_s = 0.0  # what it is expected to take of the replica's time
        self.size = 0  # bytes of the request's message
        self.finished = False
        self.started = now  # by perf_counter
        replica.in_flight += 1
        stats.in_flight += 1

    @property
    def age_s(self) -> float:
        return perf_counter() - self.started

    def finish(self, status: int, *, timed: bool) -> None:
        """Give the in-flight count back and note how it ended. Later calls do nothing."""
        if self.finished:
            return
        self.finished = True
        replica = self.replica
        replica.in_flight -= 1
        now = perf_counter()
        if self.size:
            replica.work_s -= self.cost_s
            replica.progress_at = now
        stats = self.stats
        stats.in_flight -= 1
        stats.codes[status] = stats.codes.get(status, 0) + 1
        if timed:
            stats.latency.record(now - self.started)
        else:  # a stream never is
            call: Call | None = self.partner  # type: ignore[assignment] # a Leg's partner is a Call
            if call is not None and call.streamed is not None:
                call.streamed.end()

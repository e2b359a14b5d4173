"""What a worker reports of itself: gauges as of now, counters since it started."""

from time import perf_counter

from tritonfleet.core.wire import CallTelemetry, ReplicaTelemetry, RouterTelemetry
from tritonfleet.router.call import Call, Leg
from tritonfleet.router.dispatch import Dispatcher
from tritonfleet.router.replica import Replica


def telemetry(
    dispatcher: Dispatcher, *, worker: int, pid: int, started_at: float, settings: str = ""
) -> RouterTelemetry:
    replicas = (*dispatcher.replicas.values(), *dispatcher.retired.values())
    return RouterTelemetry(
        worker=worker,
        pid=pid,
        started_at=started_at,
        table_revision=dispatcher.table.revision if dispatcher.table else 0,
        client_connections=len(dispatcher.clients),
        requests_total=dispatcher.requests_total,
        refused_total=dispatcher.refused_total,
        retries_total=dispatcher.retries_total,
        replicas=tuple(_replica(replica, perf_counter()) for replica in replicas),
        calls=tuple(call for replica in replicas for call in _calls(replica)),
        waiting=dispatcher.waiting_count,
        listening=dispatcher.listening,
        waiting_by_model={
            name: work.waiting for name, work in dispatcher.work.models.items() if work.waiting
        },
        refused_by_status={str(code): count for code, count in dispatcher.refused_by_status.items()},
        retries_denied_total=dispatcher.retries_denied_total,
        waits={
            name: (work.waits.sparse(), work.waits.sum_s)
            for name, work in dispatcher.work.models.items()
            if work.waits.count
        },
        panics_total=dispatcher.panics_total,
        settings=settings,
    )


def _replica(replica: Replica, now: float) -> ReplicaTelemetry:
    legs = [leg for connection in replica.connections for leg in connection.streams.values()]
    running = [leg for leg in legs if isinstance(leg, Leg) and not leg.finished]
    return ReplicaTelemetry(
        instance=replica.instance,
        in_flight=replica.in_flight,
        streams=sum(leg.partner.info.streaming for leg in running if leg.partner is not None),  # type: ignore[attr-defined] # a Leg's partner is a Call
        oldest_in_flight_s=max((now - started for leg in running for started in _started(leg)), default=0.0),
        connections=sum(connection.usable for connection in replica.connections),
        reachable=replica.reachable,
        last_error=replica.last_error,
        sequences=replica.sequences,
        ejected=replica.ejected_until is not None,
        ejections=replica.ejections,
        pace=replica.pace,
        slow_starts=replica.slow_starts,
    )


def _started(leg: Leg) -> tuple[float, ...]:
    """When the oldest of what a call has in flight was sent; nothing, if it is a stream that rests."""
    call: Call | None = leg.partner  # type: ignore[assignment] # a Leg's partner is a Call
    if call is None or call.streamed is None:
        return (leg.started,)
    oldest = call.streamed.oldest
    return () if oldest is None else (oldest,)


def _calls(replica: Replica) -> list[CallTelemetry]:
    return [
        CallTelemetry(
            instance=replica.instance,
            model=model,
            in_flight=stats.in_flight,
            codes={str(code): count for code, count in stats.codes.items()},
            latency=stats.latency.sparse(),
            latency_sum_s=stats.latency.sum_s,
            served=stats.served,
            expected_s=stats.expected_s,
            streamed=stats.streamed,
            streams=stats.streams,
        )
        for model, stats in replica.stats.items()
    ]

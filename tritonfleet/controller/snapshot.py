"""The fleet as `ps`, `describe` and the dashboard show it: one consistent reading."""

import os

import tritonfleet
from tritonfleet.config import pool_hash
from tritonfleet.config.schema import router_hash
from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.pulls import waiting
from tritonfleet.core.model import Replica, ReplicaState
from tritonfleet.core.reconcile import BROKEN, COMING, LEAVING
from tritonfleet.core.wire import ControllerInfo, FleetSnapshot, ModelReading, PoolSnapshot, RouterInfo
from tritonfleet.drivers.clock import steady_time as time


def snapshot(fleet: Fleet) -> FleetSnapshot:
    now = time()
    pulls = fleet.driver.pulls()
    replicas = tuple(waiting(replica, _image(fleet, replica), pulls) for replica in fleet.replicas())
    return FleetSnapshot(
        fleet=fleet.spec.name,
        at=now,
        driver=fleet.driver.name,
        config_path=str(fleet.file),
        state_dir=str(fleet.paths.root),
        table_revision=fleet.feed.revision,
        stopping=fleet.stopping,
        controller=ControllerInfo(os.getpid(), fleet.started_at, tritonfleet.__version__),
        router=RouterInfo(
            str(fleet.spec.router.listen),
            fleet.spec.router.policy,
            fleet.workers.infos(now),
            fleet.spec.router.external,
            router_hash(fleet.spec),
        ),
        devices=fleet.desk.infos(replicas),
        pools=tuple(_pool(fleet, name, replicas) for name in fleet.spec.pools),
        replicas=replicas,
        readings=_readings(fleet, now),
        cold_starts_s={
            slot.id: slot.cold_start_s for slot in fleet.slots.values() if slot.cold_start_s is not None
        },
        pulls=tuple(pull for pull in pulls if pull.ended_at is None),
        certificates=fleet.certificates.found,
    )


def _image(fleet: Fleet, replica: Replica) -> str:
    pool = fleet.spec.pools.get(replica.pool)
    return pool.triton.image if pool is not None else ""


def _pool(fleet: Fleet, name: str, replicas: tuple[Replica, ...]) -> PoolSnapshot:
    own = [replica for replica in replicas if replica.pool == name]
    pool = fleet.spec.pools[name]
    ready = [slot for slot in fleet.slots.values() if slot.pool == name and slot.ready_at is not None]
    pin = fleet.autoscaler.pins.get(name)
    newest = max(ready, key=lambda slot: slot.ready_at or 0.0, default=None)

    def count(*states: ReplicaState) -> int:
        return sum(replica.state in states for replica in own if not (replica.held and replica.handle == ""))

    return PoolSnapshot(
        name=name,
        desired=fleet.size_of(name),
        minimum=pool.replicas.min,
        maximum=pool.replicas.max,
        pinned=name in fleet.sizes,
        ready=count(ReplicaState.READY),
        starting=count(*COMING),
        failed=count(*BROKEN),
        draining=count(*LEAVING),
        config_hash=pool_hash(fleet.spec, name),
        model_repository=pool.model_repository,
        reason=fleet.autoscaler.reason(name),
        cold_start_s=newest.cold_start_s if newest else None,
        autoscaled=fleet.autoscaler.autoscaled(name),
        pinned_until=pin.until if pin and name in fleet.sizes else None,
    )


def _readings(fleet: Fleet, now: float) -> tuple[ModelReading, ...]:
    return tuple(
        ModelReading(
            replica=slot.id,
            model=rates.model,
            version=rates.version,
            age_s=now - slot.reading.at,
            window_s=rates.window_s,
            request_rate=rates.request_rate,
            failure_rate=rates.failure_rate,
            inference_rate=rates.inference_rate,
            execution_rate=rates.execution_rate,
            queue_s=rates.queue_s,
            compute_s=rates.compute_s,
            requests_total=slot.reading.counters[rates.model, rates.version].success_count,
            failures_total=slot.reading.counters[rates.model, rates.version].failure_count,
        )
        for slot in fleet.slots.values()
        if slot.reading is not None
        for rates in slot.reading.rates
    )

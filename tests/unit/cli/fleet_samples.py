"""A fleet in the middle of everything, for what is shown; all its times are relative to `NOW`."""

from tritonfleet.core.model import DeviceKind, Event, ModelStatus, Replica, ReplicaState
from tritonfleet.core.wire import (
    AutoscaleAnswer,
    AutoscaleSignal,
    AutoscaleStatus,
    ControllerInfo,
    DeviceInfo,
    FleetSnapshot,
    ModelReading,
    PoolSnapshot,
    RouterInfo,
    WorkerInfo,
)

NOW = 1_800_000_000.0
HASH = "0123456789ab"
NEW_HASH = "ba9876543210"
LONG = (
    "exited with code 1: failed to load 'broken' version 1: Internal: ModuleNotFoundError: No module named "
    "'transformers'; starting it failed 4 times within 10 minutes"
)


def replica(name: str = "main-0", state: ReplicaState = ReplicaState.READY, **changes: object) -> Replica:
    values: dict[str, object] = {
        "id": name,
        "pool": name.rpartition("-")[0],
        "generation": 1,
        "state": state,
        "since": NOW - 190,
        "reason": "all 5 models ready after 2.1 s",
        "config_hash": HASH,
        "devices": ("cpu0",),
        "host": "127.0.0.1",
        "grpc_port": 40101,
        "http_port": 40102,
        "metrics_port": 40103,
        "handle": "pid 4242",
        "started_at": NOW - 192,
        "ready_at": NOW - 190,
        "in_flight": 3,
        "models": (ModelStatus("digits", True, ("1",)), ModelStatus("echo", True, ("1",))),
    }
    return Replica(**(values | changes))  # type: ignore[arg-type] # each test names real fields


def pool(name: str = "main", **changes: object) -> PoolSnapshot:
    values: dict[str, object] = {
        "name": name,
        "desired": 2,
        "minimum": 1,
        "maximum": 4,
        "pinned": False,
        "ready": 2,
        "starting": 0,
        "failed": 0,
        "draining": 0,
        "config_hash": HASH,
        "model_repository": "/srv/models",
        "reason": "initial size of the fleet file",
        "cold_start_s": 2.1,
    }
    return PoolSnapshot(**(values | changes))  # type: ignore[arg-type]


def worker(**changes: object) -> WorkerInfo:
    values: dict[str, object] = {
        "index": 0,
        "pid": 4100,
        "started_at": NOW - 200,
        "running": True,
        "restarts": 0,
        "table_revision": 7,
        "telemetry_age_s": 0.2,
        "client_connections": 4,
        "requests_total": 1234,
        "request_rate": 41.5,
    }
    return WorkerInfo(**(values | changes))  # type: ignore[arg-type]


def autoscale_status(**changes: object) -> AutoscaleStatus:
    """Of a pool that is held, one target of which lacks its signal."""
    values: dict[str, object] = {
        "pool": "main",
        "mode": "on",
        "size": 2,
        "minimum": 1,
        "maximum": 4,
        "at": NOW,
        "wanted": 2,
        "asked": 9,
        "clipped": "replicas.max is 4",
        "reason": "2 held: at most target_utilization asks for 2 (1.20 replicas' worth of work arrives)",
        "ready": 2,
        "cold_start_s": 2.1,
        "forecast": "level 1.20, trend +0.10 a minute",
        "answers": (
            AutoscaleAnswer("target_utilization", 2, "1.20 replicas' worth of work arrives"),
            AutoscaleAnswer("latency.p99", None, "p99 is missing"),
        ),
        "signals": (
            AutoscaleSignal("utilization", 0.6, 1.0, "", 0.7, "60 %"),
            AutoscaleSignal("p99_s", None, None, "missing", None, "unknown"),
        ),
        "changed_at": NOW - 90,
    }
    return AutoscaleStatus(**(values | changes))  # type: ignore[arg-type]


def snapshot(**changes: object) -> FleetSnapshot:
    """Two ready replicas of one pool, unless ``changes`` say otherwise."""
    values: dict[str, object] = {
        "fleet": "demo",
        "at": NOW,
        "driver": "process",
        "config_path": "/srv/tritonfleet.yaml",
        "state_dir": "/state/demo",
        "table_revision": 7,
        "stopping": False,
        "controller": ControllerInfo(pid=4000, started_at=NOW - 200, version="0.1.0"),
        "router": RouterInfo("127.0.0.1:8001", "least_requests", (worker(),)),
        "devices": (
            DeviceInfo("cpu0", DeviceKind.CPU, "CPU slot"),
            DeviceInfo("cpu1", DeviceKind.CPU, "CPU slot"),
        ),
        "pools": (pool(),),
        "replicas": (replica("main-0"), replica("main-1", devices=("cpu1",), grpc_port=40111, in_flight=0)),
        "readings": (),
        "cold_starts_s": {"main-0": 2.1},
    }
    return FleetSnapshot(**(values | changes))  # type: ignore[arg-type]


def busy_snapshot() -> FleetSnapshot:
    """Every state at once, two pools, statistics of which one is stale."""
    return snapshot(
        pools=(
            pool(
                desired=4, ready=1, starting=2, failed=1, draining=1, pinned=True, reason="scale: 4 replicas"
            ),
            pool(
                "image",
                desired=1,
                ready=0,
                failed=1,
                minimum=1,
                maximum=1,
                reason="minimum of the fleet file",
            ),
        ),
        replicas=(
            replica("main-0"),
            replica(
                "main-1",
                ReplicaState.LOADING,
                reason="server runs; ports not open yet",
                in_flight=None,
                started_at=NOW - 1.4,
            ),
            replica(
                "main-2",
                ReplicaState.PENDING,
                reason="waits for a free device: 2 of 2 slots are used",
                devices=(),
                grpc_port=0,
                http_port=0,
                metrics_port=0,
                handle="",
                started_at=None,
                in_flight=None,
                models=(),
            ),
            replica(
                "main-3", ReplicaState.DRAINING, reason="scaled down", in_flight=None, drain_deadline=NOW + 42
            ),
            replica(
                "main-4",
                ReplicaState.FAILED,
                reason="killed by SIGKILL",
                restarts=1,
                retry_at=NOW + 0.6,
                in_flight=None,
            ),
            replica(
                "image-0",
                ReplicaState.CRASH_LOOP,
                reason=LONG,
                restarts=4,
                retry_at=NOW + 57,
                in_flight=None,
                generation=5,
                models=(ModelStatus("broken", False, (), "failed to load"),),
            ),
        ),
        readings=(
            ModelReading("main-0", "digits", "1", 0.8, 2.0, 40.0, 0.0, 80.0, 10.0, 0.00042, 0.0183, 1234, 0),
            ModelReading("main-0", "echo", "1", 31.0, 2.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 10, 3),
        ),
    )


def event(seq: int = 1, kind: str = "replica.ready", subject: str = "main-0", **changes: object) -> Event:
    values: dict[str, object] = {
        "seq": seq,
        "at": NOW + seq,
        "type": kind,
        "subject": subject,
        "reason": "all 5 models ready after 2.1 s",
    }
    return Event(**(values | changes))  # type: ignore[arg-type]

"""Where new replicas would go, as the controller itself decides it, and what `plan` prints."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cli_runs import Cli, fleet_file
from control_server import ControlServer
from fleet_samples import HASH, NEW_HASH, NOW, pool, replica, snapshot

from tritonfleet.cli.placements import Placed, placements
from tritonfleet.cli.plan import PoolWish
from tritonfleet.core.model import Device, DeviceKind
from tritonfleet.core.placement import DeviceView
from tritonfleet.core.wire import FleetSnapshot

GPUS = tuple(Device(f"GPU-{index}", DeviceKind.GPU, memory_bytes=80 << 30) for index in range(3))
WISH = PoolWish("main", 1, 4, 2, HASH)
RUNNING = snapshot(
    replicas=(replica("main-0", devices=("GPU-0",)), replica("main-1", devices=("GPU-2",))), pools=(pool(),)
)


def placed(wish: PoolWish, running: FleetSnapshot | None = None, **free: int) -> tuple[Placed, ...]:
    names = {name.replace("_", "-"): size << 30 for name, size in free.items()}
    return placements([wish], running, GPUS, DeviceView(names), NOW)


@pytest.mark.parametrize(
    ("wish", "running", "ids"),
    [
        (WISH, None, [("main-0", ("GPU-0",)), ("main-1", ("GPU-1",))]),
        (WISH, RUNNING, []),
        (replace(WISH, size=3), RUNNING, [("main-2", ("GPU-1",))]),
        (replace(WISH, size=4), RUNNING, [("main-2", ("GPU-1",)), ("main-3", ())]),
        (replace(WISH, config_hash=NEW_HASH), RUNNING, [("main-2", ("GPU-1",))]),
        (replace(WISH, size=1, per_replica=2), None, [("main-0", ("GPU-0", "GPU-1"))]),
        (replace(WISH, size=4, per_device=2), None, [
            ("main-0", ("GPU-0",)), ("main-1", ("GPU-1",)), ("main-2", ("GPU-2",)), ("main-3", ("GPU-0",)),
        ]),
    ],
)  # fmt: skip
def test_new_replicas_and_their_devices(
    wish: PoolWish, running: FleetSnapshot | None, ids: list[tuple[str, tuple[str, ...]]]
) -> None:
    assert [(one.replica, one.devices) for one in placed(wish, running)] == ids


def test_what_others_use_counts() -> None:
    (one,) = placed(replace(WISH, size=1), GPU_0=10, GPU_1=79, GPU_2=20)
    assert one == Placed("main-0", ("GPU-1",), "GPU-1 is free")


def test_what_has_no_room_says_why() -> None:
    *_, last = placed(replace(WISH, size=4), None)
    assert last == Placed("main-3", (), "no free device: all 3 are taken (1 per device)")


def test_plan_shows_the_devices(cli: Cli, tmp_path: Path) -> None:
    fleet_file(tmp_path)
    outcome = cli("plan")
    assert outcome.code == 5
    assert outcome.out.splitlines()[2:] == [
        "NEW REPLICA  DEVICE  WHY",
        "main-0       cpu0    cpu0 is free",
        "main-1       cpu1    cpu1 is free",
    ]
    assert "main-1       cpu1" in cli("up", "--dry-run").out


def test_plan_as_data(cli: Cli, tmp_path: Path, control: ControlServer) -> None:
    fleet_file(tmp_path, replicas={"min": 1, "max": 1})
    outcome = cli("plan", "-o", "json")
    found = json.loads(outcome.out)
    assert outcome.code == 5
    assert found["removed"] == ["main-1"]
    assert found["new"] == []
    assert "scale pool main from 2 to 1" in found["changes"]
    control.snapshots = [snapshot(replicas=(), pools=())]
    new = json.loads(cli("plan", "-o", "json").out)["new"]
    assert [(one["replica"], one["devices"]) for one in new] == [("main-0", ["cpu0"])]
    assert cli("plan", "-o", "name").out.split() == ["main-0"]


def test_a_device_that_is_set_aside_is_not_chosen() -> None:
    (one,) = placements([replace(WISH, size=1)], None, GPUS, DeviceView(aside=("GPU-0",)), NOW)
    assert one.devices == ("GPU-1",)

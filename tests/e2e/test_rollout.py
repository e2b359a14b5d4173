"""A real fleet is changed under load: to a good file, to a bad one, and back. No request fails."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_fleet import RunningFleet, running_fleet
from slow_work import Work

pytestmark = [pytest.mark.triton, pytest.mark.timeout(240), pytest.mark.xdist_group("fleet_rollout")]

POOL: dict[str, Any] = {
    "devices": 3,
    "models": ["text_work"],
    "replicas": {"min": 1, "initial": 2, "max": 3},
    "restart": {"backoff": "100ms", "max_backoff": "1s"},
}
ENVIRONMENT = {"exit_timeout": "5s", "env": {"STAGE": "two"}}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    with running_fleet(tmp_path_factory.mktemp("rollout"), **POOL) as fleet:
        yield fleet


def history(fleet: RunningFleet) -> list[tuple[int, str, str]]:
    with fleet.client() as client:
        return [(one.number, one.by, one.status) for one in client.rollout().revisions]


def has_in_environment(pid: int, text: str) -> bool:
    return text.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def test_a_change_a_bad_one_and_the_way_back_lose_no_request(fleet: RunningFleet) -> None:
    with Work(fleet.address, threads=3, words=50, pause_s=0.02) as work:
        before = fleet.pids()
        fleet.write(**POOL, triton=ENVIRONMENT)
        assert "replace the replicas of pool main one by one" in fleet.cli("plan", check=5).stdout
        fleet.cli("up", "-d", "--wait")
        changed = fleet.pids()
        assert not set(changed.values()) & set(before.values())
        assert all(has_in_environment(pid, "STAGE=two") for pid in changed.values())
        assert "deployed" in fleet.cli("rollout", "status").stdout

        fleet.write(**POOL, triton={"exit_timeout": "5s", "args": ["--no-such-option"]})
        failed = fleet.cli("up", "-d", "--wait", check=1)
        assert "revision 3 was rolled back: main-" in failed.stderr
        assert "no-such-option" in failed.stderr  # Triton's own words
        assert fleet.cli("rollout", "status", check=1).stdout.count("rolled back") == 1
        fleet.until(lambda f: history(f)[-1] == (4, "rollback", "deployed"), "it is rolled back")
        assert fleet.pids() == changed, "no replica that served was touched"
        (told,) = fleet.events("rollout.rolled_back")
        assert told["data"] == {"revision": 3, "to": 2}

        fleet.cli("rollout", "undo", "1", "--wait")
        assert not any(has_in_environment(pid, "STAGE=two") for pid in fleet.pids().values())
        shown = json.loads(fleet.cli("rollout", "history", "-o", "json").stdout)
        assert [(one["number"], one["by"], one["status"]) for one in shown] == [
            (1, "start", "deployed"),
            (2, "up", "deployed"),
            (3, "up", "rolled_back"),
            (4, "rollback", "deployed"),
            (5, "undo", "deployed"),
        ]
        assert "there is no revision 9" in fleet.cli("rollout", "undo", "9", check=2).stderr
    assert work.done > 100
    assert work.failures == []


def test_a_device_where_replicas_crash_is_set_aside_and_taken_back(fleet: RunningFleet) -> None:
    fleet.cli("scale", "3", "--wait")
    victim = next(one for one in fleet.replicas().values() if "cpu0" in one["devices"])["id"]
    for generation in range(3):
        pid = fleet.pids()[victim]
        os.kill(pid, signal.SIGSEGV)
        fleet.until(lambda f, old=pid: f.pids().get(victim) != old, "its end is noticed")
        if generation < 2:
            fleet.ready(3)
    fleet.until(lambda f: f.replicas()[victim]["state"] == "pending", "it has nowhere to go")
    assert fleet.replicas()[victim]["reason"].endswith("set aside: cpu0")
    (row,) = [line for line in fleet.cli("ps").stdout.splitlines() if "set aside  " in line]
    assert row.split()[:4] == ["cpu0", "✗", "set", "aside"]
    described = fleet.cli("describe", "device/cpu0").stdout
    assert "killed by SIGSEGV" in described
    assert "device.set_aside" in described
    fleet.cli("undrain", "device/cpu0")
    fleet.ready(3)
    fleet.cli("drain", "device/cpu1")
    fleet.until(lambda f: not [r for r in f.replicas().values() if "cpu1" in r["devices"]], "it is emptied")
    fleet.cli("undrain", "device/cpu1")
    fleet.ready(3)

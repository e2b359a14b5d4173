"""Revisions as `rollout` shows them, and what a rolled back one means to those who wait."""

import json
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest
from control_server import serve
from fleet_samples import HASH, NEW_HASH, NOW, snapshot

from tritonfleet.cli import rollout as command
from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.fleet import Target
from tritonfleet.cli.terminal import Output, ProgressKind, Settings
from tritonfleet.cli.up import wait_settled
from tritonfleet.controller.paths import FleetPaths
from tritonfleet.core.rollout import PoolProgress, Revision, RolloutStatus

FIRST = Revision(
    1, NOW - 900, "start", "/srv/demo/tritonfleet.yaml", "started with this file", status="deployed"
)
BAD = Revision(
    2, NOW - 60, "up", "/srv/demo/tritonfleet.yaml", "pool main: replicas are replaced one by one",
    status="rolled_back", reason="main-2 fails again and again: exited with code 1", replica="main-2",
)  # fmt: skip
BACK = Revision(3, NOW - 50, "rollback", "/srv/demo/tritonfleet.yaml", "pool main as in revision 1")
POOL = PoolProgress("main", HASH, "rolling", f"1 of 2 ready with configuration {HASH}", 2, 1, 0)


def test_history_tells_what_failed_and_why() -> None:
    assert command.history((FIRST, BAD, BACK), 200, UTC).plain.splitlines() == [
        "REVISION  AT                   BY        STATUS       REASON",
        "       1  2027-01-15 07:45:00  start     deployed     started with this file",
        "       2  2027-01-15 07:59:00  up        rolled back  pool main: replicas are replaced one by one: "
        "main-2 fails again and again: exited with code 1",
        "       3  2027-01-15 07:59:10  rollback  rolling      pool main as in revision 1",
    ]


def test_status_shows_what_was_asked_for_and_what_runs_instead() -> None:
    text = command.state_of(RolloutStatus((FIRST, BAD, BACK), (POOL,)), 200, UTC).plain
    asked, runs, pools = text.split("\n\n")
    assert "rolled back" in asked
    assert "main-2 fails again and again" in asked
    assert "pool main as in revision 1" in runs
    assert pools.splitlines()[1].split()[:5] == ["main", "rolling", "2", "1", "0"]
    alone = command.state_of(RolloutStatus((FIRST,), (POOL,)), 200, UTC).plain
    assert alone.count("Revision") == 1


@pytest.fixture
def target(tmp_path: Path) -> Target:
    paths = FleetPaths.of("demo", {"TRITONFLEET_STATE_DIR": str(tmp_path)})
    paths.make()
    (paths.logs / "main-2.log").write_text("E1124 model_repository_manager.cc:1 failed to load 'broken'\n")
    return Target("demo", paths, None)


SETTINGS = Settings(output=Output.JSON, progress=ProgressKind.QUIET)


def test_who_waits_for_a_change_that_is_rolled_back_learns_why(target: Target) -> None:
    with serve(target.paths.control_socket) as server, target.client() as client:
        server.snapshots = [snapshot()]
        server.rollout = RolloutStatus((FIRST, BAD, BACK), (POOL,))
        with pytest.raises(CliError) as raised:
            wait_settled(client, target, SETTINGS, 5, rollout=True)
        error = raised.value
        assert error.code is ExitCode.FAILED
        assert str(error) == "revision 2 was rolled back: main-2 fails again and again: exited with code 1"
        assert any("failed to load 'broken'" in line for line in error.details)
        assert wait_settled(client, target, SETTINGS, 5), "who scales does not care for old changes"
        newer = replace(BAD, number=4, status="deployed")
        server.rollout = RolloutStatus((FIRST, BAD, BACK, newer), ())
        assert wait_settled(client, target, SETTINGS, 5, rollout=True)


def test_data_for_programs(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    command._history(SETTINGS, (FIRST, BAD))
    assert [one["status"] for one in json.loads(capsys.readouterr().out)] == ["deployed", "rolled_back"]
    command._status(SETTINGS, RolloutStatus((FIRST,), (POOL,)))
    told = json.loads(capsys.readouterr().out)
    assert told["pools"][0]["config_hash"] == HASH != NEW_HASH

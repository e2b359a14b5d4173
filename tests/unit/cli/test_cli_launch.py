"""A controller is started by several at once: one of them holds the fleet, and all go on with that one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_runs import Cli, fleet_file
from control_server import ControlServer, serve
from fleet_samples import NOW, snapshot

from tritonfleet.cli import launch
from tritonfleet.controller.__main__ import lock
from tritonfleet.controller.paths import FleetPaths
from tritonfleet.core.wire import ControllerInfo

pytestmark = pytest.mark.processes


@contextmanager
def held_by_another(paths: FleetPaths) -> Iterator[list[ControlServer]]:
    """It answers only after ours has ended: one that adopts replicas takes its time."""
    over, servers, log = threading.Event(), list[ControlServer](), paths.controller_log

    def later() -> None:
        while not log.exists() or "runs already" not in log.read_text():
            if over.wait(0.05):
                return
        with serve(paths.control_socket) as server:
            nobody = ControllerInfo(
                pid=(1 << 22) + 1, started_at=NOW, version="0"
            )  # beyond what Linux can give
            server.snapshots, server.close_after = [snapshot(controller=nobody)], "/down"
            servers.append(server)
            over.wait(60)

    with lock(paths):
        thread = threading.Thread(target=later)
        thread.start()
        try:
            yield servers
        finally:
            over.set()
            thread.join()


def test_who_was_slower_hands_its_file_and_sizes_to_the_other(
    cli: Cli, paths: FleetPaths, tmp_path: Path
) -> None:
    fleet_file(tmp_path)
    with held_by_another(paths) as servers:
        outcome = cli("up", "-d", "-y", "--scale", "main=3")
    assert outcome.code == 0, outcome.err
    (applied,) = [body for _, path, body in servers[0].requests if path == "/apply"]
    assert applied["sizes"] == {"main": 3}
    assert "the fleet is already running" in outcome.err


def test_a_fleet_that_is_just_starting_can_be_taken_down(cli: Cli, paths: FleetPaths, tmp_path: Path) -> None:
    fleet_file(tmp_path)
    with held_by_another(paths) as servers:
        outcome = cli("down", "-y")
    assert outcome.code == 0, outcome.err
    assert [path for method, path, _ in servers[0].requests if method == "POST"] == ["/down"]
    assert "fleet demo is stopped" in outcome.err


def test_one_that_holds_the_fleet_and_never_answers_is_told_of(
    cli: Cli, paths: FleetPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "START_TIMEOUT_S", 4.0)
    fleet_file(tmp_path)
    with lock(paths):
        outcome = cli("up", "-d")
    assert outcome.code == 3
    assert "another controller holds the fleet and did not answer within 4 s" in outcome.err


def test_a_variable_that_is_no_text_is_not_handed_over(
    cli: Cli, paths: FleetPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can stand in no fleet file, and not in JSON."""
    monkeypatch.setenv("LATIN", "caf\udce9")
    monkeypatch.setenv("PLAIN", "café")
    fleet_file(tmp_path)
    with serve(paths.control_socket) as server:
        server.snapshots = [snapshot()]
        outcome = cli("up", "-d", "-y")
    assert outcome.code == 0, outcome.err
    (applied,) = [body for method, path, body in server.requests if path == "/apply"]
    assert applied["environ"]["PLAIN"] == "café"
    assert "LATIN" not in applied["environ"]


def test_a_state_folder_that_cannot_be_made_is_told_of(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRITONFLEET_STATE_DIR", str(tmp_path / "file"))
    fleet_file(tmp_path)
    outcome = cli("up", "-d")
    assert outcome.code == 1
    assert f"the fleet's state cannot be kept in {tmp_path}/file/demo: Not a directory" in outcome.err

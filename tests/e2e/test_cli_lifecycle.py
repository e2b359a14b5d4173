"""How fleets begin and end by the command line, and what it says when they cannot."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from attached import attach
from running_fleet import RunningFleet, stop

pytestmark = pytest.mark.triton


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[RunningFleet]:
    """A fleet that is not up; whatever the test starts is ended."""
    found = RunningFleet(tmp_path, models=["digits"])
    try:
        yield found
    finally:
        stop(found)


def broken_repository(folder: Path) -> Path:
    model = folder / "models" / "broken"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text('name: "broken"\nbackend: "python"\n')
    (model / "1" / "model.py").write_text("import a_module_that_is_not_there\n")
    return folder / "models"


def test_attached_up_lets_go_on_ctrl_c_and_down_leaves_nothing(idle: RunningFleet) -> None:
    idle.write(models=["digits"], replicas={"min": 1, "max": 1})
    attached = attach(idle, "up")
    try:
        assert attached.stderr is not None
        lines = []
        while "following events" not in (line := attached.stderr.readline()):
            assert line, "".join(lines)
            lines.append(line)
        said = "".join(lines)
        assert "◑ loading" in said or "◔ starting" in said
        assert "main 1 of 1 ready" in said
        os.kill(attached.pid, signal.SIGINT)
        _, err = attached.communicate(timeout=30)
        assert attached.returncode == 130
        assert "goes on" in err
    finally:
        attached.kill()
        attached.communicate()
    assert len(idle.replicas()) == 1
    idle.cli("down", "-y")
    idle.until(lambda f: not f.processes(), "no process left", timeout=10)
    left = {path.name for path in idle.state.rglob("*") if path.is_file() or path.is_socket()}
    assert not any(name.endswith((".sock", ".pid")) for name in left)
    assert "is not running" in idle.cli("down", "-y").stderr
    assert idle.cli("ps", check=4).stdout == ""
    assert "controller.started" in idle.cli("events").stdout  # the journal stays


def test_a_port_in_use_is_told_before_anything_starts(idle: RunningFleet) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", idle.port))
        other.listen()
        refused = idle.cli("up", "-d", "--wait", check=1)
    assert f"{idle.address} is taken by another program" in refused.stderr
    assert "TRITONFLEET_PORT" in refused.stderr
    assert idle.processes() == {}


def test_a_model_that_fails_to_load_is_told_with_triton_s_own_words(
    idle: RunningFleet, tmp_path: Path
) -> None:
    idle.write(
        model_repository=str(broken_repository(tmp_path)),
        replicas={"min": 1, "max": 1},
        restart={"backoff": "500ms", "max_backoff": "1s", "crash_loop_after": 2},
    )
    failed = idle.cli("up", "-d", "--wait", check=1)
    assert "error: main-0 is in crash_loop" in failed.stderr
    assert "a_module_that_is_not_there" in failed.stderr
    assert "  | E" in failed.stderr  # a line of Triton's log
    assert "tritonfleet logs main-0" in failed.stderr
    assert "✗ failed" in failed.stderr


def test_a_wait_that_ends_too_early_says_for_what(idle: RunningFleet) -> None:
    early = idle.cli("up", "-d", "--wait", "--wait-timeout", "1ms", check=3)
    assert "still waiting after 1ms for main: 0 of 2 ready" in early.stderr


def test_down_after_the_controller_was_killed(idle: RunningFleet) -> None:
    idle.cli("up", "-d", "--wait")
    os.kill(idle.snapshot()["controller"]["pid"], signal.SIGKILL)
    unreachable = idle.cli("ps", check=4)
    assert "tritonfleet up -d" in unreachable.stderr
    assert len(idle.processes()) >= 2  # replicas and router go on
    idle.cli("down", "-y")
    idle.until(lambda f: not f.processes(), "no process left", timeout=10)


def test_the_controller_in_the_foreground_ends_alone(idle: RunningFleet) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(idle.folder / "notify"))
    manager.settimeout(60)
    idle.environ["NOTIFY_SOCKET"] = str(idle.folder / "notify")
    service = attach(idle, "controller")
    try:
        told = [manager.recv(4096).decode()]
        while not told[-1].startswith("READY=1\n"):
            told.append(manager.recv(4096).decode())
        assert told[0].startswith("STATUS=main: 0 of 2 ready")
        assert told[-1] == "READY=1\nSTATUS=main: 2 of 2 ready"
        idle.ready(2)
        assert idle.snapshot()["controller"]["pid"] == service.pid
        before = idle.pids()
        for pid in before.values():
            assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()
        service.terminate()
        service.communicate(timeout=30)
        assert service.returncode == 0
    finally:
        service.kill()
        service.communicate()
        manager.close()
    assert set(before.values()) <= set(idle.processes())
    idle.cli("up", "-d", "--wait")
    assert idle.pids() == before


def test_a_smaller_file_asks_before_ready_replicas_go(idle: RunningFleet) -> None:
    idle.cli("up", "-d", "--wait")
    idle.write(models=["digits"], replicas={"min": 1, "max": 1})
    refused = idle.cli("up", "-d", "--wait", check=2)
    assert "removes 1 ready replicas: main-1" in refused.stderr
    assert len(idle.replicas()) == 2
    idle.cli("up", "-d", "--wait", "-y")
    assert list(idle.replicas()) == ["main-0"]


def test_scale_beyond_the_devices_is_refused_with_the_numbers(idle: RunningFleet) -> None:
    idle.write(devices=2, models=["digits"], replicas={"min": 1, "max": 2})
    spec = json.loads(idle.file.read_text())
    spec["pools"]["other"] = spec["pools"]["main"] | {"models": ["echo"], "replicas": {"min": 0, "max": 2}}
    idle.file.write_text(json.dumps(spec))
    idle.cli("up", "-d", "--wait")
    assert "must say which" in idle.cli("scale", "2", check=2).stderr
    idle.cli("scale", "other=1", "--wait")
    refused = idle.cli("scale", "other=2", check=2)
    assert refused.stderr.startswith("error: ")
    assert "need 3 devices; there are 2" in refused.stderr
    assert len(idle.replicas()) == 2
    spec["pools"]["main"]["replicas"]["max"] = 4
    idle.file.write_text(json.dumps(spec))
    refused = idle.cli("up", "-d", check=2)
    assert "pools.main.replicas" in refused.stderr
    assert "add devices" in refused.stderr

"""The command line against a real fleet: what a person types in a day."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from attached import attach
from running_fleet import REPOSITORY, RunningFleet, running_fleet, stop

pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("cli_fleet")]

FIRST_INFERENCE = REPOSITORY.parent / "scripts" / "first_inference.py"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    with running_fleet(tmp_path_factory.mktemp("cli"), models=["digits", "echo"]) as fleet:
        yield fleet


def test_ps_shows_what_runs(fleet: RunningFleet) -> None:
    shown = fleet.cli("ps").stdout
    assert f"router {fleet.address} (1 of 1 workers" in shown
    assert shown.count("● ready") == 2
    assert max(len(line) for line in shown.splitlines()) <= 140
    snapshot = fleet.snapshot()
    assert {replica["id"] for replica in snapshot["replicas"]} == {"main-0", "main-1"}
    wide = fleet.cli("ps", "-o", "wide").stdout
    assert "digits,echo" in wide
    assert fleet.cli("ps", "-o", "name").stdout.split() == ["main-0", "main-1"]
    assert fleet.cli("--fleet", fleet.name, "ps", "-o", "name").stdout.split() == ["main-0", "main-1"]


def test_first_inference_is_right(fleet: RunningFleet) -> None:
    for digit in ("3", "7"):
        done = subprocess.run(
            [sys.executable, str(FIRST_INFERENCE), "--address", fleet.address, "--digit", digit],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"digits says: {digit}" in done.stdout


def test_bench_measures_and_tells_the_replicas(fleet: RunningFleet, tmp_path: Path) -> None:
    """One model tells who answered, the other does not: then Triton's statistics do."""
    np.savez(tmp_path / "in.npz", INPUT0=np.arange(60, dtype=np.uint8).reshape(3, 20))
    told = fleet.cli(
        "bench", "echo", "--input-data", str(tmp_path / "in.npz"), "--concurrency-range", "1:4:3",
        "--request-count", "60", "-o", "json",
    )  # fmt: skip
    shaped = fleet.cli("bench", "echo", "--shape", "INPUT0:1000", "--request-count", "10")
    assert "10 answers in" in shaped.stdout
    levels = json.loads(told.stdout)["levels"]
    assert [(level["value"], level["requests"], level["failures"]) for level in levels] == [
        (1, 60, {}),
        (4, 60, {}),
    ]
    assert set(levels[1]["replicas"]) == {"main-0", "main-1"}
    assert levels[1]["server"]["requests"] == 60
    shown = fleet.cli(
        "bench", "digits", "--request-rate-range", "400", "--request-count", "80", "-b", "2",
        "--request-distribution", "poisson",
    ).stdout  # fmt: skip
    assert f"digits on {fleet.address}" in shown
    assert "by Triton's statistics" in shown
    assert "80 answers in" in shown


def test_bench_says_what_is_wrong(fleet: RunningFleet) -> None:
    assert "INPUT0 has no fixed shape" in fleet.cli("bench", "echo", check=2).stderr
    assert "Request for unknown model" in fleet.cli("bench", "nobody", check=1).stderr
    assert "cannot connect to 127.0.0.1:1:" in fleet.cli("bench", "echo", "-u", "127.0.0.1:1", check=1).stderr


def test_scale_up_and_down_and_what_it_says(fleet: RunningFleet) -> None:
    grown = fleet.cli("scale", "3", "--wait")
    assert grown.stdout == ""
    assert "main-2" in grown.stderr
    assert "pool main: 3 of 3 ready" in grown.stderr
    assert fleet.snapshot()["pools"][0]["pinned"]
    fleet.cli("scale", "main=2", "--wait")
    assert sorted(fleet.replicas()) == ["main-0", "main-1"]
    assert any(event["type"] == "pool.scaled" for event in fleet.events())


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("9", "9"),
        ("0", "0"),
    ],
)
def test_scale_beyond_its_bounds_is_refused_with_the_numbers(
    fleet: RunningFleet, size: str, words: str
) -> None:
    refused = fleet.cli("scale", size, check=2)
    assert refused.stderr.startswith("error: ")
    assert words in refused.stderr
    assert len(fleet.replicas()) == 2


def test_drain_and_undrain(fleet: RunningFleet) -> None:
    fleet.cli("drain", "main-1")
    fleet.until(
        lambda f: f.replicas().get("main-1", {}).get("state") != "ready" and len(f.pids()) >= 1,
        "main-1 out of service",
    )
    fleet.cli("undrain", "main-1")
    fleet.ready(2)


def test_restart_is_a_new_process_in_the_same_slot(fleet: RunningFleet) -> None:
    before = fleet.replicas()["main-0"]
    fleet.cli("restart", "main-0")
    fleet.until(
        lambda f: (
            f.replicas()["main-0"]["generation"] > before["generation"]
            and f.replicas()["main-0"]["state"] == "ready"
        ),
        "main-0 restarted",
    )
    fleet.ready(2)
    assert fleet.replicas()["main-0"]["handle"] != before["handle"]


def test_unknown_replica(fleet: RunningFleet) -> None:
    for command in ("drain", "restart", "describe"):
        refused = fleet.cli(command, "mian-0", check=2)
        assert "did you mean 'main-0'?" in refused.stderr


def test_describe_logs_and_events_show_triton_s_words(fleet: RunningFleet) -> None:
    described = fleet.cli("describe", "main-0").stdout
    assert "● ready" in described
    assert "Model digits" in described
    assert "replica.ready" in described
    assert "digits" in fleet.cli("logs", "main-0", "--tail", "1000").stdout
    assert "main-1 | " in fleet.cli("logs", "main").stdout
    assert fleet.cli("logs", "router").stdout
    assert fleet.cli("logs", "controller").stdout
    assert "bounds 1..4" in fleet.cli("describe", "main").stdout
    device = fleet.snapshot()["devices"][0]["id"]
    assert "Kind" in fleet.cli("describe", f"device/{device}").stdout


def test_events_are_followed_until_ctrl_c(fleet: RunningFleet) -> None:
    following = attach(fleet, "events", "-f", "--type", "pool.scaled", "-o", "json")
    try:
        fleet.cli("scale", "2")
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["type"] == "pool.scaled"
        os.kill(following.pid, signal.SIGINT)
        following.communicate(timeout=30)
        assert following.returncode == 130
    finally:
        following.kill()
        following.communicate()


def test_up_on_a_running_fleet_changes_nothing(fleet: RunningFleet) -> None:
    before = fleet.pids()
    again = fleet.cli("up", "-d", "--wait")
    assert "already running" in again.stderr
    assert fleet.pids() == before
    assert "already is as tritonfleet.yaml says" in fleet.cli("up", "--dry-run").stdout


def test_a_second_fleet_on_the_same_port_says_so(fleet: RunningFleet, tmp_path: Path) -> None:
    second = RunningFleet(tmp_path, models=["digits"])
    try:
        second.port = fleet.port
        second.write(models=["digits"])
        refused = second.cli("up", "-d", "--wait", check=1)
        assert f"{fleet.address} is taken by another program" in refused.stderr
        assert "router.listen" in refused.stderr
        assert second.processes() == {}
    finally:
        stop(second)


def test_models_are_unloaded_and_loaded_on_every_replica(fleet: RunningFleet) -> None:
    fleet.cli("scale", "2", "--wait")
    rows = [line.split()[:3] for line in fleet.cli("models", "ls").stdout.splitlines()]
    assert ["digits", "main", "2/2"] in rows
    assert ["echo", "main", "2/2"] in rows
    unloaded = fleet.cli("models", "unload", "echo")
    assert "0/2" in unloaded.stdout
    assert "echo unloaded on 2 replicas" in unloaded.stderr
    with fleet.direct("main-1") as replica:
        assert not replica.is_model_ready("echo")
    loaded = json.loads(fleet.cli("models", "load", "echo", "-o", "json").stdout)
    assert [(model["ready"], model["versions"]) for model in loaded] == [(2, ["1"])]
    refused = fleet.cli("models", "load", "nothing", check=1)
    assert "model 'nothing' is not loaded: " in refused.stderr
    assert "did you mean 'echo'?" in fleet.cli("models", "unload", "ecko", check=2).stderr


def test_a_model_that_one_replica_lacks_is_told(fleet: RunningFleet) -> None:
    with fleet.direct("main-1") as replica:
        replica.unload_model("echo")
        fleet.until(lambda f: "main-1: unloaded" in f.cli("models", "ls", "echo").stdout, "it is seen")
    assert "1/2" in fleet.cli("models", "ls", "echo").stdout
    assert "2/2" in fleet.cli("models", "load", "echo").stdout


def test_doctor_finds_a_running_fleet_well(fleet: RunningFleet) -> None:
    fleet.ready(2)
    found = fleet.cli("doctor")
    assert "✓ pool main" in found.stdout
    assert f"{fleet.address} answers: the fleet is ready" in found.stdout
    assert f"{fleet.address}: the fleet runs" in found.stdout

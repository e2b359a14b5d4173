"""What the controller does with real replicas: replace them one by one, drain them, end those that hang."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from background import Background
from running_fleet import REPOSITORY, RunningFleet, running_fleet

pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("controller_replicas")]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    with running_fleet(
        tmp_path_factory.mktemp("replicas"),
        models=["echo", "text_work", "repeat"],
        # A machine that is busy with other tests may keep a healthy replica waiting for a second or two.
        health={"interval": "200ms", "timeout": "3s", "failures": 3},
    ) as fleet:
        yield fleet


class Calls(Background):
    """Unary calls one after another in the background; every failure is kept."""

    def __init__(self, address: str) -> None:
        super().__init__(address, threads=3)

    def _run(self) -> None:
        values = np.zeros(64, np.uint8)
        given = triton.InferInput("INPUT0", [64], "UINT8")
        given.set_data_from_numpy(values)
        with triton.InferenceServerClient(self.address) as client:
            while not self._stop.is_set():
                try:
                    client.infer("echo", [given])
                    self.done += 1
                except triton.InferenceServerException as error:
                    self.failures.append(str(error))
                time.sleep(0.02)


def rewritten(fleet: RunningFleet, **pool: Any) -> None:
    spec = json.loads(fleet.file.read_text())
    spec["pools"]["main"] |= pool
    fleet.file.write_text(json.dumps(spec))


def test_a_new_configuration_replaces_every_replica_and_fails_no_call(fleet: RunningFleet) -> None:
    before = fleet.pids()
    old = fleet.snapshot()["pools"][0]["config_hash"]
    rewritten(fleet, triton={"exit_timeout": "5s", "env": {"LEVEL": "2"}})
    with Calls(fleet.address) as calls:
        fleet.cli("up", "-d", "--wait", "-y")
        count = calls.done
        fleet.until(lambda _fleet: calls.done > count + 50, "calls go on")
    assert calls.failures == []
    replicas = fleet.replicas().values()
    assert len(replicas) == 2
    assert {replica["config_hash"] for replica in replicas}.isdisjoint({old})
    assert set(fleet.pids().values()).isdisjoint(before.values())
    (pid, _) = fleet.pids().values()
    assert b"LEVEL=2" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    (told, *_) = [event["reason"] for event in fleet.events("replica.draining")]
    assert old in told


def test_a_drain_waits_for_the_call_that_runs(fleet: RunningFleet) -> None:
    """A decoupled call of twenty answers, a quarter second apart, is on the replica when it is drained."""
    fleet.cli("scale", "1", "--wait")
    (name,) = fleet.replicas()
    answers: list[Any] = []
    values = np.arange(12, dtype=np.int32)
    given = [triton.InferInput("IN", [12], "INT32"), triton.InferInput("DELAY_MS", [12], "UINT32")]
    given[0].set_data_from_numpy(values)
    given[1].set_data_from_numpy(np.full(12, 250, np.uint32))
    with triton.InferenceServerClient(fleet.address) as client:
        client.start_stream(lambda result, error: answers.append((result, error)))
        client.async_stream_infer("repeat", given)
        fleet.until(lambda _fleet: answers, "the first answer")
        fleet.until(lambda f: f.replicas()[name]["in_flight"] == 1, "the call is counted")
        fleet.cli("drain", name)
        drained = fleet.replicas()[name]
        assert drained["state"] == "draining"
        assert drained["in_flight"] == 1
        fleet.until(lambda _fleet: len(answers) == 12, "all answers")
        assert [error for _, error in answers] == [None] * 12
        client.stop_stream()
    fleet.until(lambda f: f.replicas()[name]["state"] == "pending", "drained and stopped")
    assert "undrain" in fleet.replicas()[name]["reason"]
    stopping = [event for event in fleet.events("replica.stopping") if event["subject"] == name]
    assert "nothing is in flight any more" in stopping[-1]["reason"]
    fleet.cli("undrain", name)
    fleet.cli("scale", "2", "--wait")


def test_one_that_hangs_is_found_by_its_probes_and_replaced(fleet: RunningFleet) -> None:
    fleet.cli("scale", "2", "--wait")
    before = fleet.pids()
    other, hung = sorted(before)  # whatever replacements have left: main-0 and main-1, or later ones
    os.kill(before[hung], signal.SIGSTOP)
    try:
        fleet.until(lambda f: f.pids().get(hung) not in (None, before[hung]), "a new process")
    finally:
        if Path(f"/proc/{before[hung]}").exists():
            os.kill(before[hung], signal.SIGCONT)
    fleet.ready(2)
    told = [event for event in fleet.events("replica.unhealthy") if event["subject"] == hung]
    assert "3 health probes in a row failed, the last one: no answer within 3 s" in told[-1]["reason"]
    assert fleet.pids()[other] == before[other]
    assert before[hung] not in fleet.processes()


def test_a_configuration_that_cannot_load_leaves_the_old_replicas_serving(
    fleet: RunningFleet, tmp_path: Path
) -> None:
    fleet.cli("scale", "2", "--wait")
    before = fleet.pids()
    broken = tmp_path / "models"
    (broken / "bad" / "1").mkdir(parents=True)
    (broken / "bad" / "config.pbtxt").write_text('name: "bad"\nbackend: "python"\n')
    (broken / "bad" / "1" / "model.py").write_text("import no_such_module\n")
    rewritten(
        fleet,
        model_repository=str(broken),
        models=["*"],
        restart={"backoff": "200ms", "max_backoff": "500ms", "crash_loop_after": 2},
    )
    with Calls(fleet.address) as calls:
        refused = fleet.cli("up", "-d", "--wait", "-y", check=1)
        assert "no_such_module" in refused.stderr
        assert {name: fleet.pids()[name] for name in before} == before
        rewritten(fleet, model_repository=str(REPOSITORY), models=["echo", "text_work", "repeat"])
        fleet.cli("up", "-d", "--wait", "-y")
    assert calls.failures == []
    assert sorted(fleet.pids()) == sorted(before)
    assert fleet.pids() == before


def test_statistics_are_tritons_own(fleet: RunningFleet) -> None:
    fleet.cli("scale", "1", "--wait")
    with Calls(fleet.address):
        fleet.until(
            lambda f: any(
                reading["model"] == "echo" and reading["request_rate"] > 1 and reading["compute_s"] > 0
                for reading in f.snapshot()["readings"]
            ),
            "a rate of echo",
        )

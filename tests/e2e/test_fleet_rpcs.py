"""RPCs that speak of the whole fleet, on real fleets: sent to all, replayed, added up, kept across deaths."""

import os
import shutil
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
from tritonclient.utils import InferenceServerException, shared_memory

pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("fleet_rpcs")]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RunningFleet]:
    with running_fleet(tmp_path, models=["digits", "echo"]) as fleet:
        yield fleet


@pytest.fixture
def client(fleet: RunningFleet) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(fleet.address) as client:
        yield client


def digits(client: Any, count: int = 1) -> Any:
    images = triton.InferInput("IMAGE", [count, 64], "FP32")
    images.set_data_from_numpy(np.zeros((count, 64), np.float32))
    return client.infer("digits", [images])


def echo(client: Any) -> Any:
    values = triton.InferInput("INPUT0", [5], "UINT8")
    values.set_data_from_numpy(np.frombuffer(b"hello", np.uint8))
    return client.infer("echo", [values])


def inferences(client: Any, model: str = "digits") -> int:
    """The fleet's count of batch items."""
    entries = client.get_inference_statistics(model).model_stats
    return sum(entry.inference_count for entry in entries)


def direct(fleet: RunningFleet, replica: str) -> triton.InferenceServerClient:
    client: triton.InferenceServerClient = fleet.direct(replica)
    return client


class Repeating(Background):
    """Does something again and again in a thread; keeps what came of it."""

    def __init__(self, address: str, what: Any) -> None:
        super().__init__(address, threads=1)
        self.what = what
        self.results: list[Any] = []

    def _run(self) -> None:
        with triton.InferenceServerClient(self.address) as client:
            while not self._stop.wait(0.01):
                try:
                    self.results.append(self.what(client))
                except InferenceServerException as error:
                    self.failures.append(str(error))


def kill(fleet: RunningFleet, replica: str) -> None:
    before = fleet.replicas()[replica]["generation"]
    os.kill(fleet.pids()[replica], signal.SIGKILL)
    fleet.until(
        lambda f: (now := f.replicas()[replica])["state"] == "ready" and now["generation"] > before,
        f"{replica} is back",
    )


def test_a_replacement_has_what_clients_set_before_it_serves(
    fleet: RunningFleet, client: triton.InferenceServerClient
) -> None:
    client.unload_model("echo")
    client.update_log_settings({"log_verbose_level": 1})
    client.update_trace_settings("digits", {"trace_rate": "321"})
    with (
        Repeating(fleet.address, echo) as unloaded,
        Repeating(fleet.address, lambda c: c.is_model_ready("echo")) as readiness,
        Repeating(fleet.address, digits) as load,
    ):
        kill(fleet, "main-1")
        for _ in range(100):  # through both replicas
            with pytest.raises(InferenceServerException):
                echo(client)
    assert unloaded.results == []
    assert not any(readiness.results)
    assert load.results
    assert "3 settings replayed" in fleet.replicas()["main-1"]["reason"]
    with direct(fleet, "main-1") as replica:
        assert not replica.is_model_ready("echo")
        assert replica.get_log_settings().settings["log_verbose_level"].uint32_param == 1
        assert replica.get_trace_settings("digits").settings["trace_rate"].value == ["321"]
    client.load_model("echo")
    for _ in range(10):
        echo(client)
    kill(fleet, "main-0")
    for _ in range(20):
        echo(client)


def settled(client: triton.InferenceServerClient) -> int:
    """The count, when the requests that were answered just now are in it."""
    before, now = -1, inferences(client)
    while before != now:
        time.sleep(0.5)
        before, now = now, inferences(client)
    return now


def test_statistics_never_go_backwards(fleet: RunningFleet, client: triton.InferenceServerClient) -> None:
    fleet.cli("scale", "3", "--wait")
    with Repeating(fleet.address, inferences) as counts:
        with Repeating(fleet.address, digits) as load:
            fleet.until(lambda _: len(load.results) > 200, "work on three replicas")
            fleet.cli("scale", "1", "--wait")
            fleet.until(lambda f: len(f.replicas()) == 1, "two replicas are gone")
        assert load.failures == []
        done = len(load.results)
        # Triton counts a request shortly after its answer: the sum may be late, what is lost stays lost.
        fleet.until(lambda _: inferences(client) >= done, "all that was answered is in the sum")
        assert inferences(client) == done, "nothing is counted twice"
        kill(fleet, "main-0")
        assert inferences(client) >= counts.results[-1]
        for _ in range(5):
            digits(client)
        before = settled(client)
        for how in (signal.SIGKILL, signal.SIGTERM):
            os.kill(fleet.snapshot()["controller"]["pid"], how)
            fleet.until(lambda _: counts.failures and "controller" in counts.failures[-1], "it is gone")
            counts.failures.clear()
            fleet.cli("up", "-d", "--scale", "1", "--wait")
            assert inferences(client) == before, "nothing is lost, and nothing counted twice"
    assert counts.results == sorted(counts.results)
    assert len(counts.results) > 50


def test_a_region_is_known_to_every_replica_of_now_and_later(
    fleet: RunningFleet, client: triton.InferenceServerClient
) -> None:
    key = f"/tf{os.urandom(6).hex()}"
    region = shared_memory.create_shared_memory_region("images", key, 8 * 64 * 4)
    try:
        shared_memory.set_shared_memory_region(region, [np.zeros((8, 64), np.float32)])
        client.register_system_shared_memory("images", key, 8 * 64 * 4)
        fleet.cli("scale", "3", "--wait")
        assert "1 setting replayed" in fleet.replicas()["main-2"]["reason"]
        images = triton.InferInput("IMAGE", [8, 64], "FP32")
        images.set_shared_memory("images", 8 * 64 * 4)
        for _ in range(30):
            assert client.infer("digits", [images]).as_numpy("LABEL").shape == (8, 1)
        client.unregister_system_shared_memory("images")
        for replica in fleet.replicas():
            with direct(fleet, replica) as one:
                assert not one.get_system_shared_memory_status().regions
        with pytest.raises(InferenceServerException, match="Unable to find shared memory region"):
            client.infer("digits", [images])
        fleet.cli("scale", "4", "--wait")
        assert "replayed" not in fleet.replicas()["main-3"]["reason"]
    finally:
        shared_memory.destroy_shared_memory_region(region)


def test_a_region_whose_memory_is_gone_keeps_no_replica_from_serving(
    fleet: RunningFleet, client: triton.InferenceServerClient
) -> None:
    key = f"/tf{os.urandom(6).hex()}"
    region = shared_memory.create_shared_memory_region("gone", key, 64)
    client.register_system_shared_memory("gone", key, 64)
    shared_memory.destroy_shared_memory_region(region)
    fleet.cli("scale", "3", "--wait")
    (skipped,) = fleet.events("setting.skipped")
    assert skipped["subject"] == "main-2"
    assert "the replica serves without SystemSharedMemoryRegister 'gone'" in skipped["reason"]


def test_a_trace_setting_of_a_model_that_was_unloaded_keeps_no_replica_from_serving(
    fleet: RunningFleet, client: triton.InferenceServerClient
) -> None:
    """One server remembers it until the model is there again; while it is not, Triton knows no such model."""
    client.update_trace_settings("echo", {"trace_rate": "321"})
    client.unload_model("echo")
    kill(fleet, "main-1")
    (skipped,) = fleet.events("setting.skipped")
    assert skipped["subject"] == "main-1"
    assert "without TraceSetting 'echo': INVALID_ARGUMENT" in skipped["reason"]
    client.load_model("echo")
    for replica in ("main-0", "main-1"):
        with direct(fleet, replica) as one:
            assert one.get_trace_settings("echo").settings["trace_rate"].value == ["321"]


def test_a_partial_failure_is_told_precisely(
    fleet: RunningFleet, client: triton.InferenceServerClient
) -> None:
    """And requests that name the region go where it was registered, not where another has its name."""
    key, foreign_key = f"/tf{os.urandom(6).hex()}", f"/tf{os.urandom(6).hex()}"
    region = shared_memory.create_shared_memory_region("mine", key, 64)
    foreign = shared_memory.create_shared_memory_region("mine", foreign_key, 64)
    try:
        for one, value in ((region, 1), (foreign, 2)):
            shared_memory.set_shared_memory_region(one, [np.full(64, value, np.uint8)])
        with direct(fleet, "main-1") as behind_its_back:
            behind_its_back.register_system_shared_memory("mine", foreign_key, 64)
        with pytest.raises(InferenceServerException) as refused:
            client.register_system_shared_memory("mine", key, 64)
        assert refused.value.status() == "StatusCode.ALREADY_EXISTS"
        assert refused.value.message() == (
            "tritonfleet: done on 1 of 2 replicas (main-0), not on the others: "
            "main-1: ALREADY_EXISTS: shared memory region 'mine' already in manager"
        )
        values = triton.InferInput("INPUT0", [64], "UINT8")
        values.set_shared_memory("mine", 64)
        for _ in range(20):
            assert set(client.infer("echo", [values]).as_numpy("OUTPUT0")) == {1}
    finally:
        shared_memory.destroy_shared_memory_region(region)
        shared_memory.destroy_shared_memory_region(foreign)


def test_a_change_outlives_its_clients_deadline(
    fleet: RunningFleet, client: triton.InferenceServerClient
) -> None:
    client.unload_model("echo")
    with pytest.raises(InferenceServerException) as late:
        client.load_model("echo", client_timeout=0.1)  # a Python model takes longer
    assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    loaded = "model echo loaded on 2 replicas"
    fleet.until(lambda f: loaded in [event["reason"] for event in f.events("setting.model")], loaded)
    for _ in range(10):
        echo(client)


def test_without_a_controller_and_after_it(fleet: RunningFleet, client: triton.InferenceServerClient) -> None:
    client.unload_model("echo")
    digits(client)
    before = inferences(client)
    os.kill(fleet.snapshot()["controller"]["pid"], signal.SIGKILL)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    digits(client)
    for refused in (
        lambda: client.load_model("echo"),
        lambda: client.get_inference_statistics(),
        lambda: client.get_system_shared_memory_status(),
    ):
        with pytest.raises(InferenceServerException, match="needs its controller") as error:
            refused()
        assert error.value.status() == "StatusCode.UNAVAILABLE"
        assert "`tritonfleet up` starts the controller again" in error.value.message()
    fleet.cli("up", "-d", "--wait")
    assert inferences(client) > before
    assert not client.is_model_ready("echo")
    kill(fleet, "main-0")
    with direct(fleet, "main-0") as replica:
        assert not replica.is_model_ready("echo")
    client.load_model("echo")
    for _ in range(10):
        echo(client)


def test_what_cannot_be_replayed_is_said_and_healed_by_taking_it_back(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    for model in ("digits", "echo"):
        shutil.copytree(REPOSITORY / model, repository / model)
    (tmp_path / "fleet").mkdir()
    with (
        running_fleet(
            tmp_path / "fleet", models=["digits"], model_repository=str(repository),
            restart={"backoff": "500ms", "max_backoff": "1s"},
        ) as fleet,
        triton.InferenceServerClient(fleet.address) as client,
    ):  # fmt: skip
        assert not client.is_model_ready("echo")
        client.load_model("echo")
        for _ in range(10):
            echo(client)
        shutil.rmtree(repository / "echo")
        fleet.cli("scale", "3")
        words = "a setting of the fleet could not be replayed: RepositoryModelLoad 'echo': INTERNAL: "
        fleet.until(
            lambda f: any(words in event["reason"] for event in f.events("replica.failed")),
            "the failure and its reason are told",
        )
        assert sum(r["state"] == "ready" for r in fleet.replicas().values()) == 2
        client.unload_model("echo")
        fleet.ready(3)


def test_down_ends_what_clients_had_set(fleet: RunningFleet, client: triton.InferenceServerClient) -> None:
    client.unload_model("echo")
    assert list((fleet.state / fleet.name / "settings").iterdir())
    fleet.cli("down", "-y")
    assert not (fleet.state / fleet.name / "settings").exists()
    assert not (fleet.state / fleet.name / "statistics.json").exists()
    fleet.cli("up", "-d", "--wait")
    echo(client)

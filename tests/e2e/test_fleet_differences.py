"""Replicas that are not alike: in the versions they have, in what others load them with."""

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from running_fleet import REPOSITORY, RunningFleet, free_port, running_fleet
from test_fleet_traffic import replica_of, tensor
from test_metrics import scrape
from tritonclient.utils import InferenceServerException

pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("fleet_differences")]

METRICS = f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """Two replicas of `echo`, of which only the latest of two versions is loaded, and of `text_work`."""
    folder = tmp_path_factory.mktemp("differences")
    for model in ("echo", "text_work"):
        shutil.copytree(REPOSITORY / model, folder / "models" / model)
    shutil.copytree(REPOSITORY / "echo" / "1", folder / "models" / "echo" / "2")
    (folder / "fleet").mkdir()
    with running_fleet(
        folder / "fleet", model_repository=str(folder / "models"), metrics={"listen": METRICS}
    ) as fleet:
        yield fleet


@pytest.fixture
def client(fleet: RunningFleet) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(fleet.address) as client:
        yield client


def direct(fleet: RunningFleet, replica: str) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(f"127.0.0.1:{fleet.replicas()[replica]['grpc_port']}")


def echo(client: Any, version: str = "") -> str:
    """Who answered."""
    given = [tensor("INPUT0", np.zeros(4, np.uint8), "UINT8")]
    return replica_of(client.infer("echo", given, model_version=version))


def error_of(client: Any, version: str) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as refused:
        echo(client, version)
    return str(refused.value.status()), str(refused.value.message())


def test_a_version_is_asked_of_replicas_that_have_it(
    fleet: RunningFleet, client: triton.InferenceServerClient
) -> None:
    with direct(fleet, "main-0") as replica:
        assert error_of(client, "1") == error_of(replica, "1")  # nobody has it: Triton's own words
        config = replica.get_model_config("echo", as_json=True)["config"]
        config["version_policy"] = {"specific": {"versions": [1, 2]}}
        replica.load_model("echo", config=json.dumps(config))
        fleet.until(lambda _: _versions(fleet, "main-0") == ["1", "2"], "the controller knows of version 1")
        assert client.is_model_ready("echo", "1")
        fleet.until(lambda _: all(_answers(client, "1") for _ in range(10)), "the router knows of it")
        assert Counter(echo(client, "1") for _ in range(20)) == {"main-0": 20}
        assert set(Counter(echo(client, version) for version in ("", "2") * 10)) == {"main-0", "main-1"}
        assert error_of(client, "3") == error_of(replica, "3")
    index = {(entry.version, entry.state) for entry in client.get_model_repository_index().models
             if entry.name == "echo"}  # fmt: skip
    assert index == {("1", "READY"), ("2", "READY")}
    for _ in range(10):
        assert client.get_model_metadata("echo", "1").versions == ["1"]


def _versions(fleet: RunningFleet, replica: str) -> list[str]:
    """Of `echo`, sorted."""
    models = fleet.replicas()[replica]["models"]
    return sorted(next((model["versions"] for model in models if model["name"] == "echo"), []))


def _answers(client: Any, version: str) -> bool:
    try:
        return bool(echo(client, version))
    except InferenceServerException:
        return False


# ---------------------------------------------------------------- work that did not come through the router


def words(client: Any, count: int) -> str:
    text = tensor("TEXT", np.array([[b"word " * count]], np.object_), "BYTES")
    return replica_of(client.infer("text_work", [text]))


@contextmanager
def busy(fleet: RunningFleet, replica: str, threads: int = 3) -> Iterator[None]:
    """Others keep a replica at work, past the router."""
    stop = threading.Event()

    def ask() -> None:
        with direct(fleet, replica) as one:
            while not stop.is_set():
                words(one, 500)

    asking = [threading.Thread(target=ask, daemon=True) for _ in range(threads)]
    for thread in asking:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in asking:
            thread.join(30)


def pace(replica: str) -> float:
    return scrape(METRICS)["tritonfleet_replica_pace", f"replica={replica}"]


def test_a_replica_that_others_load_gets_less(
    fleet: RunningFleet, client: triton.InferenceServerClient
) -> None:
    """Its requests of `echo` take too little time to tell the router of it; Triton's statistics do."""
    fleet.until(lambda _: pace("main-0") == pace("main-1") == 1.0, "slow starts, if any, are over")
    with busy(fleet, "main-1"):
        fleet.until(lambda _: pace("main-1") >= 2.0, "the router knows that main-1 is loaded")
        assert Counter(echo(client) for _ in range(30)) == {"main-0": 30}  # the other one is always free
    assert pace("main-0") == 1.0
    fleet.until(lambda _: pace("main-1") == 1.0, "what is over is forgotten")

"""`restart router` under load: one worker or two, no call fails, and a stream goes on to its end."""

from collections.abc import Iterator
from queue import Queue
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from background import Background
from running_fleet import RunningFleet, running_fleet
from test_fleet_traffic import Load, tensor
from tritonclient.grpc import service_pb2

pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("router_restart")]

MODELS = ["echo", "repeat"]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    with running_fleet(tmp_path_factory.mktemp("restart"), models=MODELS) as fleet:
        yield fleet


class Newcomers(Background):
    """Clients that connect, ask once and go: what the queue of a listening socket is full of."""

    def __init__(self, address: str) -> None:
        super().__init__(address, threads=3)

    def _run(self) -> None:
        ready = "/inference.GRPCInferenceService/ServerMetadata"
        while not self._stop.is_set():
            options = [("grpc.use_local_subchannel_pool", 1)]  # or all would share one connection
            with grpc.insecure_channel(self.address, options) as channel:
                try:
                    answer = channel.unary_unary(ready)(b"", timeout=60)
                    assert service_pb2.ServerMetadataResponse.FromString(answer).name == "triton"
                    self.done += 1
                except grpc.RpcError as error:
                    self.failures.append(repr(error))


def workers(fleet: RunningFleet) -> dict[int, dict[str, Any]]:
    """By pid."""
    return {worker["pid"]: worker for worker in fleet.snapshot()["router"]["workers"]}


def replaced(fleet: RunningFleet, before: dict[int, dict[str, Any]], count: int) -> bool:
    now = workers(fleet)
    return len(now) == count and not now.keys() & before.keys()


@pytest.mark.parametrize("count", [1, 2])
def test_new_workers_take_over_and_nothing_fails(fleet: RunningFleet, count: int) -> None:
    if count == 2:
        fleet.write(models=MODELS, router={"workers": 2})
        assert "router: workers are replaced one by one" in fleet.cli("up", "-d", "--wait").stderr
        fleet.until(lambda f: len(workers(f)) == 2, "two workers")
        fleet.until(
            lambda f: not any("finishes" in w["reason"] for w in workers(f).values()), "the old one gone"
        )
    before = workers(fleet)
    assert len(before) == count
    answers: Queue[tuple[Any, Any]] = Queue()
    values = np.arange(25, dtype=np.int32)
    with (
        triton.InferenceServerClient(fleet.address) as streaming,
        Load(fleet.address, threads=3) as load,
        Newcomers(fleet.address) as newcomers,
    ):
        streaming.start_stream(lambda result, error: answers.put((result, error)))
        delay = tensor("DELAY_MS", np.array([100], np.uint32), "UINT32")
        streaming.async_stream_infer("repeat", [tensor("IN", values, "INT32"), delay])
        load.advance(50)
        assert "the router restarts" in fleet.cli("restart", "router").stderr
        got = [answers.get(timeout=30) for _ in values]
        streaming.stop_stream()
        fleet.until(lambda f: replaced(f, before, count), "new workers, and only these")
        load.advance(50)
        connected = newcomers.done
        fleet.until(lambda _f: newcomers.done > connected, "newcomers at the new workers")
    assert load.failures == []
    assert newcomers.failures == []
    assert [error for _, error in got] == [None] * len(values)
    assert [int(result.as_numpy("OUT").reshape(-1)[0]) for result, _ in got] == values.tolist()
    assert not fleet.events("router.exited")
    for shared in ("inflight.board", "inflight.finishes"):
        assert (fleet.state / fleet.name / shared).exists() is (count == 2)
    assert len(fleet.events("router.restarting")) == (1 if count == 1 else 3)


def test_the_routers_name_is_no_replica_and_cannot_be_forced(fleet: RunningFleet) -> None:
    assert "no --force" in fleet.cli("restart", "router", "--force", check=2).stderr


def test_a_secret_for_changes_can_be_had_while_the_fleet_runs(fleet: RunningFleet) -> None:
    (fleet.folder / "secret.txt").write_text("open sesame\n")
    fleet.write(models=MODELS, router={"management": ["10.0.0.0/8", "token:secret.txt"]})
    before = workers(fleet)
    fleet.cli("up", "-d", "--wait")
    fleet.until(lambda f: replaced(f, before, 1), "a worker that knows of the secret")
    with triton.InferenceServerClient(fleet.address) as client:
        with pytest.raises(triton.InferenceServerException, match=r"PERMISSION_DENIED.*router\.management"):
            client.load_model("echo")
        client.load_model("echo", headers={"authorization": "Bearer open sesame"})
        client.infer("echo", [tensor("INPUT0", np.zeros(4, np.uint8), "UINT8")])

"""What a client sees: five models through 1, 2 and 4 replicas, scaling under load, and kills."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from queue import Queue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from background import Background, told
from running_fleet import REPOSITORY, RunningFleet, running_fleet

from tritonfleet.core.wire import ScaleRequest

pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("fleet_traffic")]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    with running_fleet(tmp_path_factory.mktemp("traffic")) as fleet:
        yield fleet


def tensor(name: str, values: np.ndarray, kind: str) -> triton.InferInput:
    found = triton.InferInput(name, list(values.shape), kind)
    found.set_data_from_numpy(values)
    return found


def echo(client: Any, size: int) -> triton.InferResult:
    values = np.frombuffer(os.urandom(size), np.uint8)
    result = client.infer("echo", [tensor("INPUT0", values, "UINT8")])
    assert np.array_equal(result.as_numpy("OUTPUT0"), values)
    return result


def replica_of(result: triton.InferResult) -> str:
    return str(result.as_numpy("REPLICA").reshape(-1)[0].decode()).rpartition(".")[0]


class Load(Background):
    """Constant unary load from a few threads; every failure is kept with its words."""

    def __init__(self, address: str, threads: int = 4, pause_s: float = 0.02) -> None:
        super().__init__(address, threads)
        self.replicas: Counter[str] = Counter()
        self.pause_s = pause_s

    def _run(self) -> None:
        with triton.InferenceServerClient(self.address) as client:
            while not self._stop.is_set():
                try:
                    self.replicas[replica_of(echo(client, 64))] += 1
                    self.done += 1
                except triton.InferenceServerException as error:
                    self.failures.append(told(error))
                time.sleep(self.pause_s)

    def advance(self, calls: int, timeout: float = 60) -> None:
        """Wait until so many further calls were answered."""
        goal, deadline = self.done + calls, time.monotonic() + timeout
        while self.done < goal:
            assert time.monotonic() < deadline, f"the load stands still; failures: {self.failures[-3:]}"
            time.sleep(0.02)


# ---------------------------------------------------------------- five models, three sizes of fleet


@pytest.mark.parametrize("replicas", [2, 1, 4])
def test_all_five_models_answer_through_any_number_of_replicas(fleet: RunningFleet, replicas: int) -> None:
    fleet.cli("scale", str(replicas), "--wait")
    with triton.InferenceServerClient(fleet.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits")
        _check_digits(client)
        _check_text_work(client)
        for size in (0, 1, 1000, 100_000, 8 << 20):
            echo(client, size)
        _check_accumulator(client)
        _check_repeat(client)
    names = {f"main-{ordinal}" for ordinal in range(replicas)}
    with Load(fleet.address, threads=4 * replicas, pause_s=0) as load:
        fleet.until(lambda _: min(load.replicas[name] for name in names) >= 20, "all replicas take part")
    assert load.failures == []
    assert set(load.replicas) == names


def _check_digits(client: triton.InferenceServerClient) -> None:
    import json

    samples = json.loads((REPOSITORY / "digits" / "samples.json").read_text())
    images, labels = samples_of(samples)
    result = client.infer("digits", [tensor("IMAGE", images, "FP32")])
    assert np.array_equal(result.as_numpy("SCORES").argmax(axis=1), result.as_numpy("LABEL").reshape(-1))
    assert np.mean(result.as_numpy("LABEL").reshape(-1) == labels) >= 0.9


def samples_of(samples: Any) -> tuple[np.ndarray, np.ndarray]:
    rows = samples["samples"] if isinstance(samples, dict) else samples
    return (
        np.array([row["image"] for row in rows], np.float32).reshape(len(rows), 64),
        np.array([row["label"] for row in rows]),
    )


def _check_text_work(client: triton.InferenceServerClient) -> None:
    text = np.array([[b"one two three four five"]], dtype=np.object_)
    result = client.infer("text_work", [tensor("TEXT", text, "BYTES")])
    assert int(result.as_numpy("TOKENS").reshape(-1)[0]) == 5


def _check_accumulator(client: triton.InferenceServerClient) -> None:
    """A sequence on one stream stays on one replica, so its sums are right."""
    answers: Queue[tuple[Any, Any]] = Queue()
    sequence = int.from_bytes(os.urandom(4), "big") + 1
    client.start_stream(lambda result, error: answers.put((result, error)))
    values = [3, 4, 5, -2]
    for index, value in enumerate(values):
        client.async_stream_infer(
            "accumulator", [tensor("INPUT", np.array([[value]], np.int32), "INT32")],
            sequence_id=sequence, sequence_start=index == 0, sequence_end=index == len(values) - 1,
        )  # fmt: skip
    got = [answers.get(timeout=20) for _ in values]
    client.stop_stream()
    assert [error for _, error in got] == [None] * len(values)
    assert [int(result.as_numpy("SUM").reshape(-1)[0]) for result, _ in got] == [3, 7, 12, 10]


def _check_repeat(client: triton.InferenceServerClient) -> None:
    answers: Queue[tuple[Any, Any]] = Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    values = np.arange(100, 120, dtype=np.int32)
    client.async_stream_infer("repeat", [tensor("IN", values, "INT32")])
    got = [answers.get(timeout=20) for _ in values]
    client.stop_stream()
    assert [error for _, error in got] == [None] * len(values)
    assert [int(result.as_numpy("OUT").reshape(-1)[0]) for result, _ in got] == values.tolist()


async def test_the_asyncio_client_works_too(fleet: RunningFleet) -> None:
    async with triton_aio.InferenceServerClient(fleet.address) as client:
        assert await client.is_server_ready()
        values = np.arange(1 << 20, dtype=np.uint32).view(np.uint8)
        result = await client.infer("echo", [tensor("INPUT0", values, "UINT8")])
        assert np.array_equal(result.as_numpy("OUTPUT0"), values)

        async def requests() -> Any:
            for number in range(5):
                values = np.full(10, number, np.uint8)
                yield {"model_name": "echo", "inputs": [tensor("INPUT0", values, "UINT8")]}

        seen = []
        async for result, error in client.stream_infer(requests()):
            assert error is None
            seen.append(int(result.as_numpy("OUTPUT0")[0]))
            if len(seen) == 5:
                break
        assert seen == [0, 1, 2, 3, 4]


def test_tritons_own_errors_come_through(fleet: RunningFleet) -> None:
    with triton.InferenceServerClient(fleet.address) as client:
        with pytest.raises(triton.InferenceServerException, match="unknown model: 'nowhere'"):
            client.infer("nowhere", [tensor("INPUT0", np.zeros(1, np.uint8), "UINT8")])
        with pytest.raises(triton.InferenceServerException, match=r"INVALID_ARGUMENT.*expected 1 inputs"):
            client.infer("digits", [])


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_a_sequence_of_unary_calls_adds_up(fleet: RunningFleet, compression: str | None) -> None:
    """Each call on its own, through several replicas: the router keeps them where the first one went."""
    fleet.cli("scale", "2", "--wait")
    with triton.InferenceServerClient(fleet.address) as client:
        homes = set()
        for sequence in range(1, 9):
            total, seen = 0, set()
            for step, value in enumerate([5, 7, -3, 20]):
                result = client.infer(
                    "accumulator", [tensor("INPUT", np.array([[value]], np.int32), "INT32")],
                    sequence_id=sequence, sequence_start=step == 0, sequence_end=step == 3,
                    compression_algorithm=compression,
                )  # fmt: skip
                total += value
                assert int(result.as_numpy("SUM").reshape(-1)[0]) == total
                seen.add(replica_of(result))
            assert len(seen) == 1
            homes |= seen
        assert len(homes) == 2


def step(client: triton.InferenceServerClient, sequence: int, value: int, **flags: bool) -> tuple[str, int]:
    """A unary request of a sequence: which replica answered, and the sum so far."""
    given = [tensor("INPUT", np.array([[value]], np.int32), "INT32")]
    result = client.infer("accumulator", given, sequence_id=sequence, **flags)
    return replica_of(result), int(result.as_numpy("SUM").reshape(-1)[0])


def test_a_stream_goes_where_its_sequence_lives_and_never_adds_up_another_wrongly(
    fleet: RunningFleet,
) -> None:
    """Two sequences on two replicas, begun by unary calls. A stream that carries on the one is bound to its
    replica; the other's request in it meets Triton's START error, its sum stays right, the stream goes on."""
    fleet.cli("scale", "2", "--wait")
    with triton.InferenceServerClient(fleet.address) as client:
        homes: dict[str, int] = {}
        for sequence in range(7_001, 7_050):
            home, _ = step(client, sequence, 10, sequence_start=True)
            homes.setdefault(home, sequence)
            if len(homes) == 2:
                break
        here, elsewhere = homes["main-1"], homes["main-0"]
        answers: Queue[tuple[Any, Any]] = Queue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        got = []
        for sequence in (here, elsewhere, here):
            client.async_stream_infer(
                "accumulator", [tensor("INPUT", np.array([[1]], np.int32), "INT32")], sequence_id=sequence
            )
            got.append(answers.get(timeout=20))
        client.stop_stream()
        assert [result and int(result.as_numpy("SUM").reshape(-1)[0]) for result, _ in got] == [11, None, 12]
        assert "must specify the START flag" in str(got[1][1])
        assert step(client, elsewhere, 5, sequence_end=True) == ("main-0", 15)
        assert step(client, here, 5, sequence_end=True) == ("main-1", 17)


def test_a_drain_waits_for_open_sequences(fleet: RunningFleet) -> None:
    fleet.cli("scale", "2", "--wait")
    with triton.InferenceServerClient(fleet.address) as client:
        for sequence in range(8_001, 8_050):
            home, _ = step(client, sequence, 1, sequence_start=True)
            if home == "main-1":
                break
            step(client, sequence, 0, sequence_end=True)
        with fleet.client() as control:  # quicker than a process, for Triton forgets an idle sequence
            control.scale(ScaleRequest({"main": 1}))
        fleet.until(lambda f: f.replicas()["main-1"]["state"] == "draining", "main-1 drains")
        for total in range(2, 12):  # for longer than a drain without work takes
            assert step(client, sequence, 1) == ("main-1", total)
            time.sleep(0.2)
        assert fleet.replicas()["main-1"]["state"] == "draining"
        assert step(client, sequence, 1, sequence_end=True) == ("main-1", 12)
        fleet.until(lambda f: "main-1" not in f.replicas(), "main-1 is gone", timeout=15)


def test_a_stream_is_in_flight_while_requests_are_open_in_it_and_drained_when_it_has_ended(
    fleet: RunningFleet,
) -> None:
    fleet.cli("scale", "2", "--wait")
    answers: Queue[tuple[Any, Any]] = Queue()
    echoed = [tensor("INPUT0", np.zeros(8, np.uint8), "UINT8")]
    with triton.InferenceServerClient(fleet.address) as client:
        home = ""
        while home != "main-1":
            client.stop_stream()
            client.start_stream(lambda result, error: answers.put((result, error)))
            client.async_stream_infer("echo", echoed)
            home = replica_of(answers.get(timeout=20)[0])
        slow = [
            tensor("IN", np.arange(3, dtype=np.int32), "INT32"),
            tensor("DELAY_MS", np.array([1000], np.uint32), "UINT32"),
        ]
        for _ in range(2):
            client.async_stream_infer("repeat", slow, enable_empty_final_response=True)
        fleet.until(lambda f: f.replicas()["main-1"]["in_flight"] == 2, "two requests are open")
        assert [answers.get(timeout=20)[1] for _ in range(8)] == [None] * 8
        fleet.until(lambda f: f.replicas()["main-1"]["in_flight"] == 0, "the stream rests")
        with fleet.client() as control:
            control.scale(ScaleRequest({"main": 1}))
        fleet.until(lambda f: f.replicas()["main-1"]["state"] == "draining", "main-1 drains")
        time.sleep(2)  # for longer than a drain without a stream takes
        client.async_stream_infer("echo", echoed)
        result, error = answers.get(timeout=20)
        assert (error, replica_of(result)) == (None, "main-1")
        assert fleet.replicas()["main-1"]["state"] == "draining"
        client.stop_stream()
        fleet.until(lambda f: "main-1" not in f.replicas(), "main-1 is gone", timeout=15)


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compressed_calls_pass(fleet: RunningFleet, compression: str) -> None:
    with triton.InferenceServerClient(fleet.address) as client:
        values = np.zeros(100_000, np.uint8)
        result = client.infer("echo", [tensor("INPUT0", values, "UINT8")], compression_algorithm=compression)
        assert np.array_equal(result.as_numpy("OUTPUT0"), values)


# ---------------------------------------------------------------- scaling and dying under load


def test_scaling_up_and_down_under_load_fails_nothing(fleet: RunningFleet) -> None:
    fleet.cli("scale", "1", "--wait")
    with Load(fleet.address, threads=8) as load:
        load.advance(100)
        fleet.cli("scale", "4", "--wait")
        load.advance(400)
        assert set(load.replicas) == {"main-0", "main-1", "main-2", "main-3"}
        fleet.cli("scale", "1", "--wait")
        load.advance(100)
    assert load.failures == []
    replicas = fleet.replicas()
    assert [(name, replica["state"]) for name, replica in replicas.items()] == [("main-0", "ready")]
    assert all(event["reason"] for event in fleet.events())


def test_a_killed_replica_fails_nothing_is_replaced_and_says_why(fleet: RunningFleet) -> None:
    fleet.cli("scale", "2", "--wait")
    before = fleet.pids()
    with Load(fleet.address) as load:
        load.advance(50)
        os.kill(before["main-1"], signal.SIGKILL)
        fleet.until(lambda f: f.pids().get("main-1") not in (None, before["main-1"]), "a new process")
        fleet.ready(2)
        load.advance(100)
    assert load.failures == []
    after = fleet.replicas()
    assert fleet.pids()["main-0"] == before["main-0"]
    assert after["main-1"]["restarts"] >= 1
    exited = [event for event in fleet.events("replica.exited") if event["subject"] == "main-1"]
    assert "SIGKILL" in exited[-1]["reason"]


def test_a_replica_that_somebody_stops_fails_nothing(fleet: RunningFleet) -> None:
    """SIGTERM, not from us: Triton unloads its models first and answers meanwhile that it has none."""
    fleet.cli("scale", "2", "--wait")
    before = fleet.pids()
    with Load(fleet.address, threads=8, pause_s=0.01) as load:
        load.advance(100)
        os.kill(before["main-1"], signal.SIGTERM)
        fleet.until(lambda f: f.pids().get("main-1") not in (None, before["main-1"]), "a new process")
        fleet.ready(2)
        load.advance(100)
    assert load.failures == []


def test_a_killed_controller_harms_no_traffic_and_up_adopts_everything(fleet: RunningFleet) -> None:
    fleet.cli("scale", "2", "--wait")
    before, snapshot = fleet.pids(), fleet.snapshot()
    workers = [worker["pid"] for worker in snapshot["router"]["workers"]]
    with Load(fleet.address) as load:
        load.advance(50)
        os.kill(snapshot["controller"]["pid"], signal.SIGKILL)
        load.advance(200)
        assert fleet.cli("ps", check=None).returncode == 4
        fleet.cli("up", "-d", "--wait")
        load.advance(100)
    assert load.failures == []
    assert fleet.pids() == before
    again = fleet.snapshot()
    assert [worker["pid"] for worker in again["router"]["workers"]] == workers
    assert again["controller"]["pid"] != snapshot["controller"]["pid"]
    assert again["table_revision"] >= snapshot["table_revision"]


def test_a_killed_router_comes_back(fleet: RunningFleet) -> None:
    fleet.cli("scale", "2", "--wait")
    (worker,) = fleet.snapshot()["router"]["workers"]
    os.kill(worker["pid"], signal.SIGKILL)
    fleet.until(
        lambda f: (w := f.snapshot()["router"]["workers"][0])["running"] and w["pid"] != worker["pid"],
        "a new router worker",
    )
    with triton.InferenceServerClient(fleet.address) as client:
        fleet.until(lambda _fleet: _live(client), "the router answering")
        for _ in range(20):
            echo(client, 100)
    (event,) = fleet.events("router.exited")[-1:]
    # Started by the controller that was killed before: only a parent learns how a process ended.
    assert f"(pid {worker['pid']}) exited" in event["reason"] or "SIGKILL" in event["reason"]


def _live(client: triton.InferenceServerClient) -> bool:
    try:
        return bool(client.is_server_live())
    except triton.InferenceServerException:
        return False

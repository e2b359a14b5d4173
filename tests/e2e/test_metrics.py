"""The metrics of a real fleet, scraped as Prometheus does, and those of its Tritons beside them."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from otlp_collector import Collector
from prometheus_client.parser import text_string_to_metric_families
from running_fleet import RunningFleet, free_port, running_fleet, stop

from tritonfleet.drivers.spawn import alive, identify

pytestmark = [pytest.mark.triton, pytest.mark.timeout(120), pytest.mark.xdist_group("fleet_metrics")]

CALLS = 40


@pytest.fixture(scope="module")
def address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    server = Collector()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, address: str, collector: Collector
) -> Iterator[RunningFleet]:
    with running_fleet(
        tmp_path_factory.mktemp("metrics"),
        models=["echo"],
        metrics={"listen": address},
        router={
            "access_log": {"path": "access.jsonl"},
            "traces": {"endpoint": collector.endpoint, "sample": 0},
        },
    ) as fleet:
        yield fleet


def scrape(address: str, path: str = "/metrics") -> dict[tuple[str, ...], float]:
    """Name and sorted labels of each sample → its value."""
    text = httpx.get(f"http://{address}{path}", trust_env=False, timeout=10).text
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(samples: dict[tuple[str, ...], float], name: str, *labels: str) -> float:
    return sum(value for key, value in samples.items() if key[0] == name and set(labels) <= set(key))


def call(fleet: RunningFleet, count: int) -> None:
    values = np.zeros(8, np.uint8)
    tensor = triton.InferInput("INPUT0", [8], "UINT8")
    tensor.set_data_from_numpy(values)
    with triton.InferenceServerClient(fleet.address) as client:
        for _ in range(count):
            client.infer("echo", [tensor])


def test_a_scrape_counts_what_was_asked(fleet: RunningFleet, address: str) -> None:
    call(fleet, CALLS)
    name = "tritonfleet_requests_total"
    labels = ("grpc_code=OK", "model=echo")
    fleet.until(lambda _: total(scrape(address), name, *labels) == CALLS, "all calls are counted")
    samples = scrape(address)
    assert {key[-1] for key in samples if key[0] == name and key[2] == "model=echo"} == {
        "replica=main-0",
        "replica=main-1",
    }
    assert total(samples, "tritonfleet_request_duration_seconds_count", "model=echo") == CALLS
    assert samples["tritonfleet_replicas", "pool=main", "state=ready"] == 2
    fleet.until(
        lambda _: total(scrape(address), "tritonfleet_replica_compute_time_seconds_count") == CALLS,
        "Triton's own statistics have arrived",
    )


def test_counters_go_on_when_routers_and_replicas_are_started_again(
    fleet: RunningFleet, address: str
) -> None:
    before = total(scrape(address), "tritonfleet_requests_total", "model=echo")
    fleet.cli("restart", "main-0")
    fleet.ready(2)
    call(fleet, CALLS)
    expected = before + CALLS
    fleet.until(
        lambda _: total(scrape(address), "tritonfleet_requests_total", "model=echo") == expected,
        "what was counted stays, what is new is added",
    )


def test_a_controller_that_finds_its_address_taken_goes_on_without_metrics(
    fleet: RunningFleet, address: str
) -> None:
    host, port = address.split(":")
    controller = identify(fleet.snapshot()["controller"]["pid"])
    assert controller is not None
    before = fleet.pids()
    os.kill(controller.pid, signal.SIGKILL)
    # Until all of it is gone: a process loses its name a moment before its sockets.
    fleet.until(lambda _: not alive(controller), "it has ended")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((host, int(port)))
        other.listen()
        fleet.cli("up", "-d", "--wait")
        assert fleet.pids() == before
        (told,) = fleet.events("metrics.unavailable")
        assert f"cannot listen on {address}" in told["reason"]
        call(fleet, 1)
    fleet.until(lambda f: f.events("metrics.available"), "it has the address again")
    assert scrape(address)["tritonfleet_replicas", "pool=main", "state=ready"] == 2


def test_every_triton_is_relayed_under_its_name(fleet: RunningFleet, address: str) -> None:
    samples = scrape(address, "/replicas")
    for replica in ("main-0", "main-1"):
        counted = [key for key in samples if f"replica={replica}" in key]
        assert any(key[0].startswith("nv_inference_request_success") for key in counted)


def test_the_access_log_has_a_line_for_each_call(fleet: RunningFleet) -> None:
    path = fleet.folder / "access.jsonl"

    def calls() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in path.read_text().splitlines()]
        return [line for line in found if line["method"] == "ModelInfer"]

    before = len(calls())
    call(fleet, CALLS)
    fleet.until(lambda _: len(calls()) >= before + CALLS, "a line for each call")
    found = calls()[before:]
    assert len(found) == CALLS
    assert {(line["status"], line["model"]) for line in found} == {("OK", "echo")}
    assert {line["replica"].rpartition(".")[0] for line in found} <= {"main-0", "main-1"}
    assert all(line["duration_s"] > 0 and line["response_bytes"] > 8 for line in found)


def test_a_trace_goes_through_the_fleet(fleet: RunningFleet, collector: Collector) -> None:
    """Only the call whose client samples it has a span, in the client's trace."""
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    tensor = triton.InferInput("INPUT0", [8], "UINT8")
    tensor.set_data_from_numpy(np.zeros(8, np.uint8))
    with triton.InferenceServerClient(fleet.address) as client:
        client.infer("echo", [tensor])
        client.infer("echo", [tensor], headers={"traceparent": f"00-{trace}-{parent}-01"})
    fleet.until(lambda _: collector.spans(), "a span has arrived")
    [span] = collector.spans()
    assert (span["traceId"], span["parentSpanId"]) == (trace, parent)


def test_a_taken_address_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        fleet = RunningFleet(tmp_path, models=["echo"], metrics={"listen": taken})
        try:
            refused = fleet.cli("up", "-d", "--wait", check=1)
            assert f"metrics.listen: cannot listen on {taken}" in refused.stderr
            assert fleet.processes() == {}
        finally:
            stop(fleet)

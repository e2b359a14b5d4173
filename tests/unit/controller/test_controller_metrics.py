"""What Prometheus reads, read by its own parser, over HTTP."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from controller_parts import PaperDriver, fleet_of, reasons, report, spec_of, until, worker_that_runs
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tritonfleet.config.spec_types import Address
from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.metrics import families, sample_names
from tritonfleet.controller.metrics_server import MetricsAddressError, MetricsServer, listening, state_of
from tritonfleet.core.histogram import Histogram
from tritonfleet.core.model import DeviceReading, ReplicaState
from tritonfleet.core.wire import CallTelemetry, RouterTelemetry

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
LOOPBACK = Address(host="127.0.0.1", port=0)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Fleet, MetricsServer]]:
    """A fleet of two ready replicas on paper, and its real metrics address."""
    driver = PaperDriver()
    fleet = fleet_of(folder, driver, spec_of(folder, replicas={"min": 2, "max": 2}, autoscale={}))
    server = MetricsServer(fleet, LOOPBACK)
    tasks = [asyncio.create_task(fleet.run()), asyncio.create_task(server.serve())]
    try:
        await until(lambda: sum(s.state is ReplicaState.READY for s in fleet.slots.values()) == 2)
        with worker_that_runs(fleet):
            yield fleet, server
    finally:
        server.stop()
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server.close()
        await fleet.close()


async def scrape(server: MetricsServer, path: str = "/metrics") -> dict[str, Metric]:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{server.port}{path}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def answered(instance: str, seconds: list[float], status: str = "0") -> RouterTelemetry:
    latency = Histogram()
    for took in seconds:
        latency.record(took)
    sparse = {str(bucket): count for bucket, count in latency.counts.items()}
    call = CallTelemetry(instance, "echo", 3, {status: len(seconds)}, sparse, latency.sum_s)
    base = report(1, {instance: 3}, requests_total=len(seconds) + 1, refused_total=1, retries_total=2)
    return replace(base, calls=(call,), waiting_by_model={"echo": 4})


def values(family: Metric, *labels: str) -> dict[tuple[str, ...], float]:
    return {tuple(sample.labels[label] for label in labels): sample.value for sample in family.samples}


async def test_a_scrape_tells_what_routers_counted(tmp_path: Path) -> None:
    async with running(tmp_path) as (fleet, server):
        fleet.take_telemetry(answered("main-0.1", [0.001, 0.003, 0.4], status="14"))
        found = await scrape(server)
        labels = ("model", "replica", "grpc_code")
        assert values(found["tritonfleet_requests"], *labels) == {("echo", "main-0", "UNAVAILABLE"): 3}
        assert values(found["tritonfleet_requests_in_flight"], "model", "replica") == {("echo", "main-0"): 3}
        assert values(found["tritonfleet_requests_queued"], "model") == {("echo",): 4}
        assert values(found["tritonfleet_requests_accepted"]) == {(): 4}
        assert values(found["tritonfleet_requests_refused"], "grpc_code") == {("HTTP",): 1}
        assert values(found["tritonfleet_retries"]) == {(): 2}
        states = values(found["tritonfleet_replicas"], "pool", "state")
        assert states["main", "ready"] == 2
        assert sum(states.values()) == 2
        assert values(found["tritonfleet_autoscaler_actual_replicas"], "pool") == {("main",): 2}
        assert values(found["tritonfleet_autoscaler_target_replicas"], "pool") == {("main",): 2}
        assert set(values(found["tritonfleet_cold_start_seconds"], "replica")) == {("main-0",), ("main-1",)}


async def test_a_scrape_tells_what_routers_did_about_trouble(tmp_path: Path) -> None:
    async with running(tmp_path) as (fleet, server):
        base = answered("main-0.1", [0.1])
        row = replace(base.replicas[0], pace=2.0, slow_starts=3, ejections=4, streams=5)
        fleet.take_telemetry(
            replace(
                base, refused_total=7, refused_by_status={"8": 5, "4": 2}, retries_denied_total=6,
                panics_total=9, replicas=(row,), waits={"echo": (base.calls[0].latency, 0.1)},
            )
        )  # fmt: skip
        found = await scrape(server)
    refused = values(found["tritonfleet_requests_refused"], "grpc_code")
    assert refused == {("RESOURCE_EXHAUSTED",): 5, ("DEADLINE_EXCEEDED",): 2}
    assert values(found["tritonfleet_retries_denied"]) == {(): 6}
    assert values(found["tritonfleet_panics"]) == {(): 9}
    waits = {sample.name: sample.value for sample in found["tritonfleet_request_wait_seconds"].samples}
    assert waits["tritonfleet_request_wait_seconds_count"] == 1
    assert waits["tritonfleet_request_wait_seconds_sum"] == pytest.approx(0.1)
    expected = {"slow_starts": 3, "ejections": 4, "replica_pace": 2.0, "streams_open": 5}
    for name, value in expected.items():
        assert values(found[f"tritonfleet_{name}"], "replica") == {("main-0",): value}


async def test_buckets_hold_what_is_below_their_edge(tmp_path: Path) -> None:
    async with running(tmp_path) as (fleet, server):
        fleet.take_telemetry(answered("main-0.1", [0.001, 0.003, 0.4]))
        samples = (await scrape(server))["tritonfleet_request_duration_seconds"].samples
    buckets = {float(s.labels["le"]): s.value for s in samples if s.name.endswith("_bucket")}
    assert [next(count for edge, count in buckets.items() if edge >= at) for at in (0.002, 0.01, 1.0)] == [
        1,
        2,
        3,
    ]
    assert buckets[float("inf")] == next(s.value for s in samples if s.name.endswith("_count")) == 3
    assert next(s.value for s in samples if s.name.endswith("_sum")) == pytest.approx(0.404, rel=0.01)
    assert list(buckets.values()) == sorted(buckets.values())


async def test_series_of_a_replica_that_is_gone_are_gone(tmp_path: Path) -> None:
    async with running(tmp_path) as (fleet, server):
        fleet.take_telemetry(answered("gone-7.1", [0.1]))
        found = await scrape(server)
    assert found["tritonfleet_requests"].samples == []
    assert found["tritonfleet_request_duration_seconds"].samples == []


async def test_replicas_that_do_not_answer_are_counted(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, server):
        assert await scrape(server, "/replicas") == {}  # servers on paper have no metrics
        found = await scrape(server)
    silent = values(found["tritonfleet_replica_scrapes_unanswered"], "replica")
    assert silent == {("main-0",): 1, ("main-1",): 1}


async def test_what_nvml_says_of_devices_is_exported(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, PaperDriver(slots=2))
    fleet.desk.readings = {
        "cpu0": DeviceReading(0.0, 80 << 30, 20 << 30, 0.5, 61.0, 250.0, 3),
        "cpu1": DeviceReading(0.0, memory_bytes=10 << 30, trouble=""),  # a slice says less
    }
    found = {family.name: family for family in families(state_of(fleet, {}))}
    assert {
        name: values(found[f"tritonfleet_device_{name}"], "device")
        for name in ("temperature_celsius", "power_watts", "ecc_errors", "memory_bytes")
    } == {
        "temperature_celsius": {("cpu0",): 61.0},
        "power_watts": {("cpu0",): 250.0},
        "ecc_errors": {("cpu0",): 3},
        "memory_bytes": {("cpu0",): 80 << 30, ("cpu1",): 10 << 30},
    }
    await fleet.close()


def test_a_taken_address_is_named_with_its_key_and_a_remedy() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            MetricsAddressError, match=rf"metrics\.listen: cannot listen on 127.0.0.1:{port}: .*port"
        ):
            listening(Address(host="127.0.0.1", port=port))


async def test_a_fleet_that_runs_goes_on_without_metrics_until_the_address_is_free(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, PaperDriver(), spec_of(tmp_path))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = Address(host="127.0.0.1", port=other.getsockname()[1])
        with pytest.raises(MetricsAddressError):
            MetricsServer(fleet, address)
        server = MetricsServer(fleet, address, must_go_on=True, retry_s=0.02)
        serving = asyncio.create_task(server.serve())
        (said,) = reasons(fleet, "metrics.unavailable")
        assert said.startswith(f"metrics.listen: cannot listen on {address}")
        await asyncio.sleep(0.1)
        assert server.port == 0
    await until(lambda: reasons(fleet, "metrics.available") == [f"{address} was freed: it listens"])
    assert "tritonfleet_replicas" in await scrape(server)
    server.stop()
    await serving
    server.close()


async def test_an_end_while_the_address_is_still_taken(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, PaperDriver(), spec_of(tmp_path))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = Address(host="127.0.0.1", port=other.getsockname()[1])
        server = MetricsServer(fleet, address, must_go_on=True)
        serving = asyncio.create_task(server.serve())
        await asyncio.sleep(0)
        server.stop()
        await asyncio.wait_for(serving, 5)
        server.close()


def test_every_metric_is_documented_and_every_documented_one_exists(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, PaperDriver(), spec_of(tmp_path))
    exported = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in families(state_of(fleet, {}))
    }
    rows = [
        line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `tritonfleet_")
    ]
    assert sorted(rows) == sorted(exported)
    assert "tritonfleet_request_duration_seconds_bucket" in sample_names(families(state_of(fleet, {})))

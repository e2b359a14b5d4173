"""The bench of each driver, ended with its test."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import docker_daemon
import pytest
from benches import WAIT_S, Bench, DockerBench, FakeBench, ProcessBench

from tritonfleet.drivers.base import Instance
from tritonfleet.triton.client import ProbeError


@pytest.fixture(
    params=[
        pytest.param("process", marks=pytest.mark.triton),
        pytest.param("docker", marks=pytest.mark.docker),
        "fake",
    ]
)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "fake":
        yield FakeBench()
        return
    if request.param == "docker":
        docker_daemon.require()
    real = {"process": ProcessBench, "docker": DockerBench}[request.param](tmp_path)
    try:
        yield real
    finally:
        await real.end()


@pytest.fixture
def until_ready(bench: Bench) -> Callable[[Instance], object]:
    """Returns when the instance's models are ready; fails when they are not within a minute."""

    async def until_ready(instance: Instance) -> None:
        client = bench.client(instance)
        deadline = time.monotonic() + WAIT_S
        try:
            while time.monotonic() < deadline:
                try:
                    models = await client.models(timeout=5)
                    if any(model.name == "echo" and model.ready for model in models):
                        return
                except ProbeError as error:
                    if not error.refused:
                        raise
                await asyncio.sleep(0.05)
            pytest.fail(f"{instance.instance} is not ready after {WAIT_S:g} s")
        finally:
            await client.close()

    return until_ready

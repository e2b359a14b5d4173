"""A real router worker, for raw frames: without replicas, and with one that speaks gRPC."""

from collections.abc import Iterator

import grpc
import pytest
from conformance_workers import Target, grpc_server, running_worker


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a worker process without replicas: these requests are not gRPC and reach none."""
    with running_worker(tmp_path_factory.mktemp("conformance")) as (port, _process):
        yield port


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with (
        grpc_server() as (row, seen),
        running_worker(tmp_path_factory.mktemp("attacks"), row) as (port, process),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        found = Target(port, process.pid, channel, seen)
        found.neighbour_is_well()
        yield found

"""What the controller's client says of a server that answers, refuses, hangs, or goes away."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from certificates import certificate
from tritonclient.grpc import service_pb2

from tritonfleet.core.replica_tls import ReplicaTls
from tritonfleet.triton.client import ProbeError, TritonClient

SERVICE = "inference.GRPCInferenceService"


class Server:
    """The two questions of Triton's service on a real gRPC server, answered as a test says."""

    def __init__(self) -> None:
        self.index = service_pb2.RepositoryIndexResponse()
        self.statistics = service_pb2.ModelStatisticsResponse()
        self.failure: tuple[grpc.StatusCode, str] | None = None
        self.silent = False
        self.grpc = grpc.aio.server()
        self.port = 0

    async def start(self) -> None:
        handlers = {
            "RepositoryIndex": self._handler("index", service_pb2.RepositoryIndexRequest),
            "ModelStatistics": self._handler("statistics", service_pb2.ModelStatisticsRequest),
        }
        self.grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.port = self.grpc.add_insecure_port("127.0.0.1:0")
        await self.grpc.start()

    def _handler(self, answer: str, request: Any) -> Any:
        async def handle(_request: Any, context: Any) -> Any:
            if self.silent:
                await asyncio.Event().wait()
            if self.failure is not None:
                await context.abort(*self.failure)
            return getattr(self, answer)

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    yield server
    await server.grpc.stop(None)


@pytest.fixture
async def client(server: Server) -> AsyncIterator[TritonClient]:
    client = TritonClient("127.0.0.1", server.port)
    yield client
    await client.close()


async def test_models_with_their_ready_versions_in_order(server: Server, client: TritonClient) -> None:
    add = server.index.models.add
    for version in ("10", "9"):
        add(name="digits", version=version, state="READY")
    add(name="digits", version="11", state="UNAVAILABLE", reason="no such file")
    add(name="broken", version="1", state="UNAVAILABLE", reason="ImportError: x")
    add(name="asleep", version="", state="")
    found = {model.name: model for model in await client.models(5)}
    assert list(found) == ["asleep", "broken", "digits"]
    assert (found["digits"].ready, found["digits"].versions) == (True, ("9", "10"))
    assert (found["broken"].ready, found["broken"].reason) == (False, "ImportError: x")
    assert not found["asleep"].ready


async def test_statistics_as_they_are_counted(server: Server, client: TritonClient) -> None:
    stats = server.statistics.model_stats.add(
        name="digits", version="1", inference_count=64, execution_count=8, last_inference=1700
    )
    stats.inference_stats.success.count, stats.inference_stats.success.ns = 32, 900
    stats.inference_stats.fail.count = 2
    stats.inference_stats.queue.count, stats.inference_stats.queue.ns = 32, 400
    stats.inference_stats.compute_input.ns = 10
    stats.inference_stats.compute_infer.ns = 20
    stats.inference_stats.compute_output.ns = 30
    (found,) = await client.statistics(5)
    assert (found.model, found.version, found.inferences, found.executions) == ("digits", "1", 64, 8)
    assert (found.success_count, found.success_ns, found.failure_count) == (32, 900, 2)
    assert (found.queue_count, found.queue_ns, found.last_inference_ms) == (32, 400, 1700)
    assert (found.compute_input_ns, found.compute_infer_ns, found.compute_output_ns) == (10, 20, 30)


async def test_a_closed_port_is_told_apart() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        client = TritonClient("127.0.0.1", closed.getsockname()[1])
        with pytest.raises(ProbeError, match="nothing listens on 127") as caught:
            await client.models(5)
        assert caught.value.refused
        await client.close()


async def test_silence_is_no_answer(server: Server, client: TritonClient) -> None:
    server.silent = True
    with pytest.raises(ProbeError, match=r"no answer within 0\.05 s") as caught:
        await client.models(0.05)
    assert not caught.value.refused


async def test_an_error_is_quoted(server: Server, client: TritonClient) -> None:
    server.failure = (grpc.StatusCode.UNAVAILABLE, "Server exiting")
    with pytest.raises(ProbeError, match="UNAVAILABLE: Server exiting"):
        await client.statistics(5)


async def test_one_that_went_away_is_an_error(server: Server, client: TritonClient) -> None:
    assert await client.models(5) == ()
    await server.grpc.stop(None)
    with pytest.raises(ProbeError):
        await client.models(1)


async def test_a_certificate_that_is_refused_is_told_in_a_few_words(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "replica")
    stranger, _ = certificate(tmp_path, "stranger")
    server = grpc.aio.server()
    shown = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
    port = server.add_secure_port("127.0.0.1:0", shown)
    await server.start()
    client = TritonClient("127.0.0.1", port, ReplicaTls(str(stranger), "localhost"))
    try:
        with pytest.raises(ProbeError) as refused:
            await client.models(5)
    finally:
        await client.close()
        await server.stop(0)
    assert str(refused.value) == "no answer by triton.tls: CERTIFICATE_VERIFY_FAILED: self signed certificate"

"""A router without a controller (`tritonfleet compose`): who may change the servers is asked there, too."""

from pathlib import Path

import h2.events
import pytest
from router_parts import ScriptedReplica, message, raw_client, router_of
from test_router_own import SERVICE, headers_of
from tritonclient.grpc import service_pb2

from tritonfleet.http2.frames import ErrorCode
from tritonfleet.router.guard import Guard
from tritonfleet.router.management import Management

FAR = ["10.0.0.0/8"]
NAMED = service_pb2.TraceSettingRequest(model_name="m").SerializeToString()
CHANGES = [
    "RepositoryModelLoad", "RepositoryModelUnload", "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister",
    "TraceSetting", "LogSettings",
]  # fmt: skip


@pytest.mark.parametrize("rpc", CHANGES)
@pytest.mark.parametrize("body", [None, b"\x12\x01m\x0a\x01x", bytes(50_000)])
async def test_who_may_not_changes_nothing(rpc: str, body: bytes | None) -> None:
    async with router_of(ScriptedReplica()) as router, raw_client(router.port) as client:
        router.dispatcher.guard = Guard(Management(FAR))
        if body is None:
            stream = client.h2.get_next_available_stream_id()
            client.h2.send_headers(stream, headers_of(SERVICE + rpc), end_stream=True)
            client.flush()
        else:
            stream = client.request(None, path=SERVICE + rpc)
            client.h2.send_data(stream, message(body)[:16_000])
            client.h2.send_data(stream, message(body)[16_000:32_000])
            client.h2.send_data(stream, message(body)[32_000:48_000], end_stream=len(body) < 32_000)
            client.flush()
        status, words = await client.finished(stream)
        assert (status, "router.management" in words) == (7, True)
        assert (await client.finished(client.request(b"x")))[0] == 0
        (connection,) = router.dispatcher.clients
        assert connection.receive_room + connection.drained == connection.connection_window
        assert [request.headers[":path"] for request in router.scripted[0].requests] == ["/x.Y/Z"]


@pytest.mark.parametrize("rpc", CHANGES)
async def test_who_may_is_passed_on(rpc: str) -> None:
    body = b"\x12\x01m\x0a\x01x"
    async with router_of(ScriptedReplica()) as router, raw_client(router.port) as client:
        router.dispatcher.guard = Guard(Management())
        stream = client.request(body, path=SERVICE + rpc)
        assert await client.finished(stream) == (0, "")
        assert client.body(stream) == message(body)


@pytest.mark.parametrize(
    ("rpc", "body"),
    [("TraceSetting", b""), ("LogSettings", b""), ("TraceSetting", NAMED), ("ModelStatistics", b"\x0a\x01m")],
)
@pytest.mark.parametrize("cut", [0, 3, 5])
async def test_asking_is_everybody_s(rpc: str, body: bytes, cut: int) -> None:
    """In pieces, too."""
    whole = message(body)
    async with router_of(ScriptedReplica()) as router, raw_client(router.port) as client:
        router.dispatcher.guard = Guard(Management(FAR))
        stream = client.request(None, path=SERVICE + rpc)
        if cut:
            client.h2.send_data(stream, whole[:cut])
            client.flush()
            client.h2.ping(b"12345678")
        client.h2.send_data(stream, whole[cut:], end_stream=True)
        client.flush()
        assert await client.finished(stream) == (0, "")
        assert client.body(stream) == whole


async def test_the_secret_is_enough_and_stays_here(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("sesame\n")
    async with router_of(ScriptedReplica()) as router, raw_client(router.port) as client:
        router.dispatcher.guard = Guard(Management([f"token:{tmp_path}/secret"]))
        for word, status in (("sesame", 0), ("open", 7)):
            extra = {"authorization": f"Bearer {word}", "x-custom": "yes"}
            stream = client.request(b"\x12\x01m", path=SERVICE + "RepositoryModelLoad", **extra)
            assert (await client.finished(stream))[0] == status
        (request,) = router.scripted[0].requests
        assert request.headers["x-custom"] == "yes"
        assert "authorization" not in request.headers


async def test_one_that_is_taken_back_while_it_is_looked_at_is_credited() -> None:
    async with router_of(ScriptedReplica()) as router, raw_client(router.port) as client:
        router.dispatcher.guard = Guard(Management(FAR))
        stream = client.request(None, path=SERVICE + "TraceSetting")
        client.h2.send_data(stream, message(bytes(5000))[:4000])
        client.h2.reset_stream(stream, ErrorCode.CANCEL)
        client.flush()
        assert (await client.finished(client.request(b"x")))[0] == 0
        (connection,) = router.dispatcher.clients
        assert connection.receive_room + connection.drained == connection.connection_window
        assert not client.of(h2.events.ConnectionTerminated)

"""Raw calls to a replica: bytes in, bytes or a status out, whatever happens to the replica or the caller."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from tritonfleet.triton.client import RawAnswer, TritonClient

PATH = "/inference.GRPCInferenceService/Something"


class Server(grpc.GenericRpcHandler):
    """Answers by what the message says; keeps the metadata."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}
        self.hanging = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        self.metadata = dict(details.invocation_metadata)
        return grpc.unary_unary_rpc_method_handler(self.answer)

    async def answer(self, message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        if message == b"refuse":
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "it is there")
        if message == b"hang":
            self.hanging.set()
            await asyncio.Event().wait()
        return message * 2


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, TritonClient]]:
    handler = Server()
    running = grpc.aio.server(handlers=[handler])
    port = running.add_insecure_port("127.0.0.1:0")
    await running.start()
    client = TritonClient("127.0.0.1", port)
    yield handler, client
    await client.close()
    await running.stop(None)


async def test_bytes_go_through(server: tuple[Server, TritonClient]) -> None:
    handler, client = server
    assert await client.call(PATH, b"ab", 5, {"triton-grpc-protocol-x": "y"}) == RawAnswer(0, "", b"abab")
    assert handler.metadata["triton-grpc-protocol-x"] == "y"


async def test_a_refusal_is_an_answer(server: tuple[Server, TritonClient]) -> None:
    _, client = server
    assert await client.call(PATH, b"refuse", None, {}) == RawAnswer(6, "it is there")


async def test_a_deadline_is_an_answer(server: tuple[Server, TritonClient]) -> None:
    _, client = server
    assert (await client.call(PATH, b"hang", 0.05, {})).status == 4


async def test_nobody_there_is_an_answer() -> None:
    client = TritonClient("127.0.0.1", 1)
    assert (await client.call(PATH, b"", 5, {})).status == 14
    await client.close()


async def test_a_replica_that_is_given_up_meanwhile_is_an_answer(
    server: tuple[Server, TritonClient],
) -> None:
    handler, client = server
    call = asyncio.create_task(client.call(PATH, b"hang", None, {}))
    await handler.hanging.wait()
    await client.close()
    assert (await call).status in (1, 14)


async def test_a_caller_that_is_cancelled_is_cancelled(server: tuple[Server, TritonClient]) -> None:
    handler, client = server
    call = asyncio.create_task(client.call(PATH, b"hang", None, {}))
    await handler.hanging.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

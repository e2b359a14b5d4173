"""One call after another: how much longer through a proxy than without; how many messages a stream passes.

The caller is tritonclient for unary calls, as users have it, and grpcio for the stream, whose messages it
gives and takes as bytes. Both are clients of one connection that wait for each answer before they ask again.
"""

import asyncio
import random
import time
from collections.abc import Mapping
from contextlib import ExitStack
from statistics import quantiles

import grpc
import load
import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as pb

WARM_UP = 50  # calls and messages before each measurement


def latencies_s(addresses: Mapping[str, str], size: int, count: int) -> dict[str, list[float]]:
    """Of ``count`` rounds of `echo` calls with ``size`` bytes by tritonclient, each target once in a round,
    so that what disturbs one disturbs all. Every answer is checked."""
    values = np.arange(size, dtype=np.uint8)
    given = triton.InferInput("INPUT0", [size], "UINT8")
    given.set_data_from_numpy(values)
    asked = [triton.InferRequestedOutput("OUTPUT0")]
    names, order = list(addresses), random.Random(count)
    found: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack:
        clients = {
            name: stack.enter_context(triton.InferenceServerClient(address))
            for name, address in addresses.items()
        }
        for index in range(WARM_UP + count):
            order.shuffle(names)  # or each would always follow the same one, which is worth 5 %
            for name in names:
                began = time.perf_counter()
                result = clients[name].infer("echo", [given], outputs=asked)
                if index >= WARM_UP:
                    found[name].append(time.perf_counter() - began)
                if not np.array_equal(result.as_numpy("OUTPUT0"), values):
                    raise RuntimeError(f"{name} gave back other bytes than it was given")
    return found


def p50_p99_us(latencies: list[float]) -> tuple[float, float]:
    cuts = quantiles(latencies, n=100)
    return cuts[49] * 1e6, cuts[98] * 1e6


def messages_per_s(address: str, size: int, count: int) -> float:
    """Of one ModelStreamInfer, `echo` with ``size`` bytes, each message sent when the last was answered."""
    return asyncio.run(_ping_pong(address, load.echo(size)[5:], size, count))


async def _ping_pong(address: str, message: bytes, size: int, count: int) -> float:
    async with grpc.aio.insecure_channel(address) as channel:
        stream = channel.stream_stream(f"/{load.SERVICE}/ModelStreamInfer")()
        began = 0.0
        for index in range(WARM_UP + count):
            if index == WARM_UP:
                began = time.perf_counter()
            await stream.write(message)
            answer = pb.ModelStreamInferResponse.FromString(await stream.read())
            if answer.error_message or len(answer.infer_response.raw_output_contents[0]) != size:
                raise RuntimeError(f"{address} answered wrongly: {answer.error_message or answer}")
        took = time.perf_counter() - began
        await stream.done_writing()
    return count / took

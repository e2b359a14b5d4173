"""The client of `tail.py` and `fleet_run.py`, a process of its own: sends requests when they are due,
whatever is still out.

Reads its orders as JSON from standard input, prints as JSON what became of them. Latency counts from when a
request was *due*, so that a client or a proxy that falls behind is not forgiven ("coordinated omission").
Answers are kept and checked when all is over: each must tell the size of its own request.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import uvloop
from tritonclient.grpc import service_pb2 as pb

CONNECTIONS = 8
TIMEOUT_S = 120.0

Send = Callable[[bytes], Awaitable[bytes]]


def request(model: str, size: int, batched: bool) -> bytes:
    message = pb.ModelInferRequest(
        model_name=model, raw_input_contents=[size.to_bytes(4, "little") + b"x" * size]
    )
    message.inputs.add(name="PAYLOAD", datatype="BYTES", shape=[1, 1] if batched else [1])
    return bytes(message.SerializeToString())


def answered_size(answer: bytes) -> int:
    return int.from_bytes(pb.ModelInferResponse.FromString(answer).raw_output_contents[0], "little")


class Client:
    def __init__(self, address: str, connections: int = CONNECTIONS) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]  # or all channels would share one connection
        self.channels = [grpc.aio.insecure_channel(address, options) for _ in range(connections)]
        method = "/inference.GRPCInferenceService/ModelInfer"
        self.began_at = 0.0  # of the open loop, seconds since the epoch
        self.sends: list[Send] = [channel.unary_unary(method) for channel in self.channels]

    async def open_loop(self, due_s: list[float], messages: list[bytes]) -> list[tuple[float, float, bytes]]:
        """(seconds late when sent, latency in seconds, answer) for each; an answer "" has failed."""
        results: list[tuple[float, float, bytes]] = [(0.0, 0.0, b"")] * len(messages)
        clock, tasks = time.perf_counter, set()
        start = clock() + 0.05
        self.began_at = time.time() + 0.05

        async def one(index: int) -> None:
            late = clock() - start - due_s[index]
            try:
                answer = await self.sends[index % len(self.sends)](messages[index], timeout=TIMEOUT_S)  # type: ignore[call-arg] # a multi-callable takes more than its message
            except grpc.aio.AioRpcError as error:
                print(f"{error.code().name}: {error.details()}", file=sys.stderr)
                answer = b""
            results[index] = (late, clock() - start - due_s[index], answer)

        for index, due in enumerate(due_s):
            await asyncio.sleep(max(0.0, start + due - clock()))
            task = asyncio.create_task(one(index))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)
        return results

    async def closed_loop(self, messages: list[bytes], at_a_time: int, seconds: float) -> float:
        """Answers per second with ``at_a_time`` requests out at any time. Raises AioRpcError if one fails."""
        until, done = time.perf_counter() + seconds, 0

        async def keep_asking(index: int) -> None:
            nonlocal done
            send = self.sends[index % len(self.sends)]
            while time.perf_counter() < until:
                await send(messages[index % len(messages)])
                index += at_a_time
                done += time.perf_counter() < until

        await asyncio.gather(*(keep_asking(index) for index in range(at_a_time)))
        return done / seconds

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close()


async def carry_out(orders: dict[str, Any]) -> dict[str, Any]:
    sizes: list[int] = orders["sizes"]
    messages = [request(orders["model"], size, orders["batched"]) for size in sizes]
    client = Client(orders["address"], orders.get("connections", CONNECTIONS))
    try:
        if "at_a_time" in orders:
            rate = await client.closed_loop(messages, orders["at_a_time"], orders["seconds"])
            return {"requests_per_s": rate}
        results = await client.open_loop(orders["due_s"], messages)
    finally:
        await client.close()
    failed = sum(not answer for _, _, answer in results)
    wrong = sum(
        bool(answer) and answered_size(answer) != size
        for (_, _, answer), size in zip(results, sizes, strict=True)
    )
    late = sorted(late for late, _, _ in results)
    return {
        "latencies_s": [round(latency, 6) for _, latency, _ in results],
        "failed": failed,
        "wrong": wrong,
        "late_p99_s": late[int(len(late) * 0.99)],
        "began_at": client.began_at,
    }


def main() -> int:
    json.dump(uvloop.run(carry_out(json.load(sys.stdin))), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())

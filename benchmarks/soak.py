"""Does the router grow? One worker under mixed load in front of real Triton servers; its memory and open
files are read all the time.

At once: unary calls of 16 B to 200 kB, streams that answer a few messages and are closed or cancelled,
clients that connect for one call, calls whose deadline is too short. Every answer is checked.

    python benchmarks/soak.py [--seconds 600] [--allow-kb 2048]

Exit status 1 if the median of resident memory over the last fifth of the time exceeds that of the second
fifth by more than ``--allow-kb``, if more files are open at the end, with all clients gone, than before the
first, or if a call failed that should not have.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import grpc
import load
from contest import Contest
from peers import Tritonfleet
from processes import family, rss_bytes
from tritonclient.grpc import service_pb2 as pb

INFER, STREAM = f"/{load.SERVICE}/ModelInfer", f"/{load.SERVICE}/ModelStreamInfer"
SIZES = (16, 1000, 20_000, 200_000)
EXPECTED = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
WRITTEN_TOO_LATE = "Internal error from Core"  # grpcio's words for a write on a call that has just ended
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
CANCELLED = 0.2  # of the streams
SHORT_EVERY_S = 0.02  # a call whose deadline is too short
SAMPLE_S = 1.0
TABLE_ROWS = 10
MOST_WRONG = 100  # failures of one kind of load, after which it stops


@dataclass
class Record:
    """What was seen: (seconds, resident kB, open files) and how calls ended."""

    samples: list[tuple[float, float, int]] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def growth_kb(self) -> float:
        fifth = max(1, len(self.samples) // 5)
        early, late = self.samples[fifth : 2 * fifth], self.samples[-fifth:]
        return median(kb for _, kb, _ in late) - median(kb for _, kb, _ in early)

    def table(self) -> str:
        step = max(1, len(self.samples) // TABLE_ROWS)
        rows = [f"{at:7.0f} {kb:10.0f} {files:6}" for at, kb, files in self.samples[::step]]
        return "\n".join([f"{'seconds':>7} {'RSS kB':>10} {'files':>6}", *rows])


def look(pid: int) -> tuple[float, int]:
    """Resident kB and open files."""
    return rss_bytes(family(pid)) / 1000, sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


class Clients:
    """The kinds of load, each a coroutine that does one thing once."""

    def __init__(self, address: str, record: Record) -> None:
        self._address, self._record = address, record
        # A connection for each kind: on whom more than 100 calls a second are taken back is hung up
        # (router.limits.resets_per_second), and that is not what is looked for here.
        self._channel, self._streams, self._short = (
            grpc.aio.insecure_channel(address, options=OWN_CONNECTION) for _ in range(3)
        )
        self._random = random.Random(1)

    async def unary(self) -> None:
        size = self._random.choice(SIZES)
        await self._ask(self._channel, size, timeout=30)

    async def too_short(self) -> None:
        """Streams only: the Triton of pytriton 0.7.0 crashes (signal 11) within seconds of unary inferences
        that run out of time, with no router before it (server issues 7368 and 8034)."""
        await asyncio.sleep(SHORT_EVERY_S)
        call = self._short.stream_stream(STREAM)(timeout=self._random.choice((0.0008, 0.003)))
        await call.write(load.echo(1000)[5:])
        while await call.read() is not grpc.aio.EOF:
            pass  # the time runs out in the middle; what came until then is of no use

    async def newcomer(self) -> None:
        async with grpc.aio.insecure_channel(self._address, options=OWN_CONNECTION) as own:
            await self._ask(own, 16, timeout=30)

    async def stream(self) -> None:
        call = self._streams.stream_stream(STREAM)()
        for _ in range(self._random.randint(1, 5)):
            await call.write(load.echo(16)[5:])
            answer = pb.ModelStreamInferResponse.FromString(await call.read())
            self._check(answer.infer_response, 16)
        if self._random.random() < CANCELLED:
            call.cancel()
            self._record.ends["stream cancelled"] += 1
            return
        await call.done_writing()
        self._record.ends[f"stream {(await call.code()).name}"] += 1

    async def _ask(self, channel: grpc.aio.Channel, size: int, timeout: float) -> None:
        answer = await channel.unary_unary(INFER)(load.echo(size)[5:], timeout=timeout)
        self._check(pb.ModelInferResponse.FromString(answer), size)
        self._record.ends["OK"] += 1

    def _check(self, answer: pb.ModelInferResponse, size: int) -> None:
        if len(answer.raw_output_contents[0]) != size:
            self._record.wrong.append(f"{size} bytes asked, {len(answer.raw_output_contents[0])} given")

    async def close(self) -> None:
        for channel in (self._channel, self._streams, self._short):
            await channel.close()


async def again(once: Callable[[], Awaitable[None]], record: Record, until: float, short: bool) -> None:
    """``once`` again and again; ``short``: its calls are meant to run out of time."""
    while time.monotonic() < until:
        try:
            await once()
        except grpc.aio.AioRpcError as error:
            record.ends[error.code().name] += 1
            if not (short and (error.code() in EXPECTED or error.details() == WRITTEN_TOO_LATE)):
                record.wrong.append(f"{error.code().name}: {error.details()}")
                if len(record.wrong) >= MOST_WRONG:
                    return
            await asyncio.sleep(0.01)


async def soak(address: str, pid: int, seconds: float) -> Record:
    record = Record()
    _, files_before = look(pid)
    began = time.monotonic()
    clients = Clients(address, record)
    kinds = [clients.unary] * 4 + [clients.stream] * 2 + [clients.newcomer] + [clients.too_short]
    async with asyncio.TaskGroup() as tasks:
        for once in kinds:
            short = once == clients.too_short
            tasks.create_task(again(once, record, began + seconds, short))
        while (at := time.monotonic() - began) < seconds:
            record.samples.append((at, *look(pid)))
            await asyncio.sleep(min(SAMPLE_S, seconds / 20))
    await clients.close()
    for _ in range(100):
        if look(pid)[1] <= files_before:
            return record
        await asyncio.sleep(0.1)
    record.wrong.append(f"{look(pid)[1]} files open with all clients gone, {files_before} before the first")
    return record


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600, help="of load (%(default)g)")
    parser.add_argument(
        "--allow-kb", type=float, default=2048, help="growth that is no failure (%(default)g)"
    )
    parser.add_argument("--replicas", type=int, default=2, help="Triton servers (%(default)s)")
    chosen = parser.parse_args()
    peer = Tritonfleet()
    with Contest([peer], chosen.replicas, ["echo"]) as contest:
        record = asyncio.run(soak(contest.addresses[peer.name], contest.pids[peer.name], chosen.seconds))
        for log in sorted(contest.folder.rglob("*.log")) if record.wrong else ():
            print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n")
    print(record.table())
    print("ends:", ", ".join(f"{count} {name}" for name, count in record.ends.most_common()))
    growth = record.growth_kb()
    print(f"growth from the second fifth to the last: {growth:+.0f} kB (allowed: {chosen.allow_kb:g})")
    for words in dict.fromkeys(record.wrong):
        print("WRONG:", words, file=sys.stderr)
    return 1 if record.wrong or growth > chosen.allow_kb else 0


if __name__ == "__main__":
    sys.exit(main())

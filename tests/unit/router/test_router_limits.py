"""What a hostile client meets: a quick end, bounded memory, and an unharmed neighbour."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h2.events
import pytest
from router_parts import Request, ScriptedReplica, raw_client, router_of, until

from tritonfleet.http2 import frames
from tritonfleet.http2.fields import encode
from tritonfleet.http2.frames import ErrorCode
from tritonfleet.router import limits, watchdog
from tritonfleet.router.limits import TokenBucket

REQUEST = encode(
    (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/x.Y/Z"),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
    )
)


def nothing(_request: Request) -> None:
    """A replica that works on and on."""


class Attacker:
    """A socket and frames by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def goaway(self) -> tuple[int, bytes]:
        """Read to the end; the code and the words of the last GOAWAY."""
        data = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                data = await self.reader.read(1 << 24)
                while chunk := await self.reader.read(1 << 24):
                    data += chunk
        found = (-1, b"")
        while len(data) >= 9:
            length = int.from_bytes(data[:3], "big")
            if data[3] == frames.GOAWAY:
                found = int.from_bytes(data[13:17], "big"), data[17 : 9 + length]
            data = data[9 + length :]
        return found


@asynccontextmanager
async def attacker(port: int, *, greet: bool = True) -> AsyncIterator[Attacker]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if greet:
        writer.write(frames.PREFACE + frames.settings({}))
    try:
        yield Attacker(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def sid(number: int) -> bytes:
    return number.to_bytes(4, "big")


def opened(number: int) -> bytes:
    return frames.headers(sid(number), REQUEST, False, 16_384)


FLOODS = {
    "ping": frames.ping(b"12345678") * 3000,
    "settings": frames.settings({}) * 3000,
    "priority": frames.frame(frames.PRIORITY, 0, sid(1), bytes(5)) * 3000,
    "unknown frames": frames.frame(0x42, 0, sid(0), b"") * 3000,
    "empty data": opened(1) + frames.frame(frames.DATA, 0, sid(1)) * 3000,
    "dribbled windows": frames.window_update(sid(0), 1) * 3000,
    "rapid reset": b"".join(
        opened(number)
        + frames.frame(frames.DATA, 0, sid(number), b"\0\0\0\0\5")
        + frames.rst_stream(sid(number), 8)
        for number in range(1, 3001, 2)
    ),
    "settings in one frame": frames.settings(dict.fromkeys(range(100, 140), 1)),
    "continuations": frames.frame(frames.HEADERS, 0, sid(1), b"")
    + frames.frame(frames.CONTINUATION, 0, sid(1)) * 20,
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_ends_the_connection_and_harms_nobody(flood: str) -> None:
    async with (
        router_of(ScriptedReplica()) as router,
        raw_client(router.port) as neighbour,
        attacker(router.port) as enemy,
    ):
        await enemy.send(FLOODS[flood])
        code, words = await enemy.goaway()
        assert code == ErrorCode.ENHANCE_YOUR_CALM
        assert words
        for _ in range(5):
            assert (await neighbour.finished(neighbour.request(b"")))[0] == 0


async def test_ordinary_use_is_no_flood() -> None:
    """More calls, cancels and pings than any limit's burst, at the rate of a busy client."""
    async with router_of(ScriptedReplica()) as router, raw_client(router.port) as client:
        for number in range(600):
            stream = client.request(b"x")
            for ping in range(8):  # 4800 in a second or two: with calls they are no flood
                client.h2.ping((number * 8 + ping).to_bytes(8, "big"))
            await client.finished(stream)
            cancelled = client.request(None)
            client.h2.reset_stream(cancelled, ErrorCode.CANCEL)
            client.flush()
        assert not client.closed
        assert not client.of(h2.events.ConnectionTerminated)


async def test_a_malformed_request_is_a_stream_error_and_goes_nowhere() -> None:
    replica = ScriptedReplica()
    async with router_of(replica) as router, raw_client(router.port) as client:
        good = client.request(b"")
        await client.finished(good)
        client.h2.config.validate_outbound_headers = False
        client.h2.config.normalize_outbound_headers = False
        bad = client.request(b"", **{"X-Upper": "1"})
        await until(lambda: bool(client.of(h2.events.StreamReset, bad)))
        assert client.of(h2.events.StreamReset, bad)[0].error_code == ErrorCode.PROTOCOL_ERROR
        assert (await client.finished(client.request(b"")))[0] == 0
        assert len(replica.requests) == 2


async def test_who_never_greets_is_hung_up_on() -> None:
    async with router_of(ScriptedReplica()) as router, attacker(router.port, greet=False) as enemy:
        await until(lambda: len(router.dispatcher.clients) == 1)
        now = router.dispatcher.loop.time()
        watchdog.look(router.dispatcher, now + limits.HANDSHAKE_S - 1)
        assert len(router.dispatcher.clients) == 1
        watchdog.look(router.dispatcher, now + limits.HANDSHAKE_S + 1)
        await until(lambda: not router.dispatcher.clients)
        assert (await enemy.goaway())[0] == -1


async def test_a_header_block_must_end_in_time() -> None:
    async with router_of(ScriptedReplica()) as router, attacker(router.port) as enemy:
        await enemy.send(frames.frame(frames.HEADERS, 0, sid(1), REQUEST[:5]))
        await until(lambda: any(client.in_header_block for client in router.dispatcher.clients))
        now = router.dispatcher.loop.time()
        watchdog.look(router.dispatcher, now)
        assert len(router.dispatcher.clients) == 1
        watchdog.look(router.dispatcher, now + limits.HANDSHAKE_S + 1)
        await until(lambda: not router.dispatcher.clients)


async def test_who_does_not_read_is_not_read_from_and_hung_up_on() -> None:
    big = b"x" * 1_000_000
    async with router_of(ScriptedReplica(lambda r: r.answer(big))) as router:
        async with attacker(router.port) as enemy:
            enemy.writer.transport.pause_reading()
            await enemy.send(
                frames.settings({frames.SETTINGS_INITIAL_WINDOW_SIZE: 1 << 30})
                + frames.window_update(sid(0), 1 << 30)
                + b"".join(
                    opened(number) + frames.frame(frames.DATA, frames.END_STREAM, sid(number), b"\0\0\0\0\0")
                    for number in range(1, 201, 2)
                )
            )
            await until(lambda: any(c.stalled_since is not None for c in router.dispatcher.clients))
            (client,) = router.dispatcher.clients
            held = sum(stream.queued_bytes for stream in client.streams.values())
            assert held <= 100 * client.stream_window
            now = router.dispatcher.loop.time()
            watchdog.look(router.dispatcher, now + limits.STALLED_S + 1)
            await until(lambda: not router.dispatcher.clients)
        await until(lambda: router.in_flight() == 0)


def test_a_bucket_refills() -> None:
    bucket = TokenBucket(2, 1)
    assert [bucket.take(100.0) for _ in range(3)] == [True, True, False]
    assert [bucket.take(101.0), bucket.take(101.0)] == [True, False]
    assert [bucket.take(200.0) for _ in range(3)] == [True, True, False]

"""What a hostile client meets: a quick end, bounded memory, and an unharmed neighbour."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h2.events
import pytest
from router_parts import Request, ScriptedReplica, raw_client, router_of, until

from tritonfleet.core.limits import RouterLimits
from tritonfleet.http2 import frames
from tritonfleet.http2.fields import encode
from tritonfleet.http2.frames import ErrorCode
from tritonfleet.router import watchdog
from tritonfleet.router.limits import TokenBucket, gave_up

LIMITS = RouterLimits()
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


def opened(number: int, timeout: bytes = b"") -> bytes:
    block = REQUEST + encode(((b"grpc-timeout", timeout),)) if timeout else REQUEST
    return frames.headers(sid(number), block, False, 16_384)


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


async def test_calls_taken_back_at_their_deadline_are_no_flood() -> None:
    few = RouterLimits(resets=3, resets_per_second=0.001)
    async with router_of(ScriptedReplica(nothing), limits=few) as router, attacker(router.port) as client:
        numbers = range(1, 41, 2)
        await client.send(b"".join(opened(number, b"50m") for number in numbers))
        await asyncio.sleep(0.1)
        await client.send(b"".join(frames.rst_stream(sid(number), ErrorCode.CANCEL) for number in numbers))
        await until(lambda: router.in_flight() == 0)
        await asyncio.sleep(0.05)
        assert len(router.dispatcher.clients) == 1


async def test_a_timeout_does_not_excuse_who_takes_back_at_once() -> None:
    few = RouterLimits(resets=3, resets_per_second=0.001)
    async with router_of(ScriptedReplica(nothing), limits=few) as router, attacker(router.port) as enemy:
        for number in range(1, 41, 2):
            await enemy.send(opened(number, b"1S") + frames.rst_stream(sid(number), ErrorCode.CANCEL))
        assert (await enemy.goaway())[0] == ErrorCode.ENHANCE_YOUR_CALM


def test_when_a_client_gave_up() -> None:
    assert gave_up(1.0, None)
    assert not gave_up(0.5, None)
    assert gave_up(0.047, 0.05)
    assert not gave_up(0.04, 0.05)
    assert not gave_up(0.005, 0.001)  # nobody waits so short


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
        watchdog.look(router.dispatcher, now + LIMITS.greeting_s - 1)
        assert len(router.dispatcher.clients) == 1
        watchdog.look(router.dispatcher, now + LIMITS.greeting_s + 1)
        await until(lambda: not router.dispatcher.clients)
        assert await enemy.goaway() == (ErrorCode.ENHANCE_YOUR_CALM, b"no HTTP/2 settings within 10 s")


async def test_a_header_block_must_end_in_time() -> None:
    async with router_of(ScriptedReplica()) as router, attacker(router.port) as enemy:
        await enemy.send(frames.frame(frames.HEADERS, 0, sid(1), REQUEST[:5]))
        await until(lambda: any(client.in_header_block for client in router.dispatcher.clients))
        now = router.dispatcher.loop.time()
        watchdog.look(router.dispatcher, now)
        assert len(router.dispatcher.clients) == 1
        watchdog.look(router.dispatcher, now + LIMITS.greeting_s + 1)
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
            watchdog.look(router.dispatcher, now + LIMITS.stalled_s + 1)
            await until(lambda: not router.dispatcher.clients)
        await until(lambda: router.in_flight() == 0)


ASKS = frames.frame(frames.DATA, frames.END_STREAM, sid(1), b"\0\0\0\0\0")
NO_WINDOW = frames.settings({frames.SETTINGS_INITIAL_WINDOW_SIZE: 0})


def asked(number: int) -> bytes:
    return opened(number) + ASKS[:5] + sid(number) + ASKS[9:]


async def test_a_stream_whose_window_stays_shut_is_reset_and_others_of_its_connection_are_not() -> None:
    answers = ScriptedReplica(lambda r: r.answer(b"x" * 1000))
    async with router_of(answers) as router, attacker(router.port) as enemy:
        await enemy.send(NO_WINDOW + asked(1) + asked(3))
        await until(lambda: router.dispatcher.held.total == 2010)
        (client,) = router.dispatcher.clients
        now = router.dispatcher.loop.time()
        watchdog.look(router.dispatcher, now)
        await enemy.send(frames.window_update(sid(3), 10))
        await until(lambda: router.dispatcher.held.total == 2000)
        watchdog.look(router.dispatcher, now + 1)  # 3 has taken some meanwhile
        watchdog.look(router.dispatcher, now + LIMITS.stalled_s + 0.5)
        assert [stream.id for stream in client.blocked] == [sid(3)]
        assert list(client.streams) == [sid(3)]
        assert router.dispatcher.held.total == 995
        watchdog.look(router.dispatcher, now + LIMITS.stalled_s + 1.5)
        assert not client.streams
        assert router.dispatcher.held.total == 0


async def test_the_answers_to_one_who_takes_none_are_few_and_its_next_calls_wait() -> None:
    """What it has taken nothing of begins with 16 KiB each; a neighbour's calls do not wait."""
    answers = ScriptedReplica(lambda r: r.answer(b"x" * 100_000))
    limits = RouterLimits(held_by_connection=65_536)
    async with router_of(answers, limits=limits) as router, attacker(router.port) as enemy:
        await enemy.send(NO_WINDOW + b"".join(asked(number) for number in range(1, 19, 2)))
        await until(lambda: router.dispatcher.held.total == 9 * 16_384)
        await enemy.send(asked(19))
        await until(lambda: len(next(iter(router.dispatcher.clients)).streams) == 10)
        async with raw_client(router.port) as neighbour:
            await neighbour.finished(neighbour.request(b""))
        assert len(answers.requests) == 10  # the tenth of the other client is not among them
        await enemy.send(b"".join(frames.window_update(sid(number), 1 << 20) for number in range(1, 19, 2)))
        await enemy.send(frames.window_update(sid(0), 1 << 24))
        await until(lambda: len(answers.requests) == 11)


async def test_when_all_hold_too_much_the_one_that_holds_most_goes() -> None:
    answers = ScriptedReplica(lambda r: r.answer(b"x" * 100_000))
    limits = RouterLimits(held_by_all=100_000)
    async with (
        router_of(answers, limits=limits) as router,
        attacker(router.port) as modest,
        attacker(router.port) as greedy,
    ):
        await modest.send(NO_WINDOW + asked(1))
        await until(lambda: router.dispatcher.held.total == 16_384)
        await greedy.send(NO_WINDOW + b"".join(asked(number) for number in range(1, 13, 2)))
        code, words = await greedy.goaway()
        assert code == ErrorCode.ENHANCE_YOUR_CALM
        assert words.endswith(b"bytes of answers were not read")
        assert router.dispatcher.held.total == 16_384
        assert len(router.dispatcher.clients) == 1


async def test_who_gives_up_on_slow_calls_is_no_attacker() -> None:
    """A client whose calls all run into their deadlines takes back as many as an attacker does."""
    limits = RouterLimits(resets=5, resets_per_second=0)
    async with (
        router_of(ScriptedReplica(nothing), limits=limits) as router,
        raw_client(router.port) as client,
    ):
        streams = [client.request(b"") for _ in range(20)]
        replica = router.dispatcher.replicas["m-0.1"]
        await until(lambda: replica.in_flight == 20)
        for connection in replica.connections:
            for leg in connection.streams.values():
                leg.started -= 1.0
        for stream in streams:
            client.h2.reset_stream(stream, ErrorCode.CANCEL)
        client.flush()
        await until(lambda: replica.in_flight == 0)
        assert not client.of(h2.events.ConnectionTerminated)
        for stream in [client.request(b"") for _ in range(6)]:
            client.h2.reset_stream(stream, ErrorCode.CANCEL)
        client.flush()
        await until(lambda: bool(client.of(h2.events.ConnectionTerminated)))


async def test_who_asks_much_at_once_does_not_keep_others_from_their_turn() -> None:
    order: list[str] = []
    replica = ScriptedReplica()
    replica.on_start = lambda request: order.append(request.headers.get("x-who", "many"))
    async with (
        router_of(replica) as router,
        raw_client(router.port) as few,
        attacker(router.port) as many,
    ):
        await few.finished(few.request(b"", **{"x-who": "few"}))
        # Both are in the sockets before the router's turn, the many first.
        many.writer.write(b"".join(asked(number) for number in range(1, 1801, 2)))
        stream = few.request(b"", **{"x-who": "few"})
        assert (await few.finished(stream))[0] == 0
        await until(lambda: len(order) == 902)
        assert order[1:].index("few") < 450


async def test_no_metadata_enters_the_table_of_a_shared_connection() -> None:
    """Else one client's would be another's when the two sides' tables part (CVE-2024-7246)."""
    replica = ScriptedReplica()
    async with router_of(replica) as router, raw_client(router.port) as client:
        for number in range(3):
            await client.finished(client.request(b"", **{"x-secret": f"mine {number}"}))
        (connection,) = replica.connections
        assert (
            connection.h2.decoder.header_table.dynamic_entries
            == type(connection.h2.decoder.header_table.dynamic_entries)()
        )
        assert [request.headers["x-secret"][:4] for request in replica.requests] == ["mine"] * 3


def test_a_bucket_refills() -> None:
    bucket = TokenBucket(2, 1)
    assert [bucket.take(100.0) for _ in range(3)] == [True, True, False]
    assert [bucket.take(101.0), bucket.take(101.0)] == [True, False]
    assert [bucket.take(200.0) for _ in range(3)] == [True, True, False]


def cut(parts: int) -> bytes:
    """A request whose header block is in so many frames."""
    size = len(REQUEST) // parts + 1
    pieces = [REQUEST[at : at + size] for at in range(0, len(REQUEST), size)]
    kinds = [frames.HEADERS] + [frames.CONTINUATION] * (len(pieces) - 1)
    ends = [0] * (len(pieces) - 1) + [frames.END_HEADERS]
    return b"".join(
        frames.frame(kind, end, sid(1), piece) for kind, end, piece in zip(kinds, ends, pieces, strict=True)
    )


def with_block(block: bytes) -> bytes:
    return frames.headers(sid(1), block, False, 16_384)


@pytest.mark.parametrize(
    ("limits", "taken", "too_much", "code"),
    [
        (RouterLimits(continuations=2), cut(3), cut(4), ErrorCode.ENHANCE_YOUR_CALM),
        (
            RouterLimits(table_updates=1),
            with_block(b"\x20" + REQUEST),
            with_block(b"\x20\x20" + REQUEST),
            ErrorCode.COMPRESSION_ERROR,
        ),
        (
            RouterLimits(settings_per_frame=2),
            frames.frame(frames.SETTINGS, 0, sid(0), b"\0\x42\0\0\0\0" * 2),
            frames.frame(frames.SETTINGS, 0, sid(0), b"\0\x42\0\0\0\0" * 3),
            ErrorCode.ENHANCE_YOUR_CALM,
        ),
    ],
)
async def test_figures_of_the_file_hold(
    limits: RouterLimits, taken: bytes, too_much: bytes, code: ErrorCode
) -> None:
    async with (
        router_of(ScriptedReplica(nothing), limits=limits) as router,
        attacker(router.port) as good,
        attacker(router.port) as bad,
    ):
        await good.send(taken + frames.ping(b"12345678"))
        await bad.send(too_much)
        assert (await bad.goaway())[0] == code
        seen = b""
        while b"12345678" not in seen:
            more = await good.reader.read(4096)
            assert more, "hung up on"
            seen += more


@pytest.mark.parametrize(("fields", "refused"), [(6, False), (5, True)])
async def test_how_many_fields_a_request_may_have_is_the_files_to_say(fields: int, refused: bool) -> None:
    replica = ScriptedReplica()
    limits = RouterLimits(fields=fields)
    async with router_of(replica, limits=limits) as router, raw_client(router.port) as client:
        stream = client.request(b"")
        await until(lambda: bool(client.of(h2.events.StreamReset, stream)) or bool(replica.requests))
        assert bool(replica.requests) is not refused
        assert len(router.dispatcher.clients) == 1
        if not refused:
            await client.finished(stream)
            trailed = client.request(None)
            client.h2.send_data(trailed, b"\0\0\0\0\0")
            client.h2.send_headers(trailed, [(f"x{n}", "") for n in range(fields + 1)], end_stream=True)
            client.flush()
            await until(lambda: bool(client.of(h2.events.StreamReset, trailed)))


async def test_how_much_waits_in_the_socket_is_the_files_to_say() -> None:
    limits = RouterLimits(unread=65_536)
    async with router_of(ScriptedReplica(), limits=limits) as router, raw_client(router.port) as client:
        await client.finished(client.request(b""))
        (connection,) = router.dispatcher.clients
        assert connection.transport.get_write_buffer_limits()[1] == 65_536

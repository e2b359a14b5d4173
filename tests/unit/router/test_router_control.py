"""What a worker says of its link to the controller, when that is not there or does not take its reports."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from tritonfleet.core.wire import Problem, RouterTable
from tritonfleet.router.control import ControlLink
from tritonfleet.router.dispatch import Dispatcher


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 # what is awaited is only written to a log: nothing to wait on
            await asyncio.sleep(0.02)


@asynccontextmanager
async def linked(socket: Path) -> AsyncIterator[Dispatcher]:
    dispatcher = Dispatcher()
    link = ControlLink(dispatcher, str(socket), 0)
    running = asyncio.create_task(link.run())
    try:
        yield dispatcher
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await link.close()


@asynccontextmanager
async def controller(socket: Path, refusal: Problem | None = None) -> AsyncIterator[None]:
    """Hands out one table, and takes reports or answers each with ``refusal``."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            table = msgspec.json.encode(RouterTable("paper", 3, "least_work", ())) + b"\n"
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + table)
            await reader.read()  # until the worker goes
        else:
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            body = b"" if refusal is None else msgspec.json.encode(refusal)
            status = b"204 No Content" if refusal is None else b"422 Unprocessable Entity"
            writer.write(
                b"HTTP/1.1 %s\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
                % (status, len(body), body)
            )
        writer.close()

    server = await asyncio.start_unix_server(answer, socket)
    try:
        yield
    finally:
        server.close()


async def test_without_a_controller_it_says_where_it_looks_and_what_follows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tritonfleet.router.control")
    socket = tmp_path / "control.sock"
    async with linked(socket) as dispatcher:
        await until(lambda: bool(caplog.messages))
        (said,) = caplog.messages
        assert str(socket) in said
        assert "No such file" in said
        assert "UNAVAILABLE" in said
        assert "last table" not in said  # it has none
        async with controller(socket):
            await until(lambda: dispatcher.table is not None)
            await until(lambda: len(caplog.messages) == 2)
            assert caplog.messages[1] == "the controller is there"


async def test_it_says_that_its_reports_are_not_taken_and_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tritonfleet.router.control")
    socket = tmp_path / "control.sock"
    refusal = Problem("invalid", "the request's body is not a RouterTelemetry: it lacks `pid`")
    async with controller(socket, refusal), linked(socket) as dispatcher:
        await until(lambda: bool(caplog.messages))
        await until(lambda: dispatcher.table is not None)
        await asyncio.sleep(0.6)  # two more reports, which say nothing new
    (said,) = caplog.messages
    assert "it lacks `pid`" in said
    assert "same version" in said

"""The small HTTP client against bytes that a test writes: every form of a body, answers that break off."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tritonfleet.cli.unix_http import FAILURES, ProtocolError, Timeouts, asked

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextmanager
def answering(folder: Path, answer: bytes) -> Iterator[tuple[Path, list[bytes]]]:
    """One connection: what was asked is kept, ``answer`` is sent, and the connection ends."""
    path, got = folder / "s", list[bytes]()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                got.append(connection.recv(65536))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path, got
        finally:
            thread.join()


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", 204, b""),
        (b"HTTP/1.0 500 \r\n\r\nuntil the end", 500, b"until the end"),
        (CHUNKED + b"3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\n\r\n", 200, b"abcdefgh"),
    ],
)
def test_every_form_of_a_body(tmp_path: Path, answer: bytes, status: int, body: bytes) -> None:
    with answering(tmp_path, answer) as (path, _), asked(path, "GET", "/v1/x") as got:
        assert (got.status, got.body()) == (status, body)


def test_what_is_asked(tmp_path: Path) -> None:
    empty = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    with answering(tmp_path, empty) as (path, told), asked(path, "POST", "/v1/scale", b'{"a":1}') as got:
        assert got.body() == b""
    head, _, body = told[0].partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"POST /v1/scale HTTP/1.1"
    assert b"content-length: 7" in head
    assert body == b'{"a":1}'


def test_lines_come_when_they_are_complete(tmp_path: Path) -> None:
    answer = CHUNKED + b"4\r\none\n\r\n2\r\ntw\r\n4\r\no\nth\r\n0\r\n\r\n"
    with answering(tmp_path, answer) as (path, _), asked(path, "GET", "/") as got:
        assert list(got.lines()) == [b"one", b"two"]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-len",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello",
        CHUNKED + b"9\r\nhello",
        CHUNKED + b"zz\r\nhello\r\n",
    ],
)
def test_an_answer_that_breaks_off_is_a_failure(tmp_path: Path, answer: bytes) -> None:
    with (
        answering(tmp_path, answer) as (path, _),
        pytest.raises(ProtocolError),
        asked(path, "GET", "/") as got,
    ):
        got.body()


def test_silence_is_a_failure_in_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with pytest.raises(FAILURES), asked(tmp_path / "s", "GET", "/", timeouts=Timeouts(read=0.05)):
            raise AssertionError("nobody has answered")


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.touch()])
def test_nobody_there(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "s")
    with pytest.raises(FAILURES), asked(tmp_path / "s", "GET", "/"):
        raise AssertionError("nobody has answered")

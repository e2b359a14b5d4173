"""HTTP/1.1 over a unix socket: what the control API's client needs and no more, without the 10 ms of CPU that
http.client takes to import, or the 70 of httpx (docs/decisions/0021).

A connection for each request: on a local socket one is made sooner than an old one is found to live.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EPERM
from pathlib import Path
from typing import IO

from tritonfleet.controller.paths import belongs_to_a_stranger


class ProtocolError(Exception):
    """What came is not an answer, or only the beginning of one."""


FAILURES = (OSError, ProtocolError)  # nobody listens, or the other side went away in the middle


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect, and of silence while an answer is awaited."""

    connect: float = 2.0
    read: float = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    chunks: Iterator[bytes]  # of the body, as they come; raises `FAILURES`

    def body(self) -> bytes:
        return b"".join(self.chunks)

    def lines(self) -> Iterator[bytes]:
        """Each when it is complete, without its end. What is left of one at the end is none."""
        rest = b""
        for chunk in self.chunks:
            *complete, rest = (rest + chunk).split(b"\n")
            yield from complete


@contextmanager
def asked(
    path: Path, method: str, target: str, body: bytes | None = None, timeouts: Timeouts = Timeouts()
) -> Iterator[Answer]:
    """The answer, whose body is still to be read. Raises `FAILURES`."""
    if belongs_to_a_stranger(path.parent):
        raise PermissionError(EPERM, f"{path.parent} belongs to another user")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeouts.connect)
        connection.connect(str(path))
        connection.settimeout(timeouts.read)
        head = [f"{method} {target} HTTP/1.1", "host: controller", "connection: close"]
        if body is not None:
            head += ["content-type: application/json", f"content-length: {len(body)}"]
        connection.sendall("\r\n".join([*head, "", ""]).encode() + (body or b""))
        with connection.makefile("rb") as file:
            status, headers = _head(file)
            yield Answer(status, _chunks(file, headers))


def _head(file: IO[bytes]) -> tuple[int, dict[str, str]]:
    words = _line(file).split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise ProtocolError("it does not speak HTTP")
    headers = {}
    while line := _line(file):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(words[1]), headers


def _line(file: IO[bytes]) -> str:
    line = file.readline(1 << 16)
    if not line.endswith(b"\n"):
        raise ProtocolError("it ended the connection in the middle of an answer")
    return line.decode("latin-1").rstrip("\r\n")


def _chunks(file: IO[bytes], headers: dict[str, str]) -> Iterator[bytes]:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := _size(_line(file)):
            yield _exactly(file, size)
            _line(file)
    elif "content-length" in headers:
        yield _exactly(file, int(headers["content-length"]))
    else:
        yield file.read()


def _size(line: str) -> int:
    try:
        return int(line.partition(";")[0], 16)
    except ValueError:
        raise ProtocolError("it does not speak HTTP") from None


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise ProtocolError("it ended the connection in the middle of an answer")
    return data

"""TLS on the listener, with real gRPC clients against a worker's listener."""

import asyncio
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import grpc
import grpc.aio
import pytest
from certificates import certificate
from router_parts import Router, ScriptedReplica, message, router_of, until

from tritonfleet.core.replica_tls import ReplicaTls
from tritonfleet.core.wire import RouterTable, TableReplica
from tritonfleet.router.__main__ import bound_socket
from tritonfleet.router.dispatch import Dispatcher
from tritonfleet.router.management import Management
from tritonfleet.router.own import FleetAnswers
from tritonfleet.router.tls import FailedHandshakes, TlsClientConnection, TlsFiles, TlsListener
from tritonfleet.router.upstream_tls import secured

MODEL_LOAD = "/inference.GRPCInferenceService/RepositoryModelLoad"


async def echo(port: int, root: Path, client: tuple[Path, Path] | None = None, path: str = "/x.Y/Z") -> bytes:
    chain, key = (client[0].read_bytes(), client[1].read_bytes()) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(root.read_bytes(), key, chain)
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        answer: bytes = await channel.unary_unary(path)(b"hello", timeout=3)
        return answer


async def without_alpn(port: int, root: Path) -> bytes:
    """What a client that offers no protocol can read: nothing, it is hung up on."""
    context = ssl.create_default_context(cafile=str(root))
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context, family=socket.AF_INET)
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


def greet(port: int, root: Path) -> None:
    """As OpenSSL does it itself, which says why it hangs up. gRPC and asyncio do not."""
    with socket.create_connection(("localhost", port), timeout=5) as sock:
        ssl.create_default_context(cafile=str(root)).wrap_socket(sock, server_hostname="localhost").close()


@asynccontextmanager
async def listening(router: Router, files: TlsFiles) -> AsyncIterator[tuple[int, TlsListener]]:
    sock = bound_socket("127.0.0.1:0")
    listener = TlsListener(sock, files, lambda: TlsClientConnection(router.dispatcher))
    await listener.start()
    try:
        yield sock.getsockname()[1], listener
        await until(lambda: not router.dispatcher.clients)
    finally:
        listener.close()


async def test_tls_mutual_tls_and_alpn(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "server")
    client, stranger = certificate(tmp_path, "client"), certificate(tmp_path, "stranger")
    async with router_of(ScriptedReplica()) as router:
        async with listening(router, TlsFiles(cert, key)) as (port, _):
            assert await echo(port, cert) == b"hello"
            assert await without_alpn(port, cert) == b""
        async with listening(router, TlsFiles(cert, key, client[0])) as (port, _):
            assert await echo(port, cert, client) == b"hello"
            for refused in (None, stranger):
                with pytest.raises(grpc.aio.AioRpcError):
                    await echo(port, cert, refused)


async def test_who_is_lost_in_the_handshake_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = certificate(tmp_path, "server")
    client, stranger = certificate(tmp_path, "client"), certificate(tmp_path, "stranger")
    async with (
        router_of(ScriptedReplica()) as router,
        listening(router, TlsFiles(cert, key, client[0])) as (port, _),
    ):
        for refused in (None, stranger, stranger):
            with pytest.raises(grpc.aio.AioRpcError):
                await echo(port, cert, refused)
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(greet, port, stranger[0])  # it does not know who signed ours
        await until(lambda: "unknown ca" in caplog.text)
        _, writer = await asyncio.open_connection("localhost", port, family=socket.AF_INET)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        await until(lambda: "does not speak TLS" in caplog.text)
        writer.close()
    said = [record.getMessage() for record in caplog.records if "handshake" in record.getMessage()]
    assert said == [
        f"a client was lost in the TLS handshake: {why}"
        for why in (
            "it showed no certificate, and router.tls.client_ca wants one",
            "its certificate is refused: self-signed certificate",
            "it refused ours: unknown ca",
            "it does not speak TLS",
        )
    ]


def test_handshakes_that_fail_alike_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    times = iter((0.0, 1.0, 2.0, 11.0))
    failed = FailedHandshakes(lambda: next(times))
    error = ssl.SSLError(1, "[SSL: NO_SHARED_CIPHER] no shared cipher")
    error.reason = "NO_SHARED_CIPHER"
    for _ in range(4):
        failed.note(error)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "a client was lost in the TLS handshake",
        "a client was lost in the TLS handshake, and 2 more like it",
    ]


def test_an_older_tls_is_refused(tmp_path: Path) -> None:
    """By what OpenSSL is told; a client that asks for it is refused by its own library here."""
    assert TlsFiles(*certificate(tmp_path, "server")).context().minimum_version is ssl.TLSVersion.TLSv1_2


# ---------------------------------------------------------------- files that change


def copied(before: Path, name: str) -> Path:
    """For clients that trust what is about to be written over."""
    copy = before.with_name(name)
    copy.write_bytes(before.read_bytes())
    return copy


async def test_who_is_connected_goes_on_while_newcomers_get_the_changed_certificate(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "server")
    new_cert, new_key = certificate(tmp_path, "new")
    old = copied(cert, "old.pem")
    async with router_of(ScriptedReplica()) as router, listening(router, TlsFiles(cert, key)) as (port, it):
        credentials = grpc.ssl_channel_credentials(old.read_bytes())
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
            stream = channel.stream_stream("/x.Y/Stream")()
            await stream.write(b"before")
            await until(lambda: router.in_flight() > 0)
            (connection,) = router.dispatcher.clients
            cert.write_bytes(new_cert.read_bytes())
            key.write_bytes(new_key.read_bytes())
            await it.look()
            assert await echo(port, new_cert) == b"hello"
            with pytest.raises(grpc.aio.AioRpcError):
                await echo(port, old)
            assert await channel.unary_unary("/x.Y/Z")(b"hello", timeout=3) == b"hello"
            await stream.write(b"after")
            await stream.done_writing()
            assert await stream.read() == b"before" + message(b"after")  # as the replica echoes a body
            assert await stream.code() is grpc.StatusCode.OK
            await until(lambda: router.dispatcher.clients == {connection})
            del stream  # it holds the channel's connection


def protected(key: Path, name: str) -> Path:
    """The same key with a pass phrase."""
    copy = key.with_name(name)
    command = ["openssl", "ec", "-in", str(key), "-out", str(copy), "-aes256", "-passout", "pass:sesame"]
    subprocess.run(command, check=True, capture_output=True)
    return copy


@pytest.mark.parametrize(
    ("broken", "content", "words"),
    [
        ("server.pem", "half", "server.pem with "),
        ("server.pem", "other.pem", "the key is not that of the certificate"),
        ("server.key", "other.key", "the key is not that of the certificate"),
        ("server.key", "half", "server.key: "),
        ("server.key", "phrase.key", "the key has a pass phrase"),
        ("server.key", None, "No such file or directory"),
        ("ca.pem", "half", "ca.pem: "),
        ("ca.pem", "", "ca.pem: "),
    ],
)
async def test_broken_files_leave_the_old_ones_serving_and_it_is_said_once(
    tmp_path: Path, broken: str, content: str | None, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = certificate(tmp_path, "server")
    client = certificate(tmp_path, "client")
    ca, old = copied(client[0], "ca.pem"), copied(cert, "old.pem")
    other = certificate(tmp_path, "other")
    protected(key, "phrase.key")
    file = tmp_path / broken
    whole = file.read_bytes()
    async with (
        router_of(ScriptedReplica()) as router,
        listening(router, TlsFiles(cert, key, ca)) as (port, listener),
    ):
        if content is None:
            file.unlink()
        else:
            file.write_bytes(
                whole[: len(whole) // 2]
                if content == "half"
                else (tmp_path / content).read_bytes()
                if content
                else b""
            )
        for _ in range(3):
            await listener.look()
        (said,) = caplog.records
        assert said.levelname == "WARNING"
        assert "do not fit, the old ones stay" in said.getMessage()
        assert words in said.getMessage()
        assert await echo(port, old, client) == b"hello"
        file.write_bytes(whole)
        for changed, now in zip((cert, key), other, strict=True):
            changed.write_bytes(now.read_bytes())
        caplog.set_level("INFO", "tritonfleet.router.tls")
        await listener.look()
        assert caplog.messages[1:] == [f"new connections use the changed {cert}"]
        assert await echo(port, other[0], client) == b"hello"


def test_a_pass_phrase_is_not_asked_for_toward_replicas_either(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "router")
    given = ReplicaTls(str(cert), "localhost", str(cert), str(protected(key, "phrase.key")))
    with pytest.raises(OSError, match="the key has a pass phrase"):
        secured(given)


class Unanswering(asyncio.Protocol):
    """A server that shows its settings by TLS and answers nothing then: as Triton no close_notify."""

    def __init__(self, context: ssl.SSLContext, ended: list["Unanswering"]) -> None:
        self.incoming, self.outgoing, self.ended = ssl.MemoryBIO(), ssl.MemoryBIO(), ended
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.greeted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.greeted:
            return
        self.incoming.write(data)
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
            self.greeted = True
            self.tls.write(b"\0\0\0\x04\0\0\0\0\0")  # SETTINGS
        self.transport.write(self.outgoing.read())

    def eof_received(self) -> bool:
        self.ended.append(self)
        return True


async def test_who_does_not_answer_close_notify_sees_the_connection_end(tmp_path: Path) -> None:
    """Triton waited 20 s for our answer to its PING, which nobody read any more, before it ended."""
    cert, key = certificate(tmp_path, "replica")
    context, ended = TlsFiles(cert, key).context(), list[Unanswering]()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Unanswering(context, ended), "127.0.0.1", 0)
    by = ReplicaTls(str(cert), "localhost")
    port = server.sockets[0].getsockname()[1]
    row = TableReplica("r", "r.1", "main", "127.0.0.1", port, False, ("m",), tls=by)
    dispatcher = Dispatcher(2)
    dispatcher.apply(RouterTable("test", 1, "round_robin", (row,)))
    replica = dispatcher.replicas["r.1"]
    await until(lambda: len(replica.connections) == 2)
    dispatcher.apply(RouterTable("test", 2, "round_robin", ()))
    await until(lambda: len(ended) == 2)
    for connection in ended:
        connection.transport.abort()
    await replica.close()
    server.close()
    await until(lambda: not replica.connections)


async def test_a_certificates_name_allows_changes(tmp_path: Path) -> None:
    """Without a controller: who may asks in vain, who may not is told so."""
    cert, key = certificate(tmp_path, "server")
    both = tmp_path / "clients.pem"
    admin, user = certificate(tmp_path, "admin"), certificate(tmp_path, "user")
    both.write_bytes(admin[0].read_bytes() + user[0].read_bytes())
    async with router_of(ScriptedReplica()) as router:
        router.dispatcher.own = own = FleetAnswers(
            router.dispatcher, str(tmp_path / "none.sock"), Management(["cert:admin"])
        )
        async with listening(router, TlsFiles(cert, key, both)) as (port, _):
            for client, code in ((admin, "UNAVAILABLE"), (user, "PERMISSION_DENIED")):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await echo(port, cert, client, MODEL_LOAD)
                assert refused.value.code().name == code, refused.value.details()
                del refused  # it holds the channel's connection
        await own.close()


def test_a_worker_whose_files_do_not_fit_says_so(tmp_path: Path) -> None:
    cert, _ = certificate(tmp_path, "server")
    _, key = certificate(tmp_path, "other")
    worker = subprocess.run(
        [
            *(sys.executable, "-m", "tritonfleet.router", "--listen", "127.0.0.1:0", "--table", "none.json"),
            *("--tls-cert", str(cert), "--tls-key", str(key)),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert worker.returncode == 2
    assert "the certificate files of router.tls do not fit" in worker.stderr

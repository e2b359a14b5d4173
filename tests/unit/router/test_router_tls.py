"""TLS on the listener, with real gRPC clients against a worker's listener."""

import asyncio
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import grpc
import grpc.aio
import pytest
from certificates import certificate
from router_parts import ScriptedReplica, router_of, until

from tritonfleet.router.__main__ import bound_socket
from tritonfleet.router.management import Management
from tritonfleet.router.own import FleetAnswers
from tritonfleet.router.tls import TlsClientConnection, TlsFiles, TlsListener

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


async def test_tls_mutual_tls_alpn_and_changed_files(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "server")
    client, stranger = certificate(tmp_path, "client"), certificate(tmp_path, "stranger")
    async with router_of(ScriptedReplica()) as router:
        for client_ca in (None, client[0]):
            sock = bound_socket("127.0.0.1:0")
            port = sock.getsockname()[1]
            files = TlsFiles(cert, key, client_ca)
            listener = TlsListener(sock, files, lambda: TlsClientConnection(router.dispatcher))
            await listener.start()
            try:
                assert await echo(port, cert, client) == b"hello"
                if client_ca is not None:
                    for refused in (None, stranger):
                        with pytest.raises(grpc.aio.AioRpcError):
                            await echo(port, cert, refused)
                    continue
                assert await without_alpn(port, cert) == b""
                new_cert, new_key = certificate(tmp_path, "new")
                old = cert.read_bytes()
                cert.write_bytes(b"half written")
                await listener.look()
                (tmp_path / "old.pem").write_bytes(old)
                assert await echo(port, tmp_path / "old.pem") == b"hello"
                cert.write_bytes(new_cert.read_bytes())
                key.write_bytes(new_key.read_bytes())
                await listener.look()
                assert await echo(port, new_cert) == b"hello"
                with pytest.raises(grpc.aio.AioRpcError):
                    await echo(port, tmp_path / "old.pem")
            finally:
                listener.close()


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
        sock = bound_socket("127.0.0.1:0")
        listener = TlsListener(
            sock, TlsFiles(cert, key, both), lambda: TlsClientConnection(router.dispatcher)
        )
        await listener.start()
        try:
            for client, code in ((admin, "UNAVAILABLE"), (user, "PERMISSION_DENIED")):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await echo(sock.getsockname()[1], cert, client, MODEL_LOAD)
                assert refused.value.code().name == code, refused.value.details()
                del refused  # it holds the channel's connection
            await until(lambda: not router.dispatcher.clients)
        finally:
            listener.close()
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

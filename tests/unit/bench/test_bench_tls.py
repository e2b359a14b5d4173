"""The load generator over TLS and mutual TLS, against a router's own listener."""

import ssl
from pathlib import Path

import pytest

from tritonfleet.bench.client import Exchange, LoadClient, framed
from tritonfleet.cli.bench import Tls
from tritonfleet.router.__main__ import bound_socket
from tritonfleet.router.tls import TlsClientConnection, TlsFiles, TlsListener


async def asked(port: int, tls: ssl.SSLContext) -> Exchange:
    client = LoadClient("localhost", port, 2, 1.0, tls, ((b"x-who", b"me"),))
    try:
        await client.open()
        return await client.ask("/x.Y/Z", b"hello")
    finally:
        await client.close()


async def test_tls_and_mutual_tls(tmp_path: Path) -> None:
    from router_parts import ScriptedReplica, router_of
    from test_router_tls import certificate

    cert, key = certificate(tmp_path, "server")
    own, own_key = certificate(tmp_path, "client")
    replica = ScriptedReplica()
    async with router_of(replica) as router:
        sock = bound_socket("127.0.0.1:0")
        port = sock.getsockname()[1]
        listener = TlsListener(sock, TlsFiles(cert, key, own), lambda: TlsClientConnection(router.dispatcher))
        await listener.start()
        try:
            answer = await asked(port, Tls(True, cert, own_key, own).context())
            assert (answer.status, answer.message) == (0, b"hello")
            assert replica.requests[0].headers["x-who"] == "me"
            with pytest.raises(ssl.SSLError):  # whom it does not know
                await asked(port, Tls(True, own).context())
            refused = await asked(port, Tls(True, cert).context())  # it has no certificate of its own
            assert refused.status == 14
            assert len(replica.requests) == 1
        finally:
            listener.close()


def test_framing() -> None:
    assert framed(b"abc") == b"\0\0\0\0\3abc"

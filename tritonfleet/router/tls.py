"""TLS on the listener: what a certificate, its key and a CA for clients become, and again when they change.

What flows in: the paths of PEM files. What flows out: a listening server whose new connections use the files
as they are now. Connections that are open go on with what they began with. Clients that get no further than
the handshake are told of in the log: of them nothing else is seen, and they read "Socket closed" at best.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from time import monotonic
from typing import cast

from tritonfleet.core.tls_files import in_words, no_pass_phrase
from tritonfleet.router.client import ClientConnection

log = logging.getLogger(__name__)

LOOK_S = 1.0  # between two looks at the files
CLOSE_NOTIFY_S = 5.0  # for a client to take what is left and to answer ours: gRPC's C core never does
TOLD_AGAIN_S = 10.0  # between two lines about handshakes that failed alike
_FAILURES = {  # OpenSSL's reasons, for people
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate, and router.tls.client_ca wants one",
    "HTTP_REQUEST": "it does not speak TLS",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "UNSUPPORTED_PROTOCOL": "it speaks no TLS 1.2 or newer",
}


@dataclass(frozen=True, slots=True)
class TlsFiles:
    cert: Path
    key: Path
    client_ca: Path | None = None

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """What changes when a file is written or replaced. Raises OSError."""
        files = [path.stat() for path in (self.cert, self.key, self.client_ca) if path is not None]
        return tuple((found.st_mtime_ns, found.st_ino, found.st_size) for found in files)

    def context(self) -> ssl.SSLContext:
        """Raises OSError, with the files' names, when they do not fit."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 9113, 9.2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION  # 9.2.1
        context.set_alpn_protocols(["h2"])
        try:
            context.load_cert_chain(self.cert, self.key, no_pass_phrase)
        except OSError as error:  # ssl.SSLError is one, and names no file
            raise OSError(f"{self.cert} with {self.key}: {in_words(error)}") from error
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except OSError as error:
                raise OSError(f"{self.client_ca}: {in_words(error)}") from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class FailedHandshakes:
    """A line for each way in which handshakes fail, and not for each of them: clients try again at once."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._told: dict[str, tuple[float, int]] = {}  # by words: when last, and how often since

    def note(self, error: ssl.SSLError) -> None:
        why = _failure(error)
        now = self._clock()
        last, count = self._told.get(why, (-inf, 0))
        if now - last < TOLD_AGAIN_S:
            self._told[why] = last, count + 1
            return
        self._told[why] = now, 0
        more = f", and {count} more like it" if count else ""
        log.warning("a client was lost in the TLS handshake%s: %s", more, why)


def _failure(error: ssl.SSLError) -> str:
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if "_ALERT_" in reason:  # TLSV1_ALERT_UNKNOWN_CA, SSLV3_ALERT_CERTIFICATE_EXPIRED
        return f"it refused ours: {reason.partition('_ALERT_')[2].replace('_', ' ').lower()}"
    return _FAILURES.get(reason, str(error))


class _Watched(ssl.SSLObject):
    """asyncio closes a connection whose handshake fails and tells nobody."""

    failed: FailedHandshakes

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self.failed.note(error)
            raise


class TlsClientConnection(ClientConnection):
    """A client that must have agreed on HTTP/2 by ALPN (RFC 9113, 3.2)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            super().connection_made(transport)
            return
        log.info("hanging up on %s: no h2 by ALPN", transport.get_extra_info("peername"))
        cast("asyncio.Transport", transport).abort()


class TlsListener:
    """Listens on ``sock``; on a copy of it, so that the address stays ours while the files change."""

    def __init__(
        self, sock: socket.socket, files: TlsFiles, connection: Callable[[], TlsClientConnection]
    ) -> None:
        self._sock, self._files, self._connection = sock, files, connection
        self._server: asyncio.AbstractServer | None = None
        self._stamp: object = None
        self._complaint = ""  # the last one, while it holds
        self._watched = type("_Watched", (_Watched,), {"failed": FailedHandshakes()})

    async def start(self) -> None:
        """Use the files as they are now. Raises OSError and leaves all as it was if they do not fit."""
        stamp, context = self._files.stamp(), self._files.context()
        context.sslobject_class = self._watched
        loop = asyncio.get_running_loop()
        before = self._server
        self._server = await loop.create_server(
            self._connection,
            sock=self._sock.dup(),
            ssl=context,
            backlog=1024,
            ssl_shutdown_timeout=CLOSE_NOTIFY_S,
        )
        self._stamp = stamp
        if before is not None:
            before.close()

    async def watch(self) -> None:
        """Start anew whenever the files have changed."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        complaint = ""
        try:
            if self._files.stamp() != self._stamp:
                await self.start()
                log.info("new connections use the changed %s", self._files.cert)
        except OSError as error:  # half written, perhaps: the next look sees
            complaint = str(error)
            if complaint != self._complaint:  # not once a second
                log.warning("the changed certificate files do not fit, the old ones stay: %s", complaint)
        self._complaint = complaint

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._sock.close()

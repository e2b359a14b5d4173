"""TLS toward a replica: what a row of the table says becomes what `create_connection` takes."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TypedDict

from tritonfleet.core.replica_tls import ReplicaTls
from tritonfleet.core.tls_files import no_pass_phrase

CLOSE_NOTIFY_S = 0.2  # for the other side to answer ours: gRPC's C core waits for the connection's end


class Secured(TypedDict, total=False):
    """Keyword arguments of `asyncio.loop.create_connection`; none where there is no TLS."""

    ssl: ssl.SSLContext
    server_hostname: str
    ssl_shutdown_timeout: float


def secured(tls: ReplicaTls | None) -> Secured:
    """From the files as they are now: each connection looks anew, so that replaced ones are used.

    Raises OSError (ssl.SSLError is one) that names a file which cannot be read, or says which do not fit.
    """
    if tls is None:
        return {}
    for path in filter(None, (tls.ca, tls.cert, tls.key)):
        Path(path).open("rb").close()  # ssl does not say which file it lacks
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=tls.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 9113, 9.2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION  # 9.2.1
    context.set_alpn_protocols(["h2"])
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key, no_pass_phrase)
    return {"ssl": context, "server_hostname": tls.name, "ssl_shutdown_timeout": CLOSE_NOTIFY_S}

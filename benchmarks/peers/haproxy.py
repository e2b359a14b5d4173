"""HAProxy: HTTP/2 on both sides, one thread, connections to the servers shared by all clients."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from peers.base import first_line

CONFIGURATION = """\
global
    nbthread 1
    maxconn 4096

defaults
    mode http
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    timeout http-request 30s
    http-reuse always
    retries 1
    retry-on conn-failure

frontend grpc
    bind 127.0.0.1:{port} proto h2
    default_backend triton

backend triton
    balance leastconn
{servers}
"""


class HAProxy:
    name = "haproxy"

    def missing(self) -> str:
        return "" if self._binary() else "HAProxy is absent: `apt-get install haproxy`"

    def version(self) -> str:
        return " ".join(first_line([self._binary(), "-v"]).split()[:3]).replace(" version", "")

    def command(self, folder: Path, port: int, upstreams: Sequence[str]) -> list[str]:
        servers = "\n".join(
            f"    server triton{index} {upstream} proto h2" for index, upstream in enumerate(upstreams)
        )
        path = folder / "haproxy.cfg"
        path.write_text(CONFIGURATION.format(port=port, servers=servers))
        return [self._binary(), "-db", "-f", str(path)]

    @staticmethod
    def _binary() -> str:
        return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") or ""

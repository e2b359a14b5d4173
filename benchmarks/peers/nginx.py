"""nginx: grpc_pass with upstream connections kept. It carries one call at a time on each of them."""

import getpass
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from peers.base import first_line

CONFIGURATION = """\
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    client_max_body_size 0;
    keepalive_requests 1000000000;
    http2_max_concurrent_streams 1024;
    upstream triton {{
        least_conn;
{servers}
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} http2;
        location / {{
            grpc_pass grpc://triton;
            grpc_read_timeout 1h;
            grpc_send_timeout 1h;
        }}
    }}
}}
"""


class Nginx:
    name = "nginx"

    def missing(self) -> str:
        return "" if self._binary() else "nginx is absent: `apt-get install nginx-light`"

    def version(self) -> str:
        return first_line([self._binary(), "-v"]).rpartition(": ")[2].replace("/", " ")

    def command(self, folder: Path, port: int, upstreams: Sequence[str]) -> list[str]:
        servers = "\n".join(f"        server {upstream};" for upstream in upstreams)
        # Started by root, its worker would become another user, who may not enter the folder.
        user = f"user {getpass.getuser()};" if os.getuid() == 0 else ""
        path = folder / "nginx.conf"
        path.write_text(CONFIGURATION.format(folder=folder, port=port, servers=servers, user=user))
        return [self._binary(), "-p", str(folder), "-c", str(path)]

    @staticmethod
    def _binary() -> str:
        return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") or ""

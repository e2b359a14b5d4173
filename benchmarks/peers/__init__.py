"""The proxies that are compared, each with one worker and the settings its documentation advises for gRPC."""

from peers.base import Peer
from peers.envoy import Envoy
from peers.haproxy import HAProxy
from peers.nginx import Nginx
from peers.tritonfleet import Tritonfleet

ALL: tuple[Peer, ...] = (Tritonfleet(), Envoy(), HAProxy(), Nginx())

__all__ = ["ALL", "Envoy", "HAProxy", "Nginx", "Peer", "Tritonfleet"]

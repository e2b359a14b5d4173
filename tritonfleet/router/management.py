"""Who may change the servers through the clients' address: by default this host only.

What a change is: loading and unloading models, registering shared memory, setting traces and logs. It is
looked at once for each such call; inference never comes here.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from tritonfleet.router.grpc import CHANGING_RPCS, SERVICE

LOOPBACK = ("127.0.0.0/8", "::1/128")
READABLE = (SERVICE + b"TraceSetting", SERVICE + b"LogSettings")  # without settings they only tell


class Management:
    """The networks from which changes are taken. Raises ValueError for one that is none."""

    def __init__(self, networks: Iterable[str] = LOOPBACK) -> None:
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(map(ip_network, networks))

    def allows(self, path: bytes, body: bytes, peer: str) -> bool:
        """Whether a client at the address ``peer`` may make the call ``path``; ``body`` is its request with
        the 5-byte prefix."""
        if path not in CHANGING_RPCS or (path in READABLE and is_reading(path, body)):
            return True
        try:
            address = ip_address(peer.partition("%")[0])  # a link-local address may name its interface
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)  # an IPv4 client of a socket that listens on [::]
        return any((mapped or address) in network for network in self._networks)


def is_reading(path: bytes, body: bytes) -> bool:
    """Whether the request provably holds no setting: it is empty, or (traces) one field, the model's name.
    Of a compressed one that is not known."""
    if len(body) == 5:
        return True
    name = 0x12  # TraceSettingRequest: field 2, a string
    if path != SERVICE + b"TraceSetting" or body[0] != 0 or len(body) < 7 or body[5] != name:
        return False
    return body[6] < 0x80 and len(body) == 7 + body[6]

"""Who may change the servers through the clients' address: by default this host only.

What a change is: loading and unloading models, registering shared memory, setting traces and logs. It is
looked at once for each such call; inference never comes here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from hmac import compare_digest
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from tritonfleet.core.managers import CERTIFICATE, TOKEN
from tritonfleet.router.grpc import CHANGING_RPCS, SERVICE

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.0/8", "::1/128")
READABLE = (SERVICE + b"TraceSetting", SERVICE + b"LogSettings")  # without settings they only tell
BEARER = b"Bearer "  # RFC 6750, 2.1


class Management:
    """The networks, certificates' names (``cert:NAME``) and secrets (``token:FILE``) by which changes are
    taken: any of them is enough. Raises ValueError for what is none."""

    def __init__(self, managers: Iterable[str] = LOOPBACK) -> None:
        managers = tuple(managers)
        self.names = frozenset(
            one.removeprefix(CERTIFICATE) for one in managers if one.startswith(CERTIFICATE)
        )
        self._secrets = [Path(one.removeprefix(TOKEN)) for one in managers if one.startswith(TOKEN)]
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(
            ip_network(one) for one in managers if not one.startswith((CERTIFICATE, TOKEN))
        )

    def allows(
        self,
        path: bytes,
        body: bytes,
        peer: str,
        names: frozenset[str] = frozenset(),
        authorization: bytes | None = None,
    ) -> bool:
        """Whether a client at the address ``peer`` may make the call ``path``; ``body`` is its request with
        the 5-byte prefix, ``names`` are those of its certificate, ``authorization`` is that metadata."""
        if path not in CHANGING_RPCS or (path in READABLE and is_reading(path, body)):
            return True
        return self._is_near(peer) or bool(self.names & names) or self.is_secret(authorization)

    def _is_near(self, peer: str) -> bool:
        try:
            address = ip_address(peer.partition("%")[0])  # a link-local address may name its interface
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)  # an IPv4 client of a socket that listens on [::]
        return any((mapped or address) in network for network in self._networks)

    def is_secret(self, authorization: bytes | None) -> bool:
        """Whether it carries what stands in one of the files now."""
        if authorization is None or not authorization.startswith(BEARER):
            return False
        return any(
            bool(secret) and compare_digest(authorization[len(BEARER) :], secret)
            for secret in map(_read, self._secrets)
        )


def _read(path: Path) -> bytes:
    """A file's one line; nothing where it cannot be read."""
    try:
        return path.read_bytes().strip()
    except OSError as error:
        log.warning("the secret of router.management cannot be read: %s", error)
        return b""


def names_of(certificate: dict[str, Any]) -> frozenset[str]:
    """The names a client's certificate has (`ssl.SSLObject.getpeercert`): its subject's common name, and
    DNS names, addresses, mail addresses and URIs of its subjectAltName."""
    common = (value for part in certificate.get("subject", ()) for key, value in part if key == "commonName")
    return frozenset((*common, *(value for _kind, value in certificate.get("subjectAltName", ()))))


def is_reading(path: bytes, body: bytes) -> bool:
    """Whether the request provably holds no setting: it is empty, or (traces) one field, the model's name.
    Of a compressed one that is not known."""
    if len(body) == 5:
        return True
    name = 0x12  # TraceSettingRequest: field 2, a string
    if path != SERVICE + b"TraceSetting" or len(body) < 7 or body[0] != 0 or body[5] != name:
        return False
    return body[6] < 0x80 and len(body) == 7 + body[6]

"""Asks who may change the servers, where no controller takes such a call (`tritonfleet compose`).

Whoever may is passed on to a replica like any other call; whoever may not is refused before one hears of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tritonfleet.http2.fields import Fields
from tritonfleet.router.call import Call
from tritonfleet.router.grpc import CHANGING_RPCS, Status
from tritonfleet.router.management import READABLE, Management, is_reading, names_of

if TYPE_CHECKING:
    from tritonfleet.router.dispatch import Dispatcher

MOST_TOLD = 4  # names of a client's certificate
MOST = 16 << 10  # bytes of a request that may turn out to ask only


class Guard:
    """See `Dispatcher.guard`."""

    def __init__(self, management: Management) -> None:
        self._management = management

    def keeps(self, dispatcher: Dispatcher, call: Call, *, end_stream: bool) -> bool:
        """Whether ``call`` stays here: it is refused, or more of it has to come before that is known."""
        path = call.info.path
        if path not in CHANGING_RPCS:
            return False
        refusal = refusal_of(self._management, call, b"")
        if refusal is None:
            self._take_secret(call)
            return False
        if path in READABLE:
            if not end_stream and call.held_bytes <= MOST:
                return True
            if end_stream and is_reading(path, b"".join(call.held or ())):
                return False
        dispatcher.refuse(call, *refusal)
        return True

    def _take_secret(self, call: Call) -> None:
        """It is not the replicas' to know."""
        if self._management.is_secret(call.fields.get(b"authorization")):
            call.fields = Fields(tuple(item for item in call.fields.items if item[0] != b"authorization"))


def refusal_of(management: Management, call: Call, body: bytes) -> tuple[Status, str] | None:
    """What the client of ``call`` is told if it may not make it. ``body``: its request as it stood on the
    wire."""
    peer = _peer_of(call)
    names = _names_of(call) if management.names else frozenset()
    if management.allows(call.info.path, body, peer, names, call.fields.get(b"authorization")):
        return None
    known_as = ", ".join(sorted(_names_of(call))[:MOST_TOLD])
    who = f"{peer} with a certificate of {known_as}" if known_as else peer
    if management.has_secrets and call.fields.get(b"authorization") is not None:
        who += f" {'and' if known_as else 'with'} that token"
    return Status.PERMISSION_DENIED, (
        f"{rpc_name(call.info.path)} changes the servers, which {who} may not: router.management in the "
        "fleet file says who may"
    )


def rpc_name(path: bytes) -> str:
    return path.rpartition(b"/")[2].decode("ascii", "replace")


def _peer_of(call: Call) -> str:
    """The client's address; "" where there is none any more."""
    transport = getattr(call.connection, "transport", None)  # of a ClientConnection, while it is connected
    peer = transport.get_extra_info("peername") if transport is not None else None
    return str(peer[0]) if isinstance(peer, tuple) else ""


def _names_of(call: Call) -> frozenset[str]:
    """The names of the client's certificate; none without mutual TLS."""
    transport = getattr(call.connection, "transport", None)
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    return names_of(certificate) if certificate else frozenset()

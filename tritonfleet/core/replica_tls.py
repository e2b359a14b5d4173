"""How a replica is spoken to where that is by TLS (``pools.*.triton.tls``): what crosses process boundaries.

All are paths of PEM files. They are read when a connection is made, so changed files are used from then on.
"""

from dataclasses import dataclass

NO_ANSWER = "no answer by triton.tls"  # with this begins why one cannot be spoken to by these files


@dataclass(frozen=True, slots=True)
class ReplicaTls:
    """For who connects: the routers and the controller, on whose host the files are."""

    ca: str  # whose signature the replica's certificate must have
    name: str  # that it must be made out to, whatever the replica's address is
    cert: str = ""  # what we show ourselves, with ``key``; "": nothing
    key: str = ""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """For the server itself: files on the host it runs on, and how it is then spoken to."""

    cert: str
    key: str
    ca: str
    client: ReplicaTls

    @property
    def mutual(self) -> bool:
        """Whether it serves nobody but those who show a certificate that ``ca`` signed."""
        return bool(self.client.cert)

    def at(self, cert: str, key: str, ca: str) -> "ServerTls":
        """The same with the server's files where a container has them."""
        return ServerTls(cert, key, ca, self.client)

"""Whether a router's address is free, or shared by workers of its own fleet only.

SO_REUSEPORT lets workers share a port, and lets those of two fleets do so, too: then the kernel gives each a
half of the clients. A controller looks before it starts its workers; one that somebody else starts
(`router.external`) looks here. Each worker of a fleet holds a shared lock on a file in the fleet's state
folder for as long as it lives: if somebody has the address, and nobody else has the lock, it is a stranger.
"""

import fcntl
import logging
import os
import socket
from errno import EADDRINUSE
from pathlib import Path

log = logging.getLogger(__name__)


class Siblings:
    """The lock, held until the process ends. Without the file, which a controller makes where the folder is
    read-only here, every other is taken for one of ours."""

    def __init__(self, path: Path) -> None:
        self._file: int | None = None
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
            try:
                self._file = os.open(path, flags | os.O_CLOEXEC, 0o600)
            except OSError as error:
                log.debug("%s: %s", path, error)
                continue
            fcntl.flock(self._file, fcntl.LOCK_SH)
            return

    def are_there(self) -> bool:
        """Whether another worker of the fleet lives, or nobody knows."""
        if self._file is None:
            return True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            fcntl.flock(self._file, fcntl.LOCK_SH)  # a failed attempt may have given it up
        return False


def is_taken(family: int, host: str, port: int) -> bool:
    """Whether anybody listens there, sharing it or not. Raises OSError for an address that is not ours to
    have."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))  # it does not listen: whoever starts just now is not in its way
        except OSError as error:
            if error.errno == EADDRINUSE:
                return True
            raise
    return False

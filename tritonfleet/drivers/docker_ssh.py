"""A Docker daemon by ssh, as the `docker` command reaches it: `ssh HOST docker system dial-stdio`.

The SDK has this, but only with paramiko, an ssh client of its own, beside it. Here each connection is an
`ssh` process between the SDK and the other host, so keys, agents, jump hosts and known hosts are as
`~/.ssh/config` says.
"""

import shutil
import socket
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

# Nobody is there to be asked for a password; a host that does not answer must not hold up a call for minutes.
OPTIONS = ("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20")


def ssh_command(url: str) -> list[str]:
    """What connects its stdin and stdout to the daemon of ``ssh://[user@]host[:port]``."""
    parts = urlsplit(url)
    user = ("-l", parts.username) if parts.username else ()
    port = ("-p", str(parts.port)) if parts.port else ()
    return ["ssh", *OPTIONS, *user, *port, "--", parts.hostname or "", "docker system dial-stdio"]


class SshRelay:
    """A local socket, for us alone, that stands for the daemon. An ssh process ends with its connection, and
    so with us, however we end. Raises OSError."""

    def __init__(self, url: str) -> None:
        self._command = ssh_command(url)
        self._folder = Path(tempfile.mkdtemp(prefix="tritonfleet-ssh-"))  # 0700
        self.host = f"unix://{self._folder}/docker.sock"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self._folder / "docker.sock"))
        self._socket.listen(64)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._thread = threading.Thread(target=self._accept, name="docker ssh", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            with connection, suppress(OSError):  # no ssh here: the connection is closed, which says as much
                end = connection.fileno()
                process = subprocess.Popen(self._command, stdin=end, stdout=end, start_new_session=True)
                self._processes = [one for one in self._processes if one.poll() is None] + [process]

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self._socket.close()
        self._thread.join()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

"""A Docker daemon of a test's own, which it may restart, and an image that is two programs of this host."""

import asyncio
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tritonfleet.drivers.docker import DockerDriver
from tritonfleet.drivers.docker_engine import DockerEngine

IMAGE = "tritonserver-that-sleeps"
# It stands for a server: says something, runs, and exits when it is told to. It says it once it can be told:
# a container's first process without a handler is not ended by SIGTERM.
SERVER = "#!/bin/sh\ntrap 'exit 0' TERM\necho serving\nwhile :; do sleep 0.1; done\n"
WAIT_S = 60.0
DISK_BYTES = 64 << 20


class OwnDaemon:
    """In a network namespace of its own: a daemon without a bridge removes the one that is there, and that
    would be another daemon's. ``network``: with a bridge there, so that ports are published; only what runs
    `inside` that namespace reaches them. Without, its disk is a small one."""

    def __init__(self, *, network: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tfd-"))  # short: sockets below have long names
        self.host = f"unix://{self.folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._namespace = self.folder.name if network else ""
        data = self.folder / "data"
        data.mkdir()
        if network:
            subprocess.run(["ip", "netns", "add", self._namespace], check=True)
            subprocess.run([*self.inside, "ip", "link", "set", "lo", "up"], check=True)
        else:
            size = f"size={DISK_BYTES}"  # a disk of its own, which a test can fill
            subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", data], check=True)

    @property
    def inside(self) -> list[str]:
        """What a command begins with that is to run in the daemon's network, which outlives the daemon."""
        return ["nsenter", f"--net=/run/netns/{self._namespace}"]

    def start(self, *flags: str) -> None:
        apart = ["unshare", "--net", "dockerd", "--bridge", "none", "--iptables=false", "--ip6tables=false"]
        with (self.folder / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *([*self.inside, "dockerd"] if self._namespace else apart),
                    "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec",
                    "--pidfile", f"{self.folder}/pid", "--host", self.host, *flags,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + WAIT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.folder / "dockerd.log").read_text()[-3000:])
            time.sleep(0.1)

    def _answers(self) -> bool:
        return subprocess.run(
            ["docker", "-H", self.host, "version"], capture_output=True, check=False
        ).returncode == 0  # fmt: skip

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(WAIT_S)
            self._process = None

    def restart(self, *flags: str) -> None:
        self.stop()
        self.start(*flags)

    def copy_image(self, name: str) -> None:
        """From the daemon of the other tests."""
        with subprocess.Popen(["docker", "save", name], stdout=subprocess.PIPE) as saving:
            subprocess.run(
                ["docker", "-H", self.host, "load"], stdin=saving.stdout, capture_output=True, check=True
            )

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Nothing can be written to the daemon's disk meanwhile."""
        ballast = self.folder / "data" / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file, suppress(OSError):  # ENOSPC, at the end
                while True:
                    file.write(bytes(1 << 16))
            yield
        finally:
            ballast.unlink()

    def make_image(self, name: str = IMAGE, *, server: str = SERVER) -> None:
        """An image of this host's shell, sleep, their libraries, and ``server`` as its tritonserver."""
        engine = DockerEngine(self.host, os.environ)
        try:
            engine.now(
                "import", lambda client: client.import_image_from_data(archive(server), repository=name)
            )
        finally:
            engine.close()

    def end(self) -> None:
        engine = DockerEngine(self.host, os.environ)
        try:
            if self._process is None or self._process.poll() is not None:
                self.start()
            engine.now("clear", lambda client: [
                client.remove_container(row["Id"], force=True) for row in client.containers(all=True)
            ])  # fmt: skip
        finally:
            engine.close()
            self.stop()
            mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
            for mount in reversed([mount for mount in mounts if mount.startswith(f"{self.folder}/")]):
                subprocess.run(["umount", "-l", mount], check=False)
            if self._namespace:
                subprocess.run(["ip", "netns", "del", self._namespace], check=True)
            shutil.rmtree(self.folder)


@contextmanager
def running(*, network: bool = False) -> Iterator[OwnDaemon]:
    """One that runs, for a test that may be run here; ended with all it has afterwards."""
    require()
    daemon = OwnDaemon(network=network)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.end()


async def serving(driver: DockerDriver, replica: str, *, starts: int = 1) -> None:
    """Returns once ``replica`` has been started so many times and its last one can be told to exit."""
    said = 0
    async with asyncio.timeout(WAIT_S), aclosing(driver.logs(replica, tail=None, follow=True)) as lines:
        async for line in lines:
            said += line == "serving"
            if said == starts:
                return


def put_image(client: Any) -> None:
    """`IMAGE` on another daemon: a few MB, kept there for the next test."""
    if not client.images(IMAGE):
        client.import_image_from_data(archive(SERVER), repository=IMAGE)


def require() -> None:
    missing = ""
    if os.geteuid() != 0:
        missing = "starting a Docker daemon needs root"
    elif lacking := [name for name in ("dockerd", "docker", "ip", "nsenter") if shutil.which(name) is None]:
        missing = f"not on PATH: {', '.join(lacking)}"
    if missing and os.environ.get("TRITONFLEET_REQUIRE_DOCKER") == "1":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


def archive(server: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for program in ("/bin/sh", "/bin/sleep"):
            path = Path(program).resolve()
            _add(tar, program, path.read_bytes())
            linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
            for library in re.findall(r"(/\S+) \(0x", linked):
                _add(tar, library, Path(library).resolve().read_bytes())
        if server:
            _add(tar, "/usr/bin/tritonserver", server.encode())
        _add(tar, "/etc/passwd", b"root:x:0:0::/:/bin/sh\n")
    return data.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    if name.lstrip("/") in tar.getnames():  # two programs may need one library
        return
    entry = tarfile.TarInfo(name.lstrip("/"))
    entry.size, entry.mode = len(content), 0o755
    tar.addfile(entry, io.BytesIO(content))

"""A daemon that is not reached by a local socket: by ssh, and by TCP with TLS, both to this host."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import container_life
import docker_daemon
import pytest
from certificates import certificate
from running_fleet import free_port

from tritonfleet.drivers.base import DriverError
from tritonfleet.drivers.docker_engine import DEFAULT_HOST, DockerEngine

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker_ways")]

# In place of a network and sshd: what it is given to run there, it runs here, by a shell as sshd does.
SSH = '#!/bin/sh\necho "$@" >>"$0.log"\nfor last; do :; done\nexec sh -c "$last"\n'
TLS_PROXY = """\
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen daemon
    bind 127.0.0.1:{port} ssl crt {folder}/server-both.pem ca-file {folder}/cert.pem verify required
    server docker "unix@{socket}"
"""


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(SSH)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


async def test_a_daemon_by_ssh(ssh: Path, tmp_path: Path) -> None:
    docker_daemon.require()
    await container_life.live(tmp_path, "ssh://me@localhost:2222", os.environ)
    (asked,) = set(Path(f"{ssh}.log").read_text().splitlines())
    assert asked.endswith("-l me -p 2222 -- localhost docker system dial-stdio")
    assert "BatchMode=yes" in asked


def test_an_ssh_that_fails_is_told_and_leaves_nothing(ssh: Path) -> None:
    ssh.write_text("#!/bin/sh\nexit 255\n")
    engine = DockerEngine("ssh://me@box", os.environ)
    try:
        with pytest.raises(DriverError, match="cannot look: the Docker daemon at ssh://me@box") as caught:
            engine.now("cannot look", lambda client: client.version())
        assert "docker -H ssh://me@box version" in caught.value.remedy
        folder = Path(engine._relay.host.removeprefix("unix://")).parent if engine._relay else None
    finally:
        engine.close()
    assert folder is not None
    assert not folder.exists()


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address, and the folder of the client's certificates (DOCKER_CERT_PATH)."""
    docker_daemon.require()
    if shutil.which("haproxy") is None:
        pytest.skip("there is no haproxy (Debian: apt-get install haproxy)")
    folder, port = tmp_path / "certificates", free_port()
    folder.mkdir()
    certificate(folder, "cert")  # the client's; who signs it is itself
    (folder / "cert.key").rename(folder / "key.pem")
    server, key = certificate(folder, "ca")
    (folder / "server-both.pem").write_text(server.read_text() + key.read_text())
    daemon = (os.environ.get("DOCKER_HOST") or DEFAULT_HOST).removeprefix("unix://")
    (folder / "proxy.cfg").write_text(TLS_PROXY.format(port=port, folder=folder, socket=daemon))
    with subprocess.Popen(["haproxy", "-f", folder / "proxy.cfg"], stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while not listens(port):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield f"tcp://127.0.0.1:{port}", folder
        finally:
            process.kill()


async def test_a_daemon_by_tcp_with_certificates_on_both_sides(
    tls: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, folder = tls
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder / "cert.pem"))  # what others trust is no matter here
    await container_life.live(tmp_path, host, {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)})


def test_a_daemon_that_another_authority_vouches_for_is_not_spoken_to(tls: tuple[str, Path]) -> None:
    host, folder = tls
    certificate(folder, "stranger")
    (folder / "stranger.pem").rename(folder / "ca.pem")
    engine = DockerEngine(host, {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)})
    try:
        with pytest.raises(DriverError, match="certificate verify failed"):
            engine.now("cannot look", lambda client: client.version())
    finally:
        engine.close()

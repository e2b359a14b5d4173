"""Images that are not there: pulled from a real registry, Debian's docker-registry, on this loopback."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker_daemon
import own_daemon
import pytest
from docker.errors import ImageNotFound
from docker_fleets import DockerFleet, free_name
from running_fleet import free_port

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker_ways")]

SETTINGS = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Its ``HOST:PORT``."""
    if shutil.which("docker-registry") is None:
        pytest.skip("there is no docker-registry (Debian: apt-get install docker-registry)")
    port = free_port()
    (tmp_path / "registry.yaml").write_text(SETTINGS.format(folder=tmp_path / "registry", port=port))
    with subprocess.Popen(
        ["docker-registry", "serve", tmp_path / "registry.yaml"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.fixture
def image(registry: str) -> Iterator[str]:
    """An image that only the registry has."""
    docker_daemon.require()
    name = f"{registry}/{free_name()}"

    def push(client: Any) -> None:
        client.import_image_from_data(own_daemon.archive(own_daemon.SERVER), repository=name, tag="1")
        said = list(client.push(name, tag="1", stream=True, decode=True))
        assert not [step for step in said if "error" in step], said
        client.remove_image(f"{name}:1")

    docker_daemon.ask(push)
    yield f"{name}:1"

    def clear(client: Any) -> None:
        try:
            client.remove_image(f"{name}:1", force=True)
        except ImageNotFound:
            return

    docker_daemon.ask(clear)


def test_an_image_that_is_not_there_is_pulled_once_and_told(
    image: str, docker_fleet: Callable[..., DockerFleet]
) -> None:
    fleet = docker_fleet(triton={"image": image})
    fleet.cli("up", "-d")
    fleet.until(lambda f: sorted(f.containers()) == ["main-0.1", "main-1.1"], "both were launched")
    fleet.until(lambda f: f.events("image.pulled"), "it is told at the tick after")
    (began,), (ended,) = fleet.events("image.pulling"), fleet.events("image.pulled")
    assert (began["subject"], began["reason"]) == (image, "it is not on the Docker host")
    assert "1 of 1 layers" in ended["reason"]
    said = fleet.cli("logs", "main-0", "main-1", check=None).stdout + fleet.last_words()
    assert f"pulled image {image} in" in said
    assert not fleet.snapshot()["pulls"]

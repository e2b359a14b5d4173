"""Fleets of containers for a test, ended with it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import docker_daemon
import pytest
from docker_fleets import DockerFleet, free_name, stop

from tritonfleet.core.model import Device
from tritonfleet.drivers.base import ContainerSettings, Instance, LaunchSpec
from tritonfleet.drivers.docker import DockerDriver

Launched = tuple[DockerDriver, Instance]


@pytest.fixture
def docker_fleet(tmp_path: Path) -> Iterator[Callable[..., DockerFleet]]:
    """Makes fleets that are not up; whatever the test starts is ended."""
    made: list[DockerFleet] = []

    def make(**pool: Any) -> DockerFleet:
        docker_daemon.require()
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(DockerFleet(folder, **pool))
        return made[-1]

    try:
        yield make
    finally:
        for fleet in made:
            try:
                stop(fleet)
            finally:
                docker_daemon.remove_all(fleet.name)


@pytest.fixture
async def on_devices(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Launched]]]:
    """Starts one container, ``main-0.1``, on the given devices."""
    docker_daemon.require()
    fleet = free_name()
    driver = DockerDriver(fleet, tmp_path / fleet, ())
    (tmp_path / "models").mkdir()

    async def launch(*devices: Device, image: str = docker_daemon.IMAGE) -> Launched:
        spec = LaunchSpec(
            fleet, "main", "main-0", 1, "hash", devices, str(tmp_path / "models"),
            container=ContainerSettings(image, ulimits=()),
        )  # fmt: skip
        return driver, await driver.start(spec)

    try:
        yield launch
    finally:
        await driver.close()
        docker_daemon.remove_all(fleet)

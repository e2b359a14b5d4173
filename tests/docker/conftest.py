"""Fleets of containers for a test, ended with it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker_daemon
import pytest
from docker_fleets import DockerFleet, stop


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

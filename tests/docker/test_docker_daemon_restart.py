"""A whole fleet through a restart of its Docker daemon: controller, router, two replicas, their clients."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker_daemon
import own_daemon
import pytest
from docker_fleets import DockerFleet, stop
from own_daemon import OwnDaemon

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("own_daemon")]


@pytest.fixture(scope="module")
def daemon() -> Iterator[OwnDaemon]:
    docker_daemon.require()
    with own_daemon.running(network=True) as daemon:
        daemon.copy_image(docker_daemon.IMAGE)
        yield daemon


@pytest.fixture
def fleet(daemon: OwnDaemon, tmp_path: Path) -> Iterator[DockerFleet]:
    """Two replicas; it lives in the daemon's network, as do its clients."""
    fleet = DockerFleet(
        tmp_path,
        # Longer than a Triton that was told to exit says that it is not ready.
        health={"interval": "200ms", "failures": 20},
        restart={"backoff": "100ms", "max_backoff": "1s"},
    )
    fleet.prefix, fleet.environ["DOCKER_HOST"] = daemon.inside, daemon.host
    try:
        yield fleet
    finally:
        stop(fleet)


@contextmanager
def clients_of(fleet: DockerFleet) -> Iterator[dict[str, Any]]:
    """Clients that call all the while; what became of it is filled in at the end."""
    script = Path(__file__).with_name("echo_client.py")
    with subprocess.Popen(
        [*fleet.prefix, sys.executable, str(script), fleet.address],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "calling\n"
        found: dict[str, Any] = {}
        try:
            yield found
        finally:
            found |= json.loads(process.communicate(timeout=120)[0])


UNKNOWN_S = 6.0  # thirty probes, of which twenty in a row would otherwise replace a replica


def test_containers_that_end_with_the_daemon_are_replaced_and_the_reason_is_told(
    daemon: OwnDaemon, fleet: DockerFleet
) -> None:
    daemon.restart()
    fleet.cli("up", "-d", "--wait")
    daemon.restart()
    fleet.until(lambda f: len(f.events("replica.exited")) == 2, "both have ended")
    fleet.ready(2)
    assert all(
        "it ended with the Docker daemon" in event["reason"] for event in fleet.events("replica.exited")
    )
    assert fleet.events("replica.unhealthy") == []
    assert {replica["generation"] for replica in fleet.replicas().values()} == {2}
    with clients_of(fleet) as clients:
        time.sleep(1)
    assert clients["failures"] == []
    assert clients["answered"].keys() == {"main-0.2", "main-1.2"}


def test_live_restore_without_the_userland_proxy_is_noticed_by_nobody(
    daemon: OwnDaemon, fleet: DockerFleet
) -> None:
    flags = ("--live-restore", "--userland-proxy=false")
    daemon.restart(*flags)
    fleet.cli("up", "-d", "--wait")
    before = fleet.handles()
    with clients_of(fleet) as clients:
        daemon.stop()
        time.sleep(UNKNOWN_S)
        daemon.start(*flags)
        time.sleep(1)
    assert clients["failures"] == []
    assert clients["answered"].keys() == {"main-0.1", "main-1.1"}
    assert fleet.handles() == before
    assert {event["type"] for event in fleet.events("replica")} == {"replica.starting", "replica.ready"}


def test_live_restore_with_the_userland_proxy_replaces_nothing(daemon: OwnDaemon, fleet: DockerFleet) -> None:
    """That proxy publishes the ports and ends with the daemon: for so long nobody can call."""
    daemon.restart("--live-restore")
    fleet.cli("up", "-d", "--wait")
    before = fleet.handles()
    daemon.stop()
    fleet.until(lambda f: len(f.events("replica.unknown")) == 2, "neither answers")
    time.sleep(UNKNOWN_S)
    assert {replica["state"] for replica in fleet.replicas().values()} == {"ready"}
    daemon.start("--live-restore")
    fleet.until(lambda f: len(f.events("replica.known")) == 2, "both answer again")
    with clients_of(fleet) as clients:
        time.sleep(1)
    assert clients["failures"] == []
    assert clients["answered"].keys() == {"main-0.1", "main-1.1"}
    assert fleet.handles() == before

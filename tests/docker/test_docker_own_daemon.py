"""What only a daemon of one's own shows: restarts with and without live-restore, and what it refuses."""

import asyncio
import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import own_daemon
import pytest
from docker_fleets import free_name
from own_daemon import OwnDaemon

from tritonfleet.core.model import Device, DeviceKind
from tritonfleet.drivers.base import ContainerSettings, DriverError, LaunchSpec
from tritonfleet.drivers.devices import cpu_slots
from tritonfleet.drivers.docker import DockerDriver

pytestmark = [
    pytest.mark.docker,
    pytest.mark.xdist_group("own_daemon"),
    # The SDK leaves a socket to the collector when the daemon goes in the middle of a call.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

BOUND_S = 60.0
Make = Callable[[], DockerDriver]


@pytest.fixture(scope="module")
def daemon() -> Iterator[OwnDaemon]:
    with own_daemon.running() as daemon:
        daemon.make_image()
        yield daemon


@pytest.fixture
async def make(daemon: OwnDaemon, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes drivers of one fleet, as one controller after the other does."""
    fleet, made = free_name(), list[DockerDriver]()
    (tmp_path / "models").mkdir()

    def make() -> DockerDriver:
        made.append(DockerDriver(fleet, tmp_path / fleet, cpu_slots(4), host=daemon.host))
        return made[-1]

    try:
        yield make
    finally:
        for driver in made:
            await driver.close()
        gc.collect()  # what is left to it is found here, where it is expected


@pytest.fixture
def spec(make: Make, tmp_path: Path) -> LaunchSpec:
    return LaunchSpec(
        make()._fleet, "main", "main-0", 1, "hash", cpu_slots(1), str(tmp_path / "models"),
        exit_timeout_s=5, container=ContainerSettings(own_daemon.IMAGE),
    )  # fmt: skip


async def test_live_restore_keeps_what_runs_and_it_is_watched_on(
    daemon: OwnDaemon, make: Make, spec: LaunchSpec
) -> None:
    await asyncio.to_thread(daemon.stop)
    await asyncio.to_thread(daemon.start, "--live-restore")
    driver = make()
    started = await driver.start(spec)
    waiting = asyncio.create_task(driver.wait(started))
    await own_daemon.serving(driver, "main-0")
    await asyncio.to_thread(daemon.stop)
    assert not waiting.done()  # a daemon that is away says nothing about its containers
    stopping = asyncio.create_task(driver.stop(started, 30))
    await asyncio.sleep(0.1)
    assert not stopping.done()
    await asyncio.to_thread(daemon.start, "--live-restore")
    async with asyncio.timeout(BOUND_S):
        assert (await stopping).code == 0
        assert await waiting == await stopping
        await driver.remove(started)
    assert await driver.list() == []


async def test_a_daemon_s_restart_ends_its_containers_and_every_waiter_learns_of_it(
    daemon: OwnDaemon, make: Make, spec: LaunchSpec
) -> None:
    await asyncio.to_thread(daemon.stop)
    await asyncio.to_thread(daemon.start)
    driver = make()
    started = await driver.start(spec)
    waiting = asyncio.create_task(driver.wait(started))
    await own_daemon.serving(driver, "main-0")
    await asyncio.to_thread(daemon.stop)
    await asyncio.to_thread(daemon.start)
    async with asyncio.timeout(BOUND_S):
        status = await waiting
    assert [found.exit for found in await driver.list()] == [status]
    again = await driver.start(replace(spec, generation=2))
    await own_daemon.serving(driver, "main-0", starts=2)
    await driver.stop(again, 0)
    for instance in await driver.list():
        await driver.remove(instance)


async def refused(driver: DockerDriver, spec: LaunchSpec) -> DriverError:
    with pytest.raises(DriverError) as caught:
        await driver.start(spec)
    assert await driver.list() == []  # nothing of the launch is left
    return caught.value


async def test_a_daemon_without_nvidia_s_runtime_says_which_package_is_missing(
    make: Make, spec: LaunchSpec
) -> None:
    error = await refused(make(), replace(spec, devices=(Device("GPU-1", DeviceKind.GPU),)))
    assert "cannot start main-0.1: the Docker daemon cannot give GPUs to containers" in str(error)
    assert "nvidia-container-toolkit" in error.remedy
    assert not error.transient


async def test_what_the_host_or_the_image_lacks_is_said(
    daemon: OwnDaemon, make: Make, spec: LaunchSpec
) -> None:
    driver = make()
    error = await refused(driver, replace(spec, model_repository="/no/such/folder"))
    assert "the model repository is not on the Docker host" in str(error)
    error = await refused(driver, replace(spec, container=ContainerSettings(own_daemon.IMAGE, user="nobody")))
    assert (error.remedy, error.transient) == ("correct triton.user", False)
    await asyncio.to_thread(daemon.make_image, "without-server", server="")
    started = await driver.start(replace(spec, container=ContainerSettings("without-server")))
    status = await driver.wait(started)
    assert (status.code, status.detail.partition(";")[0]) == (
        127, "the image holds no tritonserver that can be run",
    )  # fmt: skip
    await driver.remove(started)


async def test_a_full_disk_is_said_and_harms_nothing_that_runs(
    daemon: OwnDaemon, make: Make, spec: LaunchSpec
) -> None:
    driver = make()
    running = await driver.start(spec)
    second = replace(spec, replica="main-1", devices=cpu_slots(2)[1:])
    with daemon.full_disk():
        with pytest.raises(DriverError, match="no space left on the Docker host") as caught:
            await driver.start(second)
        assert "docker system prune" in caught.value.remedy
        assert caught.value.transient  # somebody may make room at any time: it is tried again
        assert await driver.list() == [running]
    started = await driver.start(second)
    assert {found.replica for found in await driver.list() if found.running} == {"main-0", "main-1"}
    for instance in (running, started):
        await driver.stop(instance, 0)
        await driver.remove(instance)


async def test_a_container_with_the_label_but_without_sense_is_told(
    daemon: OwnDaemon, make: Make, spec: LaunchSpec
) -> None:
    driver = make()
    told = {"tritonfleet.fleet": spec.fleet, "tritonfleet.state-dir": str(driver._state_dir)}
    body = {"Image": own_daemon.IMAGE, "Cmd": ["tritonserver"], "Labels": told}
    engine = driver._engine
    identity = (await engine.call("make", lambda client: client.create_container_from_config(body)))["Id"]
    try:
        with pytest.raises(
            DriverError, match=f"container {identity[:12]} carries the fleet's label"
        ) as caught:
            await driver.list()
        assert f"docker rm -f {identity[:12]}" in caught.value.remedy
    finally:
        await engine.call("clear", lambda client: client.remove_container(identity, force=True))


def test_a_socket_that_one_may_not_use_is_said(daemon: OwnDaemon) -> None:
    (daemon.folder).chmod(0o755)
    asked = (
        "import os\n"
        "from tritonfleet.drivers.docker_engine import DockerEngine\n"
        f"engine = DockerEngine({daemon.host!r}, {{}})\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: engine.now('cannot list', lambda client: client.containers())\n"
        "except Exception as error: print(error, '|', error.remedy, '|', error.transient)\n"
    )
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"cannot list: permission denied on {daemon.host}")
    assert "usermod -aG docker" in said
    assert said.strip().endswith("False")

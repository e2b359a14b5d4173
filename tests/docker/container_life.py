"""A container's life by a driver: all that a controller asks of a daemon, in a second or two."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import docker_daemon
import own_daemon
from docker_fleets import free_name

from tritonfleet.drivers.base import ContainerSettings, LaunchSpec
from tritonfleet.drivers.devices import cpu_slots
from tritonfleet.drivers.docker import DockerDriver

BOUND_S = 60.0


async def live(folder: Path, host: str, environ: Mapping[str, str]) -> None:
    """Start, hear of its end, read its log, start again, stop, remove, by way of ``host``. The daemon of the
    tests is behind it."""
    fleet = free_name()
    (folder / "models").mkdir()
    settings = ContainerSettings(f"{own_daemon.IMAGE}:latest")
    first, second = (
        LaunchSpec(
            fleet, "main", "main-0", number, "hash", cpu_slots(1), str(folder / "models"),
            exit_timeout_s=5, container=settings,
        )
        for number in (1, 2)
    )  # fmt: skip
    await asyncio.to_thread(docker_daemon.ask, own_daemon.put_image)
    driver = DockerDriver(fleet, folder / fleet, cpu_slots(1), host=host, environ=environ)
    try:
        async with asyncio.timeout(BOUND_S):
            started = await driver.start(first)
            waiting = asyncio.create_task(driver.wait(started))
            await own_daemon.serving(driver, "main-0")
            await asyncio.to_thread(docker_daemon.ask, lambda client: client.kill(f"{fleet}-main-0.1"))
            assert (await waiting).signal == 9  # which its events tell
            await driver.remove(started)
            again = await driver.start(second)
            await own_daemon.serving(driver, "main-0", starts=2)
            assert (await driver.stop(again, 20)).code == 0
            await driver.remove(again)
            assert await driver.list() == []
    finally:
        await driver.close()
        await asyncio.to_thread(docker_daemon.remove_all, fleet)

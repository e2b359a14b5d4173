"""Whether a replica on a device really has that device: a server is started there as the controller starts
one, with a model that asks CUDA (`probe_model`), and ended again."""

import asyncio
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic

from tritonfleet.core.model import Device, DeviceKind
from tritonfleet.drivers import probe_model
from tritonfleet.drivers.base import ContainerSettings, Driver, DriverError, Instance, LaunchSpec
from tritonfleet.triton.client import ProbeError, TritonClient

POOL, MODEL = "probe", "device_probe"
READY_S = 180.0  # a first start in a container reads gigabytes of libraries
POLL_S, ANSWER_S = 0.1, 5.0
EXIT_S = 10
_CONFIG = """name: "{name}"
backend: "python"
instance_group [ {{ count: 1, kind: {kind} }} ]
"""


def write_repository(folder: Path, device: Device) -> None:
    """A model repository whose only model loads on ``device``."""
    version = folder / MODEL / "1"
    version.mkdir(parents=True)
    kind = "KIND_CPU" if device.kind is DeviceKind.CPU else "KIND_GPU"
    (folder / MODEL / "config.pbtxt").write_text(_CONFIG.format(name=MODEL, kind=kind))
    shutil.copyfile(probe_model.__file__, version / "model.py")


async def probe(
    driver: Driver,
    fleet: str,
    device: Device,
    repository: Path,
    container: ContainerSettings,
    tell: Callable[[str], None] = lambda _: None,
) -> str:
    """What was proved, in words. Raises DriverError with what was not. Leaves nothing that runs.

    ``repository`` is a new folder that the server, and the Docker daemon, can read.
    """
    write_repository(repository, device)
    wanted = "" if device.kind is DeviceKind.CPU else device.id
    launch = LaunchSpec(
        fleet, POOL, f"{POOL}-0", 1, "", (device,), str(repository), (MODEL,),
        env={probe_model.WANTED: wanted}, exit_timeout_s=EXIT_S, container=container,
    )  # fmt: skip
    tell(f"starting a server on {device.id}")
    began = monotonic()
    instance = await driver.start(launch)
    try:
        await _loaded(driver, instance)
        took = monotonic() - began
    finally:
        await driver.stop(instance, EXIT_S)
        await driver.remove(instance)
    proved = f"a server sees {wanted} alone, its memory works" if wanted else "a server without a device"
    return f"{proved}, a model loads; ready after {took:.1f} s"


async def _loaded(driver: Driver, instance: Instance) -> None:
    """Raises DriverError if the server ends, or does not have its model ready in time."""
    ended = asyncio.ensure_future(driver.wait(instance))
    client = TritonClient(instance.host, instance.grpc_port)
    deadline = monotonic() + READY_S
    try:
        while not ended.done():
            with suppress(ProbeError):
                if any(model.ready for model in await client.models(ANSWER_S)):
                    return
            if monotonic() > deadline:
                raise DriverError(
                    f"it was not ready within {READY_S:.0f} s", remedy="try again with a warm cache"
                )
            await asyncio.wait([ended], timeout=POLL_S)
        status = ended.result()
        raise DriverError(
            status.detail or f"the server ended with code {status.code}",
            remedy="compare `devices` with `nvidia-smi -L`; see docs/docker.md",
        )
    finally:
        ended.cancel()
        await client.close()

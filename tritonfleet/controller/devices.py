"""The fleet's devices as the controller keeps them: what NVML says of each, asked once for all replicas."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from time import time

from tritonfleet.core.model import Device, DeviceReading, Replica
from tritonfleet.core.wire import DeviceInfo
from tritonfleet.drivers.device_readings import NvmlReader, is_read

READ_S = 5.0  # between two readings

Read = Callable[[Iterable[Device], float], Mapping[str, DeviceReading]]


class DeviceDesk:
    """``devices`` in the order to prefer them; ``read`` blocks, and is called in a thread."""

    def __init__(self, devices: tuple[Device, ...], *, read: Read | None = None) -> None:
        self.devices = devices
        self.readings: Mapping[str, DeviceReading] = {}
        self._read = read or NvmlReader().read

    async def run(self) -> None:
        """Read all that can be read, again and again, until cancelled."""
        while any(is_read(device) for device in self.devices):
            await self.look()
            await asyncio.sleep(READ_S)

    async def look(self) -> None:
        self.readings = await asyncio.to_thread(self._read, self.devices, time())

    def free(self) -> dict[str, int]:
        """Bytes that are free on each device that says so."""
        return {
            name: reading.free_bytes
            for name, reading in self.readings.items()
            if reading.free_bytes is not None
        }

    def infos(self, replicas: Iterable[Replica]) -> tuple[DeviceInfo, ...]:
        """Every device for people and programs. ``replicas``: all of the fleet."""
        there = tuple(replicas)
        return tuple(
            DeviceInfo(
                device.id,
                device.kind,
                device.name,
                device.memory_bytes,
                reading=self.readings.get(device.id),
                replicas=tuple(replica.id for replica in there if device.id in replica.devices),
            )
            for device in self.devices
        )

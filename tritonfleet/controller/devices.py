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
        self._readable = tuple(device for device in devices if is_read(device))
        self._read = read or NvmlReader().read

    async def run(self) -> None:
        """Read all that can be read, again and again, until cancelled; `look` was called before."""
        while self._readable:
            await asyncio.sleep(READ_S)
            await self.look()

    async def look(self) -> None:
        """Read once."""
        if self._readable:
            self.readings = await asyncio.to_thread(self._read, self._readable, time())

    def free(self) -> dict[str, int]:
        """Bytes that are free on each device that says so; 0 where NVML has trouble with it, so that it
        does not pass for an empty one."""
        known = {
            name: 0 if reading.trouble else reading.free_bytes for name, reading in self.readings.items()
        }
        return {name: free for name, free in known.items() if free is not None}

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

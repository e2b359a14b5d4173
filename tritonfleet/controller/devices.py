"""The fleet's devices as the controller keeps them: what NVML says of each, asked once for all replicas, and
which of them are set aside because replicas fail there."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from tritonfleet.controller.journal import Journal
from tritonfleet.core.device_health import (
    DeviceFailure,
    DeviceHealth,
    DevicePolicy,
    SetAside,
    recent,
    review,
)
from tritonfleet.core.model import Device, DeviceReading, Replica, ReplicaState
from tritonfleet.core.placement import DeviceView
from tritonfleet.core.wire import DeviceInfo
from tritonfleet.drivers.clock import steady_time as time
from tritonfleet.drivers.device_readings import NvmlReader, is_read

READ_S = 5.0  # between two readings

Read = Callable[[Iterable[Device], float], Mapping[str, DeviceReading]]


class DeviceDesk:
    """``devices`` in the order to prefer them; ``health``: what an earlier controller knew of them; ``read``
    blocks, and is called in a thread."""

    def __init__(
        self,
        devices: tuple[Device, ...],
        journal: Journal | None = None,
        health: Mapping[str, DeviceHealth] | None = None,
        *,
        read: Read | None = None,
    ) -> None:
        self.devices = devices
        there = {device.id for device in devices}
        self.health = {name: known for name, known in (health or {}).items() if name in there}
        self._journal = journal
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

    def failed(self, devices: Iterable[str], failure: DeviceFailure) -> None:
        """A launch has ended badly there, in a way that can be the devices' fault."""
        for device in devices:
            known = self.health.get(device, DeviceHealth())
            self.health[device] = replace(known, failures=(*known.failures, failure))

    def review(self, policy: DevicePolicy, replicas: Iterable[Replica], now: float) -> None:
        """Set aside devices where replicas fail again and again, and take back those whose time is over."""
        self.health = {
            name: replace(known, failures=recent(known, policy, now))
            for name, known in self.health.items()
            if known.aside or known.times or recent(known, policy, now)
        }
        if not self.health:
            return
        serving: dict[str, set[str]] = {}
        for replica in replicas:
            for device in replica.devices if replica.state is ReplicaState.READY else ():
                serving.setdefault(device, set()).add(replica.config_hash)
        there = [device.id for device in self.devices]
        for device, health in review(policy, self.health, serving, there, now).items():
            self._keep(device, health)

    def set_aside(self, device: str, reason: str) -> None:
        """By hand: until `take_back`."""
        known = self.health.get(device, DeviceHealth())
        self._keep(device, replace(known, aside=SetAside(time(), None, reason)))

    def take_back(self, device: str) -> None:
        """By hand: its past is forgotten, too."""
        self._keep(device, DeviceHealth())

    def _keep(self, device: str, health: DeviceHealth) -> None:
        self.health[device] = health
        if self._journal is None:
            return
        if health.aside is None:
            self._journal.add("device.back", device, "replicas are placed there again")
        else:
            until = health.aside.until
            left = f"for {until - health.aside.at:g} s" if until is not None else "until it is taken back"
            self._journal.add(
                "device.set_aside", device, f"{health.aside.reason}: nothing is placed there {left}"
            )

    def usable(self, used: Collection[str]) -> int:
        """How many devices have replicas, or may get some."""
        aside = self.view().aside
        return sum(device.id in used or device.id not in aside for device in self.devices)

    def view(self) -> DeviceView:
        """As placement takes it."""
        return DeviceView(
            self.free(),
            {name: len(known.failures) for name, known in self.health.items()},
            frozenset(name for name, known in self.health.items() if known.aside is not None),
        )

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
        return tuple(self._info(device, there) for device in self.devices)

    def _info(self, device: Device, replicas: tuple[Replica, ...]) -> DeviceInfo:
        health = self.health.get(device.id, DeviceHealth())
        return DeviceInfo(
            device.id,
            device.kind,
            device.name,
            device.memory_bytes,
            reading=self.readings.get(device.id),
            replicas=tuple(replica.id for replica in replicas if device.id in replica.devices),
            failures=len(health.failures),
            set_aside=health.aside.reason if health.aside else "",
            set_aside_until=health.aside.until if health.aside else None,
        )

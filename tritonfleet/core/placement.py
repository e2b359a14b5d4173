"""Which device a replica goes to, and whether there is room at all.

A device is full when the shares of the replicas on it add up to 1; a replica's share is 1 / ``per_device`` of
its pool.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tritonfleet.core.model import Device

EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Placement:
    """A device, or None; ``reason`` says why, with the numbers."""

    device: Device | None
    reason: str


def place(devices: Sequence[Device], shares: Mapping[str, float], per_device: int) -> Placement:
    """The emptiest device with room, the earliest in ``devices`` among equals. ``shares``: device id → sum of
    the shares on it."""
    share = 1 / per_device
    best = min(devices, key=lambda device: shares.get(device.id, 0.0), default=None)
    if best is None:
        return Placement(None, "there is no device")
    used = shares.get(best.id, 0.0)
    if used + share > 1 + EPSILON:
        return Placement(None, f"no free device: all {len(devices)} are taken ({per_device} per device)")
    return Placement(best, f"{best.id} is {'free' if used == 0 else 'the emptiest'}")


def lacking(sizes: Mapping[str, int], per_device: Mapping[str, int], devices: Sequence[Device]) -> str:
    """ "" if pools of these sizes fit on the devices, else why not, with the numbers."""
    needed = sum(size / per_device[pool] for pool, size in sizes.items())
    if needed <= len(devices) + EPSILON:
        return ""
    wanted = ", ".join(f"{pool} {size} (at {per_device[pool]} per device)" for pool, size in sizes.items())
    return f"{wanted} need {needed:g} devices; there are {len(devices)}: {', '.join(d.id for d in devices)}"

"""Which devices a replica goes to, and whether there is room at all.

A device is full when the shares of the replicas on it add up to 1; a replica's share is 1 / ``per_device`` of
its pool. A replica of several devices has each of them whole.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from tritonfleet.core.model import Device, DeviceKind

EPSILON = 1e-9
ALIKE_BYTES = 1 << 30  # devices whose free memory differs by less are equally good


@dataclass(frozen=True, slots=True)
class Placement:
    """As many devices as were asked for, or none; ``reason`` says why, with the numbers."""

    devices: tuple[Device, ...]
    reason: str

    def __bool__(self) -> bool:
        return bool(self.devices)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(device.id for device in self.devices)


@dataclass(frozen=True, slots=True)
class DeviceView:
    """What is known of devices besides their shares, by id. ``free``: bytes that are free there, whoever uses
    the rest; a device that is not named has all of its own. ``failures``: launches that ended badly there
    lately. ``aside``: those where nothing is placed."""

    free: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    aside: Collection[str] = ()


def place(
    devices: Sequence[Device],
    shares: Mapping[str, float],
    per_device: int,
    count: int = 1,
    *,
    view: DeviceView | None = None,
) -> Placement:
    """The emptiest ``count`` devices with room; among equals those where the fewest launches failed, then
    those with the most free memory, to the GiB, then the earliest in ``devices``, in whose order they are
    returned.

    ``shares``: device id → sum of the shares on it. Free memory only decides between devices that are equally
    taken by this fleet, because what a replica that was placed just now will use does not show yet.
    A MIG slice is never one of several: a process can use one only.
    """
    known = view or DeviceView()

    def rank(device: Device) -> tuple[float, int, int]:
        memory = known.free.get(device.id, device.memory_bytes)
        failures = known.failures.get(device.id, 0)
        return round(shares.get(device.id, 0.0), 6), failures, -(memory // ALIKE_BYTES)

    usable = [device for device in devices if device.id not in known.aside]
    fitting = [device for device in usable if count == 1 or device.kind is not DeviceKind.MIG]
    if len(fitting) < count:
        return Placement((), _too_few(len(fitting), count) + _but_aside(known.aside))
    best = sorted(fitting, key=rank)[:count]
    if any(shares.get(device.id, 0.0) + 1 / per_device > 1 + EPSILON for device in best):
        return Placement((), _full(fitting, shares, per_device, count) + _but_aside(known.aside))
    chosen = tuple(device for device in devices if device in best)
    used = any(shares.get(device.id, 0.0) for device in chosen)
    name = chosen[0].id if count == 1 else "they"  # who places them names them already
    return Placement(chosen, f"{name} {'is' if count == 1 else 'are'} {'the emptiest' if used else 'free'}")


def _but_aside(names: Collection[str]) -> str:
    return f"; set aside: {', '.join(sorted(names))}" if names else ""


def _too_few(there: int, count: int) -> str:
    if count == 1:
        return "there is no device"
    return f"a replica needs {count} devices that are no MIG slices; there are {there}"


def _full(devices: Sequence[Device], shares: Mapping[str, float], per_device: int, count: int) -> str:
    if count == 1:
        return f"no free device: all {len(devices)} are taken ({per_device} per device)"
    left = [device.id for device in devices if not shares.get(device.id, 0.0)]
    what = f"only {', '.join(left)} of {len(devices)}" if left else f"none of {len(devices)}"
    return f"no {count} free devices for one replica: {what} {'are' if len(left) > 1 else 'is'} free"


def lacking(
    sizes: Mapping[str, int],
    per_device: Mapping[str, int],
    devices: Sequence[Device],
    per_replica: Mapping[str, int] | None = None,
) -> str:
    """ "" if pools of these sizes fit on the devices, else why not, with the numbers. ``per_replica``: pool →
    devices of one replica, 1 where it is not named."""
    counts = per_replica or {}
    needed = sum(size * counts.get(pool, 1) / per_device[pool] for pool, size in sizes.items())
    if needed <= len(devices) + EPSILON:
        return ""
    each = {
        pool: f"at {n} devices each"
        if (n := counts.get(pool, 1)) > 1
        else f"at {per_device[pool]} per device"
        for pool in sizes
    }
    wanted = ", ".join(f"{pool} {size} ({each[pool]})" for pool, size in sizes.items())
    return f"{wanted} need {needed:g} devices; there are {len(devices)}: {', '.join(d.id for d in devices)}"


def occupancy(
    devices: Sequence[Device], there: Mapping[str, Sequence[str]], free: Mapping[str, int] | None = None
) -> str:
    """A table: who is on each device, and how much memory is free on those that say so. ``there``: device id
    → names; ``free``: device id → bytes."""
    known = free or {}
    wide = max((len(device.id) for device in devices), default=0)
    lines = []
    for device in devices:
        who = ", ".join(there.get(device.id, ())) or "free"
        memory = f"  {known[device.id] / 2**30:.1f} GiB free" if device.id in known else ""
        lines.append(f"  {device.id:<{wide}}  {who}{memory}")
    return "\n".join(lines)

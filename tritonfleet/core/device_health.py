"""When a device is set aside because replicas fail there again and again, and for how long.

A replica that crashes tells little about its device: its model may be broken, and then it crashes
everywhere. So a device is set aside only while replicas of the same configuration serve on another one. Nor
is a device to blame for what another process did: SIGKILL is `kill -9`, or the kernel out of memory. Never
are more than half of the devices set aside (Envoy's rule for hosts, with another share).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tritonfleet.core.model import ExitStatus

FROM_OUTSIDE = frozenset((1, 2, 9, 15))  # SIGHUP, SIGINT, SIGKILL, SIGTERM: sent by people and the kernel
LARGEST_SHARE = 0.5  # of the devices
LONGEST_FACTOR = 16  # the longest time aside, in units of the first


@dataclass(frozen=True, slots=True)
class DevicePolicy:
    """``failures`` within ``window_s`` set a device aside for ``set_aside_s``, doubled each further time;
    0 failures: never."""

    failures: int = 3
    window_s: float = 600.0
    set_aside_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class DeviceFailure:
    """A launch that ended badly on a device."""

    at: float
    replica: str
    config_hash: str
    what: str


@dataclass(frozen=True, slots=True)
class SetAside:
    """No replica is placed there ``until`` then; None: until a person says so."""

    at: float
    until: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceHealth:
    """What is remembered of one device. ``times``: how often failures have set it aside."""

    failures: tuple[DeviceFailure, ...] = ()
    aside: SetAside | None = None
    times: int = 0


def is_devices_doing(status: ExitStatus) -> bool:
    """Whether an exit can be the device's fault: how it ended is known, and it was not from outside, nor an
    exit with 0, which is what a server does that was asked to."""
    return status.code not in (None, 0) or (status.signal is not None and status.signal not in FROM_OUTSIDE)


def recent(health: DeviceHealth, policy: DevicePolicy, now: float) -> tuple[DeviceFailure, ...]:
    return tuple(failure for failure in health.failures if now - failure.at < policy.window_s)


def review(
    policy: DevicePolicy,
    known: Mapping[str, DeviceHealth],
    serving: Mapping[str, Iterable[str]],
    devices: Sequence[str],
    now: float,
) -> dict[str, DeviceHealth]:
    """The devices about which something changes: set aside, or back because the time is over.

    ``known`` by device id; ``serving``: device id → configurations that are ready there now; ``devices``: the
    ids of all of the fleet.
    """
    changed: dict[str, DeviceHealth] = {}
    for device, health in known.items():
        if health.aside is not None and health.aside.until is not None and now >= health.aside.until:
            changed[device] = DeviceHealth(times=health.times)
    aside = sum(1 for device in devices if device in known and known[device].aside and device not in changed)
    for device in devices:
        health = known.get(device, DeviceHealth())
        if health.aside is not None or device in changed:
            continue
        found = _verdict(policy, device, health, serving, now)
        if found is None or (aside + 1) > len(devices) * LARGEST_SHARE:
            continue
        aside += 1
        changed[device] = DeviceHealth(recent(health, policy, now), found, health.times + 1)
    return changed


def _verdict(
    policy: DevicePolicy,
    device: str,
    health: DeviceHealth,
    serving: Mapping[str, Iterable[str]],
    now: float,
) -> SetAside | None:
    failures = recent(health, policy, now)
    elsewhere = {name for other, hashes in serving.items() if other != device for name in hashes}
    compared = [failure for failure in failures if failure.config_hash in elsewhere]
    if policy.failures == 0 or len(compared) < policy.failures:
        return None
    duration = policy.set_aside_s * min(2**health.times, LONGEST_FACTOR)
    reason = (
        f"{len(compared)} launches failed there within {policy.window_s:g} s while the same configuration "
        f"serves elsewhere; the last one, {compared[-1].replica}: {compared[-1].what}"
    )
    return SetAside(now, now + duration, reason)

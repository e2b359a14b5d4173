"""What a person typed → what the fleet calls it. Pure; every miss says what there is.

Resolving before asking the controller gives the did-you-mean; the controller still checks for itself.
"""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.render import short_names
from tritonfleet.core.wire import DeviceInfo, FleetSnapshot, PoolSnapshot, Replica

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def unknown(kind: str, name: str, known: Iterable[str], fleet: str) -> CliError:
    """The error for a name that does not exist, with the nearest one that does."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        hint = f"did you mean {near[0]!r}?"
        if len(names) > 1:
            hint += f" There are: {', '.join(names)}"
    else:
        hint = f"there are: {', '.join(names)}" if names else "there are none now: tritonfleet ps"
    return CliError(ExitCode.USAGE, f"no {kind} {name!r} in fleet {fleet!r}", hint=hint)


def replica_named(snapshot: FleetSnapshot, name: str) -> Replica:
    """By id (``main-0``) or instance (``main-0.3``)."""
    for replica in snapshot.replicas:
        if name in (replica.id, replica.instance):
            return replica
    raise unknown("replica", name, (replica.id for replica in snapshot.replicas), snapshot.fleet)


def device_named(snapshot: FleetSnapshot, name: str) -> DeviceInfo | None:
    """``device/ID``, its UUID in full or as `ps` shortens it; None for a name without ``device/``."""
    kind, slash, device_id = name.partition("/")
    if not slash or kind != "device":
        return None
    short = short_names(device.id for device in snapshot.devices)
    for device in snapshot.devices:
        if device_id in (device.id, short[device.id]):
            return device
    raise unknown("device", device_id, (device.id for device in snapshot.devices), snapshot.fleet)


def pool_named(snapshot: FleetSnapshot, name: str) -> PoolSnapshot:
    for pool in snapshot.pools:
        if pool.name == name:
            return pool
    raise unknown("pool", name, (pool.name for pool in snapshot.pools), snapshot.fleet)


def parse_sizes(words: Sequence[str], pools: Sequence[str] | None = None) -> dict[str, int]:
    """``["3"]`` → ``{"": 3}`` or ``{only pool: 3}``; ``["text=3", "image=1"]`` → as written.

    ``pools`` are the pools there are, where they are known. Raises CliError (usage).
    """
    sizes: dict[str, int] = {}
    for word in words:
        pool, equals, number = word.rpartition("=")
        if equals and not pool:
            raise CliError(ExitCode.USAGE, f"{word!r} names no pool", hint="write N, or POOL=N")
        if not number.isascii() or not number.isdigit():
            raise CliError(
                ExitCode.USAGE,
                f"{number!r} is not a number of replicas",
                hint="a whole number, 0 or more: tritonfleet scale 3, tritonfleet scale POOL=3",
            )
        if not pool and pools is not None:
            if len(pools) != 1:
                raise CliError(
                    ExitCode.USAGE,
                    f"the fleet has {len(pools)} pools, so {word!r} must say which",
                    hint="one of: " + ", ".join(f"{name}={word}" for name in pools),
                )
            pool = pools[0]
        if pool in sizes:
            named = f"pool {pool!r}" if pool else "the pool"
            raise CliError(ExitCode.USAGE, f"{named} is given two sizes", hint="name every pool once")
        sizes[pool] = int(number)
    return sizes


def parse_duration(text: str, option: str) -> float:
    """``90``, ``90s``, ``250ms``, ``10m``, ``2h`` → seconds. Raises CliError (usage) naming ``option``."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise CliError(
            ExitCode.USAGE,
            f"{option}: {text!r} is not a duration",
            hint="a number and a unit: 250ms, 30s, 10m, 2h (a bare number is seconds)",
        )
    return float(match.group(1)) * _UNIT_S[match.group(2) or "s"]

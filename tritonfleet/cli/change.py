"""`scale`, `drain`, `undrain`, `restart`: wishes handed to the controller, which answers what it began."""

from tritonfleet.cli import fleet
from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.names import device_named, parse_sizes, replica_named
from tritonfleet.cli.terminal import Settings, say
from tritonfleet.cli.up import wait_settled
from tritonfleet.core.wire import DrainRequest, RestartRequest, ScaleRequest

AUTO = "auto"


def scale(
    settings: Settings, words: list[str], timeout_s: float, *, wait: bool, for_s: float | None = None
) -> None:
    """Pin the size of pools; ``auto`` in place of a size ends a pin. Bounds and device slots are the
    controller's to check."""
    automatic = [word for word in words if word.rpartition("=")[2] == AUTO]
    numbers = [word for word in words if word not in automatic]
    parse_sizes(numbers)  # what is wrong whatever the fleet is, before looking for it
    target = fleet.locate(settings)
    with target.client() as client:
        pools = [pool.name for pool in client.snapshot().pools]
        sizes = parse_sizes(numbers, pools)
        auto = tuple(parse_sizes([word[: -len(AUTO)] + "0" for word in automatic], pools))
        if both := sizes.keys() & set(auto):
            raise CliError(ExitCode.USAGE, f"pool {min(both)!r} is given a size and {AUTO!r}")
        request = ScaleRequest(sizes, by="scale", for_s=for_s, auto=auto)
        say(settings, client.scale(request).message)
        if wait:
            snapshot = wait_settled(client, target, settings, timeout_s, frozenset({*sizes, *auto}))
            for pool in snapshot.pools:
                if pool.name in sizes or pool.name in auto:
                    say(settings, f"pool {pool.name}: {pool.ready} of {pool.desired} ready")


def drain(settings: Settings, name: str, deadline_s: float | None, *, force: bool) -> None:
    """A replica, or ``device/ID``."""
    with fleet.locate(settings).client() as client:
        snapshot = client.snapshot()
        if (device := device_named(snapshot, name)) is not None:
            request = DrainRequest(deadline_s=deadline_s, force=force, by="hand")
            say(settings, client.drain_device(device.id, request).message)
        else:
            request = DrainRequest(deadline_s=deadline_s, force=force, by="drain")
            say(settings, client.drain(replica_named(snapshot, name).id, request).message)


def undrain(settings: Settings, name: str) -> None:
    with fleet.locate(settings).client() as client:
        snapshot = client.snapshot()
        if (device := device_named(snapshot, name)) is not None:
            say(settings, client.undrain_device(device.id).message)
        else:
            say(settings, client.undrain(replica_named(snapshot, name).id).message)


ROUTER = "router"  # no replica has such a name: theirs end with a number


def restart(settings: Settings, name: str, *, force: bool) -> None:
    if name == ROUTER and force:
        raise CliError(ExitCode.USAGE, "the router's workers are replaced without failing a call: no --force")
    with fleet.locate(settings).client() as client:
        if name == ROUTER:
            say(settings, client.restart_router(RestartRequest(by="restart")).message)
            return
        replica = replica_named(client.snapshot(), name)
        say(settings, client.restart(replica.id, RestartRequest(force=force, by="restart")).message)

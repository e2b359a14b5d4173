"""How replicas are launched: what runs, as the system shows it, and the next one, by the fleet file."""

from contextlib import suppress

from tritonfleet.controller.commands import RefusedError
from tritonfleet.controller.fleet import Fleet
from tritonfleet.core.launched import Launched, masked
from tritonfleet.drivers.base import DriverError


async def launched(fleet: Fleet, name: str) -> Launched:
    """Of the replica ``name``; where nothing of it runs, what its next launch is given. Raises RefusedError
    for one that there is not."""
    slot = fleet.slots.get(name)
    if slot is None:
        raise RefusedError("not_found", f"there is no replica {name!r}", "see `tritonfleet ps`")
    if slot.instance is not None:
        with suppress(DriverError):  # it has ended, or its engine is away
            return await fleet.driver.launch_of(slot.instance)
    return next_launch(fleet, slot.pool)


def next_launch(fleet: Fleet, pool: str) -> Launched:
    """By the fleet file in force. Raises RefusedError for a pool that there is not."""
    spec = fleet.spec.pools.get(pool)
    if spec is None:
        raise RefusedError("not_found", f"there is no pool {pool!r}", f"pools: {', '.join(fleet.spec.pools)}")
    image = spec.triton.image if fleet.driver.name == "docker" else ""
    loaded = [f"--load-model={model}" for model in spec.models]
    command = [f"--model-repository={spec.model_repository}", *loaded, *spec.triton.args]
    return masked(command, spec.triton.env, image, running=False)

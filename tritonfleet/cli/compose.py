"""`compose`: the fleet file as a plain compose file."""

from pathlib import Path

from tritonfleet.cli import fleet
from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.terminal import Output, Settings, show_data


def compose(settings: Settings, *, router_image: str) -> None:
    """Print it. Raises CliError for a file that cannot be one: a pool without an image, too few devices."""
    from tritonfleet.drivers import container_settings
    from tritonfleet.drivers.base import DriverError
    from tritonfleet.drivers.devices import discover
    from tritonfleet.drivers.docker_compose import compose

    spec = fleet.load(settings)
    try:
        found = compose(
            spec,
            discover(spec.devices, trusting=True),
            {name: _models(pool.model_repository, pool.models) for name, pool in spec.pools.items()},
            {name: container_settings(pool) for name, pool in spec.pools.items()},
            router_image=router_image,
        )
    except DriverError as error:
        raise CliError(ExitCode.USAGE, str(error), hint=error.remedy) from error
    show_data(found, Output.JSON if settings.output is Output.JSON else Output.YAML)


def _models(repository: str, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The names of what is served: nobody asks the replicas later."""
    if "*" not in wanted:
        return wanted
    folders = Path(repository).iterdir()
    return tuple(sorted(entry.name for entry in folders if entry.is_dir() and entry.name[0] != "."))

"""Commands about the host that a fleet runs on."""

from typing import Annotated

import typer

from tritonfleet.cli.common import GLOBAL_HELP, settings_of
from tritonfleet.cli.quick import QuickGroup


def doctor(
    context: typer.Context,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Also start a server on each GPU and see what it sees.")
    ] = False,
) -> None:
    """Is this host fit for the fleet, and what to do where not.

    Exit code 1 if anything failed. Nothing is changed.
    """
    from tritonfleet.cli.doctor.command import doctor as command

    command(settings_of(context), gpu=gpu)


def init(
    context: typer.Context,
    model_repository: Annotated[
        str,
        typer.Option(
            "--model-repository", metavar="FOLDER", help="The models.  [default: what is found here]"
        ),
    ] = "",
    name: Annotated[str, typer.Option("--name", help="Of the fleet.  [default: this folder's]")] = "",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that exists.")] = False,
) -> None:
    """Write a commented fleet file from what is found here.

    GPUs, model repository, image, tritonserver, free ports.
    """
    from tritonfleet.cli import init as command

    command.init(settings_of(context), model_repository, name, force=force)


service = typer.Typer(
    cls=QuickGroup, no_args_is_help=True, rich_markup_mode=None, help="The controller under systemd."
)


@service.command(epilog=GLOBAL_HELP)
def install(
    context: typer.Context,
    system: Annotated[
        bool, typer.Option("--system/--user", help="A unit of the system, or of your own.")
    ] = False,
    run_as: Annotated[
        str, typer.Option("--run-as", metavar="USER", help="With --system: whose it is.  [default: you]")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the unit.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a unit that is another.")] = False,
) -> None:
    """Write a systemd unit for this fleet's controller, and say what to type next.

    Nothing is started. The unit is ready when the fleet is.
    """
    from tritonfleet.cli import service as command

    command.install(settings_of(context), system=system, user=run_as, dry_run=dry_run, force=force)


def register(app: typer.Typer) -> None:
    app.add_typer(service, name="service")
    app.command(epilog=GLOBAL_HELP)(init)
    app.command(epilog=GLOBAL_HELP)(doctor)

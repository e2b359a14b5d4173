"""Commands about the host that a fleet runs on."""

from typing import Annotated

import typer

from tritonfleet.cli.common import GLOBAL_HELP, settings_of


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


def register(app: typer.Typer) -> None:
    app.command(epilog=GLOBAL_HELP)(init)
    app.command(epilog=GLOBAL_HELP)(doctor)

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


def register(app: typer.Typer) -> None:
    app.command(epilog=GLOBAL_HELP)(doctor)

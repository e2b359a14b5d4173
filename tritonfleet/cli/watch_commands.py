"""Commands that look at a running fleet as a whole: the dashboard."""

from typing import Annotated

import typer

from tritonfleet.cli.common import GLOBAL_HELP, seconds, settings_of


def dashboard(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="One picture; as without a terminal.")] = False,
    interval: Annotated[
        str, typer.Option("--interval", metavar="DURATION", help="Between two looks.  [default: 1s]")
    ] = "",
    ascii_only: Annotated[bool, typer.Option("--ascii", help="No characters beyond ASCII.")] = False,
) -> None:
    """The whole fleet, live; the same as top.

    ? there shows the keys. -o json --interval 2s gives one JSON object a line.
    """
    from tritonfleet.cli import dashboard as command

    interval_s = max(seconds(interval, "--interval"), 0.1) if interval else None
    command.dashboard(settings_of(context), interval_s, once=once, ascii_only=ascii_only)


def register(app: typer.Typer) -> None:
    app.command(epilog=GLOBAL_HELP)(dashboard)
    app.command("top", hidden=True, help="The same as dashboard.", epilog=GLOBAL_HELP)(dashboard)

"""`models ls`, `load`, `unload`."""

from typing import Annotated

import typer

from tritonfleet.cli import completion
from tritonfleet.cli.common import GLOBAL_HELP, settings_of
from tritonfleet.cli.quick import QuickGroup

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="Its folder's name.", autocompletion=completion.models)
]

app = typer.Typer(
    cls=QuickGroup,
    rich_markup_mode=None,
    help="What is loaded where; load and unload on all replicas. Alone: ls.",
)


@app.callback(invoke_without_command=True)
def alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        ls(context)


@app.command(epilog=GLOBAL_HELP)
def ls(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="Only this one.", autocompletion=completion.models)
    ] = "",
) -> None:
    """Models, on how many replicas they are ready, their versions.

    -o wide has a line for each replica.
    """
    from tritonfleet.cli import models

    models.ls(settings_of(context), model)


@app.command(epilog=GLOBAL_HELP)
def load(context: typer.Context, model: Model) -> None:
    """Load a model on every replica; one that is loaded is loaded again.

    Replicas that start later load it, too.
    """
    from tritonfleet.cli import models

    models.load(settings_of(context), model)


@app.command(epilog=GLOBAL_HELP)
def unload(
    context: typer.Context,
    model: Model,
    dependents: Annotated[
        bool, typer.Option("--dependents", help="Of an ensemble: the models it is made of, too.")
    ] = False,
) -> None:
    """Unload a model on every replica.

    Replicas that start later do not serve it either.
    """
    from tritonfleet.cli import models

    models.unload(settings_of(context), model, dependents=dependents)

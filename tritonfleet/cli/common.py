"""What the command groups share: the global options' data, the words of the help."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tritonfleet.cli import completion

if TYPE_CHECKING:
    from tritonfleet.cli.terminal import Settings

GLOBAL_HELP = "Global options (tritonfleet --help) may also follow the command."


Scale = Annotated[
    list[str] | None,
    typer.Option(
        "--scale",
        metavar="POOL=N",
        help="Pin a pool's size; may be repeated.",
        autocompletion=completion.sizes,
    ),
]


def settings_of(context: typer.Context) -> "Settings":
    from tritonfleet.cli.terminal import Output, ProgressKind, Settings

    raw = context.obj
    typed = {
        "file": Path(raw["file"]) if raw["file"] else None,
        "output": Output(raw["output"]),
        "progress": ProgressKind(raw["progress"]),
    }
    return Settings(**{**raw, **typed})


def seconds(text: str, option: str) -> float:
    from tritonfleet.cli.names import parse_duration

    return parse_duration(text, option)

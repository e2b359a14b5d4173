"""How a replica was launched, as text: one argument and one variable a line. Pure."""

from rich.text import Text

from tritonfleet.cli.layout import Cell, fields
from tritonfleet.core.launched import Launched


def launch_text(found: Launched, width: int | None) -> Text:
    """The part of `describe` below the state."""
    pairs: list[tuple[str, str | Cell]] = []
    if found.image:
        pairs.append(("Image", found.image))
    pairs += found.container
    pairs += _listed("Command", list(found.command))
    pairs += _listed("Environment", [f"{name}={value}" for name, value in sorted(found.env.items())])
    return fields(pairs, width) if pairs else Text("as the fleet's defaults are")


def launch_title(found: Launched) -> str:
    return "Launch" if found.running else "Next launch (nothing runs): what the fleet file says"


def _listed(name: str, values: list[str]) -> list[tuple[str, str | Cell]]:
    return [(name if index == 0 else "", value) for index, value in enumerate(values)]

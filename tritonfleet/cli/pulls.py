"""A wait for an image, layer by layer. Pure: pulls go in, lines of text come out."""

from collections.abc import Iterable, Mapping

from rich.text import Text

from tritonfleet.cli.board_marks import bar
from tritonfleet.core.image_pull import ImagePull, Layer, summary

MOST_LAYERS = 10  # a picture must fit a terminal; Triton's images have some forty layers
BAR = 24
STATUS = 18  # the longest of the daemon's words is "Verifying Checksum"

Seen = Mapping[tuple[str, str], str]  # (image, layer) → status


def picture(pulls: Iterable[ImagePull]) -> list[Text]:
    """A head for each image, and a bar for each layer that moves."""
    lines = []
    for pull in pulls:
        lines.append(Text("  ").append(pull.image, "bold").append(f"  {summary(pull)}"))
        moving = [layer for layer in pull.layers if layer.current and not layer.done]
        lines += [_line(layer) for layer in moving[:MOST_LAYERS]]
        if len(moving) > MOST_LAYERS:
            lines.append(Text(f"    … and {len(moving) - MOST_LAYERS} more", "dim"))
    return lines


def _line(layer: Layer) -> Text:
    line = Text("    ").append(layer.id, "dim").append(f"  {layer.status:<{STATUS}}  ")
    if not layer.total:
        return line.append(f"{layer.current / 1e6:.1f} MB")
    return line.append(bar(layer.current / layer.total, BAR), "blue").append(
        f"  {layer.current / 1e6:.1f} of {layer.total / 1e6:.1f} MB"
    )


def news(before: Seen, pulls: Iterable[ImagePull]) -> tuple[list[tuple[str, Layer]], Seen]:
    """Layers whose status is another than ``before``, with their image; and the new ``before``."""
    now = {(pull.image, layer.id): (pull.image, layer) for pull in pulls for layer in pull.layers}
    changed = [found for key, found in now.items() if before.get(key) != found[1].status]
    return changed, {**before, **{key: layer.status for key, (_, layer) in now.items()}}


def plain(image: str, layer: Layer) -> str:
    """One line of a log."""
    size = f"  {layer.total / 1e6:.1f} MB" if layer.total else ""
    return f"  {image}  {layer.id}  {layer.status}{size}"

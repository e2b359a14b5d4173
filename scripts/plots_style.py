"""How the pictures of the pages look: one palette, quiet axes, names beside the lines instead of legends."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

INK, GREY, FAINT = "#222222", "#8a8f98", "#e3e5e8"
BLUE, SKY, ORANGE, RED, GREEN = "#1f5fa8", "#8db8e2", "#d97a0b", "#b3202c", "#2e7d4f"
WIDTH_IN = 9.0  # a page of GitHub shows about 850 pixels
DPI = 130


def figure(
    title: str, says: str, height_in: float, rows: int, columns: int = 1, ratios: Sequence[float] = (),
    *, sharey: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """(figure, array of axes) with a title and below it one sentence that says what is to be seen."""
    drawn = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    head = 0.62 / height_in
    drawn.get_layout_engine().set(rect=(0, 0, 1, 1 - head), h_pad=0.06, w_pad=0.08)
    drawn.text(0.012, 1 - 0.1 / height_in, title, fontsize=14, fontweight="bold", color=INK, va="top")
    drawn.text(0.012, 1 - 0.38 / height_in, says, fontsize=10, color="#555a61", va="top")
    axes = drawn.subplots(
        rows, columns, squeeze=False, sharex=True, sharey=sharey,
        gridspec_kw={"height_ratios": list(ratios) or [1] * rows},
    )  # fmt: skip
    for axis in axes.flat:
        axis.grid(visible=True, color=FAINT, linewidth=0.7)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(GREY)
        axis.tick_params(colors="#555a61", labelsize=9)
        axis.margins(x=0)
    return drawn, axes


def titled(axis: Any, text: str) -> None:
    axis.set_title(text, loc="left", fontsize=10.5, color=INK, pad=6)


def named(axis: Any, x: float, y: float, text: str, colour: str, **more: Any) -> None:
    """A name in the picture, in the colour of what it names; offsets are points."""
    offset = more.pop("offset", (0, 0))
    axis.annotate(
        text, (x, y), xytext=offset, textcoords="offset points", color=colour, fontsize=9.5,
        annotation_clip=False, **more,
    )  # fmt: skip


def save(drawn: Any, path: Path) -> None:
    """As a PNG of few colours, which is a third of the size."""
    from PIL import Image

    drawn.savefig(path, dpi=DPI, metadata={"Software": None})
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)

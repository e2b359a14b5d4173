"""The dashboard's small pictures: curves, bars, and all of them in ASCII. Pure."""

from collections.abc import Sequence

from rich.text import Text

_STEPS = "▁▂▃▄▅▆▇█"
_ASCII = str.maketrans(
    {
        **dict(zip(_STEPS, "_.-:=+*#", strict=True)),
        "·": ".",
        "◔": "(",
        "◑": "o",
        "●": "*",
        "◐": "d",
        "○": "-",
        "✗": "x",
        "↻": "@",
        "…": "~",
        "▸": ">",
        "↑": "^",
        "↓": "v",
        "─": "-",
        "→": ">",
        "°": " ",
        "░": ".",
        "÷": "/",
    }
)


def sparkline(values: Sequence[float | None], width: int) -> str:
    """The newest ``width`` values, the largest of them a full block. None leaves a gap."""
    shown = values[-width:] if width > 0 else ()
    top = max((value for value in shown if value is not None), default=0.0)
    marks = (" " if v is None else _STEPS[round(v / top * 7) if top > 0 else 0] for v in shown)
    return "".join(marks).rjust(width)


def bar(share: float, width: int) -> str:
    full = round(min(max(share, 0.0), 1.0) * width)
    return "█" * full + "░" * (width - full)


def in_ascii(text: Text) -> Text:
    """One character for each one, so that styles and columns stay where they are."""
    shown = text.copy()
    plain = text.plain.translate(_ASCII)
    shown.plain = "".join(character if character < "\x7f" else "?" for character in plain)
    return shown

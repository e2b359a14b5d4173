"""Rows of cells → lines of text that fit a width. Pure; knows nothing of fleets.

A table here is plain columns and one free text per row, its reason. On a wide terminal the reason is
the last column, wrapped inside it; where that would leave it a sliver, it goes below its row instead;
without a width (a pipe, a file) every row is one line, for grep.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

GAP = "  "
MINIMUM_REASON = 28  # columns; narrower than this, a wrapped reason is harder to read than one below


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    right: bool = False  # numbers are aligned right


@dataclass(frozen=True, slots=True)
class Row:
    cells: tuple[Cell, ...]
    reason: str = ""


def table(columns: Sequence[Column], rows: Sequence[Row], width: int | None, reason: str = "REASON") -> Text:
    """The table with its header line. ``reason`` is the title of the rows' free text; "" leaves it out."""
    sizes = [
        max(len(column.title), *(len(row.cells[index].text) for row in rows), 0)
        for index, column in enumerate(columns)
    ]
    fixed = sum(sizes) + len(GAP) * len(columns)
    longest = max((len(row.reason) for row in rows), default=0)
    beside = width is None or width - fixed >= min(MINIMUM_REASON, max(longest, len(reason)))
    header = _line(columns, [Cell(column.title, "dim") for column in columns], sizes)
    if beside and reason:
        header.append(GAP).append(reason, "dim")
    lines = [_stripped(header)]
    for row in rows:
        line = _line(columns, row.cells, sizes)
        if not reason or not row.reason:
            lines.append(_stripped(line))
        elif beside:
            room = None if width is None else width - fixed
            first, *more = _wrap(row.reason, room)
            lines.append(line.append(GAP).append(first))
            lines.extend(Text(" " * fixed).append(text) for text in more)
        else:
            lines.append(_stripped(line))
            indent = " " * min(4, sizes[0] + len(GAP))
            room = None if width is None else width - len(indent)
            lines.extend(Text(indent).append(text, "dim") for text in _wrap(row.reason, room))
    return Text("\n").join(lines)


def fields(pairs: Sequence[tuple[str, str | Cell]], width: int | None) -> Text:
    """``name  value`` lines with the values aligned and wrapped under themselves."""
    size = max((len(name) for name, _ in pairs), default=0)
    lines = []
    for name, value in pairs:
        cell = value if isinstance(value, Cell) else Cell(value)
        room = None if width is None else max(width - size - len(GAP), MINIMUM_REASON)
        first, *more = _wrap(cell.text, room) or [""]
        lines.append(Text().append(name.ljust(size), "dim").append(GAP).append(first, cell.style))
        lines.extend(Text(" " * (size + len(GAP))).append(text, cell.style) for text in more)
    return Text("\n").join(lines)


def wrapped(head: Text, text: str, width: int | None, style: str = "") -> list[Text]:
    """``head`` and the text beside it, wrapped under itself; lines that fit stay as they are."""
    room = None if width is None else max(width - len(head), MINIMUM_REASON)
    lines: list[str] = []
    for line in text.splitlines() or [""]:
        lines += [line] if room is None or len(line) <= room else _wrap(line, room)
    first, *more = lines
    below = [Text(" " * len(head)).append(line, style) for line in more]
    return [head.copy().append(first, style), *below]


def _line(columns: Sequence[Column], cells: Sequence[Cell], sizes: Sequence[int]) -> Text:
    line = Text()
    for index, (column, cell, size) in enumerate(zip(columns, cells, sizes, strict=True)):
        if index:
            line.append(GAP)
        pad = " " * (size - len(cell.text))
        if column.right:
            line.append(pad).append(cell.text, cell.style)
        else:
            line.append(cell.text, cell.style).append(pad)
    return line


def _stripped(line: Text) -> Text:
    line.rstrip()
    return line


def _wrap(text: str, room: int | None) -> list[str]:
    text = " ".join(text.split())
    if room is None:
        return [text]
    return textwrap.wrap(text, max(room, 10), break_on_hyphens=False) or [""]

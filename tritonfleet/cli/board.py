"""A board and a view → the dashboard's picture. Pure: the clock is the snapshot's, the size the view's."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from tritonfleet.cli import board_tables as tables
from tritonfleet.cli.board_marks import in_ascii, sparkline
from tritonfleet.cli.board_view import View, chosen
from tritonfleet.cli.render import BROKEN, GOOD, age, complaints, milliseconds
from tritonfleet.core.board import Board
from tritonfleet.core.model import DeviceKind

KEYS = "q quit  ? help  / filter  s sort  ↑↓ select  d describe  l logs"
HELP = (
    "↑ ↓ PgUp PgDn Home End   select a replica; the list scrolls",
    "d                        describe it: state, settings, statistics, events",
    "l                        the last lines of its log",
    "s                        sort by the next column",
    "/                        show replicas only that contain a text; Enter keeps it, Esc ends it",
    "? or Esc                 back",
    "q or Ctrl-C              quit; the fleet goes on",
    "",
    "REQ/S, ERR%, P50, P99    calls as the router counts them, of the last 10 s",
    "QUEUE, COMPUTE           mean times inside Triton, as its statistics say",
    "IN-FLIGHT, WAITING       now: calls sent to a replica; calls that no replica has room for",
    "the small curves         the last minutes, the newest at the right",
)


@dataclass(frozen=True, slots=True)
class _Section:
    """``lines[0]`` is the heading. ``least``: lines to show before others get more."""

    lines: Sequence[Text]
    least: int


def render(board: Board, view: View) -> Text:
    """`View.height` lines of at most `View.width` characters; where height is None, all that there is."""
    body = _page(view) if view.page else _overview(board, view)
    lines = [*body, _footer(view)] if view.height is not None else body
    for line in lines:
        line.truncate(view.width, overflow="ellipsis")
    shown = Text("\n").join(lines)
    return in_ascii(shown) if view.ascii else shown


def _page(view: View) -> list[Text]:
    room = max((view.height or len(view.lines) + 2) - 2, 1)
    lines = HELP if view.page == "help" else view.lines
    shown = [Text(line) for line in lines[view.scroll : view.scroll + room]]
    shown += [Text()] * (room - len(shown))
    return [Text(view.title or view.page, "bold"), *shown]


def _overview(board: Board, view: View) -> list[Text]:
    head = _header(board, view)
    sections = _sections(board, view)
    if view.height is None:
        return [line for section in ([_Section(head, 1), *sections]) for line in (*section.lines, Text())][
            :-1
        ]
    room = max(view.height - len(head) - 1, 1)
    airy = room >= sum(len(section.lines) + 1 for section in sections)
    heights = _share(sections, room - (len(sections) if airy else 0))
    lines = list(head)
    for section, height in zip(sections, heights, strict=True):
        if height and airy:
            lines.append(Text())
        lines += _scrolled(section.lines, height, view, section is sections[_replicas_at(board)])
    lines += [Text()] * (view.height - 1 - len(lines))
    return lines[: view.height - 1]


def _sections(board: Board, view: View) -> list[_Section]:
    width = view.width
    sections = []
    if _has_gpus(board):
        sections.append(_Section(tables.devices(board, width), 3))
    sections.append(_Section(tables.replicas(board, view), 7))
    sections.append(_Section(tables.models(board, width), 3))
    sections.append(_Section(tables.autoscaler(board, width), 2))
    events = tables.events(board, 100 if view.height is not None else 10)
    sections.append(_Section(events, 3))
    return sections


def _has_gpus(board: Board) -> bool:
    return any(device.kind is not DeviceKind.CPU for device in board.snapshot.devices)


def _replicas_at(board: Board) -> int:
    return 1 if _has_gpus(board) else 0


def _share(sections: Sequence[_Section], room: int) -> list[int]:
    """Lines for each: first what each needs at least, then the rest in their order."""
    heights = []
    for section in sections:
        height = min(len(section.lines), section.least, room)
        height = 0 if height < 2 else height  # a heading alone says nothing
        heights.append(height)
        room -= height
    for index, section in enumerate(sections):
        more = min(len(section.lines) - heights[index], room) if heights[index] else 0
        heights[index] += more
        room -= more
    return heights


def _scrolled(lines: Sequence[Text], height: int, view: View, selectable: bool) -> list[Text]:
    """The heading, and as many rows as there is room: around the selected one where one can be selected."""
    if height < 2:
        return []
    heading, rows, room = lines[0], lines[1:], height - 1
    if len(rows) <= room:
        return [heading, *rows]
    start = 0
    if selectable:
        start = min(max(view.selected - room // 2, 0), len(rows) - room)
    elif heading.plain.startswith("LAST EVENTS"):
        start = len(rows) - room  # the newest are the last
    end = f"  {start + 1}-{start + room} of {len(rows)}"
    titled = heading.copy()
    titled.truncate(max(view.width - len(end), 1))
    return [titled.append(end, "dim"), *rows[start : start + room]]


def _header(board: Board, view: View) -> list[Text]:
    snapshot = board.snapshot
    wanted = [worker for worker in snapshot.router.workers if not worker.leaving]
    running, workers = sum(worker.running for worker in wanted), len(wanted)
    first = Text().append(snapshot.fleet, "bold").append(f"  {snapshot.router.address}")
    first.append(f"  {running}/{workers} workers", "" if running == workers else BROKEN)
    counts = [replica.in_flight for replica in snapshot.replicas if replica.state.serving]
    known = sum(count for count in counts if count is not None)
    waiting = board.traffic.waiting
    first.append(f"  in flight {'?' if None in counts else known}")
    first.append(f"  waiting {waiting}", BROKEN if waiting else "")
    if snapshot.stopping:
        first.append("  stopping", BROKEN)
    old = Text(f"data {view.data_age_s:.0f}s old" if view.data_age_s >= 1 else "data current")
    old.stylize(BROKEN if view.trouble else "dim")
    gap = view.width - len(first) - len(old)
    first.append(" " * max(gap, 2)).append_text(old)
    head = [first, _rates(board, view.width)]
    if view.trouble:
        head.append(Text(f"{view.trouble}; trying again", BROKEN))
    return head + complaints(snapshot)


def _rates(board: Board, width: int) -> Text:
    """The curves get what the numbers leave, half each."""
    traffic, rates = board.traffic, board.traffic.total
    share = f"{rates.error_share * 100:.1f} %"
    before = Text("req/s ").append(f"{rates.request_rate:.1f}", GOOD).append(" ")
    between = Text("  errors ").append(share, BROKEN if rates.error_rate else "")
    between.append(f"  p50 {_time(rates.p50_s)}  p99 {_time(rates.p99_s)} ")
    room = max(width - len(before) - len(between), 0)
    curve = min(room // 2, 60)
    before.append(sparkline([point.request_rate for point in traffic.points], curve), GOOD)
    between.append(sparkline([point.p99_s for point in traffic.points], curve), "bold")
    return before.append_text(between)


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else milliseconds(seconds)


def _footer(view: View) -> Text:
    if view.typing:
        return Text(f"/{view.filter}_  Enter keeps it, Esc ends it", "bold")
    if view.page:
        return Text("Esc back  ↑↓ PgUp PgDn scroll  q quit", "dim")
    text = Text(KEYS, "dim").append(f"  sorted by {view.sort}", "dim")
    return text.append(f"  filter /{view.filter}", "bold") if view.filter else text


def waiting_picture(fleet: str, view: View, since_s: float) -> Text:
    """Before there is anything to show."""
    text = Text(fleet, "bold").append(f"\n{view.trouble or 'asking the controller'}", BROKEN)
    text.append(f"\ntrying again, for {age(since_s)}; q quits")
    return in_ascii(text) if view.ascii else text


def selected_replica(board: Board, view: View) -> str:
    """Its id; "" where there is none."""
    rows = chosen(board, view)
    return rows[min(view.selected, len(rows) - 1)].id if rows else ""

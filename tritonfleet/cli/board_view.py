"""What a person looks at on the dashboard, and what a key changes of it. Pure."""

from dataclasses import dataclass, replace
from typing import Literal

from tritonfleet.core.board import Board, TrafficRates
from tritonfleet.core.model import Replica, ReplicaState

SORTS = ("id", "state", "in-flight", "req/s", "p99", "errors", "restarts")
Page = Literal["", "help", "describe", "logs"]
_WORST_FIRST = (
    ReplicaState.CRASH_LOOP, ReplicaState.FAILED, ReplicaState.STOPPING, ReplicaState.DRAINING,
    ReplicaState.PENDING, ReplicaState.STARTING, ReplicaState.LOADING, ReplicaState.READY,
)  # fmt: skip
_NONE = TrafficRates()


@dataclass(frozen=True, slots=True)
class View:
    """``height`` None: all of it, as on paper. ``lines``: of the page; ``trouble``: why the data are old."""

    width: int = 80
    height: int | None = 24
    ascii: bool = False
    sort: str = "id"
    filter: str = ""
    typing: bool = False  # the filter
    selected: int = 0  # among the replicas shown
    page: Page = ""
    title: str = ""
    lines: tuple[str, ...] = ()
    scroll: int = 0
    data_age_s: float = 0.0
    trouble: str = ""
    quit: bool = False


def chosen(board: Board, view: View) -> list[Replica]:
    """The replicas that the filter leaves, in the order asked for."""
    wanted = view.filter.lower()
    found = [
        replica
        for replica in board.snapshot.replicas
        if wanted in " ".join((replica.id, replica.state, *replica.devices, replica.reason)).lower()
    ]

    def key(replica: Replica) -> float:
        rates = board.traffic.replicas.get(replica.id, _NONE)
        values: dict[str, float] = {
            "state": _WORST_FIRST.index(replica.state),
            "in-flight": -(replica.in_flight or 0),
            "req/s": -rates.request_rate,
            "p99": -(rates.p99_s or 0.0),
            "errors": -rates.error_share,
            "restarts": -replica.restarts,
        }
        return values.get(view.sort, 0.0)

    return sorted(found, key=key)  # stable: by pool and number where equal


def pressed(view: View, key: str, board: Board) -> View:
    """After a key: a character, or "up", "down", "page up", "page down", "home", "end", "escape", "enter",
    "backspace". Of "d" and "l" only the page: who holds the terminal fills in its lines."""
    if view.typing:
        return _typed(view, key)
    if key == "q":
        return replace(view, quit=True)
    if view.page:
        return _on_page(view, key)
    pages: dict[str, Page] = {"?": "help", "h": "help", "d": "describe", "l": "logs"}
    rows = len(chosen(board, view))
    if key in ("d", "l") and not rows:
        return view
    if key in pages:
        return replace(view, page=pages[key], scroll=0, title="", lines=())
    if key == "s":
        return replace(view, sort=SORTS[(SORTS.index(view.sort) + 1) % len(SORTS)], selected=0)
    if key == "/":
        return replace(view, typing=True, filter="", selected=0)
    if key == "escape":
        return replace(view, filter="", selected=0)
    at = _moved(min(view.selected, max(rows - 1, 0)), key, 10, rows - 1)
    return replace(view, selected=at)


def _typed(view: View, key: str) -> View:
    if key == "enter":
        return replace(view, typing=False)
    if key == "escape":
        return replace(view, typing=False, filter="")
    if key == "backspace":
        return replace(view, filter=view.filter[:-1], selected=0)
    if len(key) == 1 and key.isprintable():
        return replace(view, filter=view.filter + key, selected=0)
    return view


def _on_page(view: View, key: str) -> View:
    toggles = {"?": "help", "h": "help", "d": "describe", "l": "logs"}
    if key == "escape" or toggles.get(key) == view.page:
        return replace(view, page="", scroll=0, title="", lines=())
    room = max((view.height or 24) - 2, 1)
    return replace(view, scroll=_moved(view.scroll, key, room, len(view.lines) - room))


def _moved(at: int, key: str, page: int, last: int) -> int:
    steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -page, "page down": page}
    if key in ("home", "end"):
        return 0 if key == "home" else max(last, 0)
    return max(min(at + steps.get(key, 0), last), 0)

"""`dashboard`: the board, again and again, on a terminal that is given back as it was."""

import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from time import monotonic, sleep

from tritonfleet.cli import fleet, logfiles
from tritonfleet.cli.board import HELP, render, selected_replica, waiting_picture
from tritonfleet.cli.board_view import View, pressed
from tritonfleet.cli.client import UnreachableError
from tritonfleet.cli.describe import describe_replica
from tritonfleet.cli.exits import CliError
from tritonfleet.cli.keyboard import raw_keys
from tritonfleet.cli.terminal import Output, Settings, console, say, show, show_data, show_data_line
from tritonfleet.core.board import Board

PAPER_WIDTH = 140  # where stdout is no terminal and COLUMNS does not say
PAGE_LINES = 400
SHOWN_EVENTS = 15


def dashboard(settings: Settings, interval_s: float | None, *, once: bool, ascii_only: bool) -> None:
    """Live on a terminal; else, or with ``once``, one picture. As JSON: one object, or one a line."""
    target = fleet.locate(settings)
    ascii_only = ascii_only or "utf" not in (sys.stdout.encoding or "").lower()
    if settings.output is Output.JSON and interval_s is not None and not once:
        _stream(settings, target, interval_s)
    elif settings.output in (Output.JSON, Output.YAML):
        with target.client() as client:
            show_data(client.board(), settings.output)
    elif once or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        with target.client() as client:
            board = client.board()
        sized = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
        width = console(sys.stdout).width if sized else PAPER_WIDTH
        show(render(board, View(width, None, ascii_only)))
    else:
        _Live(settings, target, interval_s or 1.0, ascii_only=ascii_only).run()


def _stream(settings: Settings, target: fleet.Target, interval_s: float) -> None:
    """One JSON object a line, for ever. The controller may come and go, but must be there at first."""
    with target.client() as client:
        show_data_line(client.board())
        while True:
            sleep(interval_s)
            try:
                show_data_line(client.board())
            except UnreachableError as error:
                say(settings, str(error))


class _Reader(threading.Thread):
    """Asks the controller in a thread of its own: a slow answer must not keep a key waiting.

    ``board`` and ``trouble`` are replaced whole, never changed; a byte in the pipe says that one was.
    """

    def __init__(self, target: fleet.Target, interval_s: float) -> None:
        super().__init__(name="board", daemon=True)
        self._target, self._interval_s = target, interval_s
        self._ended = threading.Event()
        self.news, self._told = os.pipe()
        self.board: Board | None = None
        self.read_at = monotonic()
        self.trouble = ""

    def run(self) -> None:
        with self._target.client() as client:
            while not self._ended.is_set():
                try:
                    self.board, self.read_at, self.trouble = client.board(), monotonic(), ""
                except UnreachableError as error:  # its path would not fit a line
                    self.trouble = f"the controller does not answer ({error.why})"
                except CliError as error:
                    self.trouble = str(error)
                os.write(self._told, b"!")
                self._ended.wait(self._interval_s)

    def stop(self) -> None:
        self._ended.set()
        self.join(2.0)
        if not self.is_alive():
            os.close(self.news)
            os.close(self._told)


class _Live:
    def __init__(
        self, settings: Settings, target: fleet.Target, interval_s: float, *, ascii_only: bool
    ) -> None:
        self._settings, self._target = settings, target
        self._console = console(sys.stdout)
        self._reader = _Reader(target, interval_s)
        self._view = View(ascii=ascii_only)
        self._began = monotonic()

    def run(self) -> None:
        """Until `q`. Ctrl-C and signals pass as exceptions; the terminal is as before whatever ends it."""
        with _screen(), raw_keys() as keys:
            self._reader.start()
            try:
                while not self._view.quit:
                    self._draw()
                    # A second at most: the age of the data grows, and the window may have been resized.
                    ready, _, _ = select.select([self._reader.news, *keys.sources], [], [], 1.0)
                    if self._reader.news in ready:
                        os.read(self._reader.news, 4096)
                    if keys.wakeups in ready:
                        keys.drain()
                    for key in keys.read() if keys.stdin in ready else ():
                        self._press(key)
            finally:
                self._reader.stop()

    def _press(self, key: str) -> None:
        board = self._reader.board
        if board is None:
            self._view = replace(self._view, quit=self._view.quit or key == "q")
            return
        before, self._view = self._view, pressed(self._view, key, board)
        if self._view.page and self._view.page != before.page:
            self._fill_page(board)

    def _fill_page(self, board: Board) -> None:
        view = self._view
        if view.page == "help":
            self._view = replace(view, title="Keys and columns", lines=HELP)
            return
        name = selected_replica(board, view)
        path = self._target.paths.logs / f"{name}.log"
        lines = logfiles.last_lines(path, PAGE_LINES)
        if view.page == "describe":
            found = next(replica for replica in board.snapshot.replicas if replica.id == name)
            mine = [event for event in board.events if event.subject == name][-SHOWN_EVENTS:]
            text = describe_replica(board.snapshot, found, mine, lines[-15:], str(path), view.width)
            self._view = replace(view, title=f"{name}, described", lines=tuple(text.plain.splitlines()))
            return
        room = max((view.height or 24) - 2, 1)
        shown = tuple(line.expandtabs() for line in lines) or (f"nothing logged yet in {path}",)
        self._view = replace(
            view, title=f"{name}, its log: {path}", lines=shown, scroll=max(len(shown) - room, 0)
        )

    def _draw(self) -> None:
        size = self._console.size
        data_age = monotonic() - self._reader.read_at
        self._view = replace(
            self._view,
            width=size.width,
            height=size.height,
            data_age_s=data_age,
            trouble=self._reader.trouble,
        )
        if self._reader.board is None:
            picture = waiting_picture(self._target.name, self._view, monotonic() - self._began)
        else:
            picture = render(self._reader.board, self._view)
        with self._console.capture() as captured:
            self._console.print(picture, end="", overflow="ignore", no_wrap=True)
        lines = captured.get().split("\n")
        # Written over what was there, each line cleared to its end only: a cleared screen would flicker.
        sys.stdout.write("\x1b[H" + "\x1b[K\r\n".join(lines) + "\x1b[K\x1b[J")
        sys.stdout.flush()


@contextmanager
def _screen() -> Iterator[None]:
    """The terminal's other screen, without a cursor."""
    sys.stdout.write("\x1b[?1049h\x1b[?25l\x1b[2J")
    sys.stdout.flush()
    try:
        yield
    finally:
        with suppress(OSError):  # the terminal is gone: nothing is left to restore
            sys.stdout.write("\x1b[?25h\x1b[?1049l")
            sys.stdout.flush()

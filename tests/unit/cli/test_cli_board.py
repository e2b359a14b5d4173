"""The dashboard's picture against golden text, its keys, and the terminal it gives back."""

import fcntl
import io
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest
from control_server import serve
from fleet_samples import NOW, autoscale_status, busy_snapshot, event, replica, snapshot
from rich.console import Console

from tritonfleet.cli import board_tables
from tritonfleet.cli.board import render, selected_replica
from tritonfleet.cli.board_marks import bar, sparkline
from tritonfleet.cli.board_view import View, chosen, pressed
from tritonfleet.cli.keyboard import decoded
from tritonfleet.controller.paths import FleetPaths
from tritonfleet.core.board import Board, Traffic, TrafficPoint, TrafficRates
from tritonfleet.core.model import DeviceKind, DeviceReading
from tritonfleet.core.wire import DeviceInfo

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _one_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_tables, "clock", lambda at: f"2027-01-15 08:00:{int(at - NOW):02}")


def board() -> Board:
    """Everything at once: a GPU, every state, errors, a queue, events."""
    gpu = DeviceReading(NOW - 1, 80 << 30, 60 << 30, 0.63, 61.0, 412.0, 0)
    devices = (
        DeviceInfo("GPU-1a2b3c4d-0000", DeviceKind.GPU, "H100", 80 << 30, gpu, ("main-0",)),
        DeviceInfo("GPU-9f8e7d6c-0000", DeviceKind.GPU, "H100", 80 << 30, DeviceReading(NOW, trouble="lost")),
    )
    points = tuple(TrafficPoint(NOW - 60 + 2 * i, i * 1.0, 0.0, 0.01, 0.02 + i / 1e3) for i in range(30))
    traffic = Traffic(
        2.0,
        points,
        TrafficRates(41.5, 0.5, 0.0123, 0.0456, 10.0),
        {"main-0": TrafficRates(41.0, 0.5, 0.0123, 0.0456, 10.0)},
        {"digits": TrafficRates(41.0, 0.5, 0.0123, 0.0456, 10.0)},
        3,
        {"digits": 3},
    )
    events = tuple(event(seq) for seq in range(1, 15))
    return Board(replace(busy_snapshot(), devices=devices), traffic, (autoscale_status(),), events)


def many() -> Board:
    return Board(snapshot(replicas=tuple(replica(f"main-{index}") for index in range(64))), Traffic(2.0))


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60)])
def test_it_looks_as_agreed(width: int, height: int) -> None:
    shown = render(board(), View(width, height)).plain
    lines = shown.split("\n")
    assert len(lines) == height
    assert max(len(line) for line in lines) <= width
    assert shown + "\n" == (GOLDEN / f"board_{width}x{height}.txt").read_text()


def test_in_ascii() -> None:
    shown = render(board(), View(80, 24, ascii=True)).plain
    assert shown.isascii()
    assert shown + "\n" == (GOLDEN / "board_ascii.txt").read_text()


def test_on_paper_all_is_there() -> None:
    shown = render(many(), View(140, None)).plain
    assert all(f"main-{index} " in shown for index in range(64))
    assert "quit" not in shown


def test_colour_is_blue_and_orange_and_can_be_without() -> None:
    for color, there in (("256", True), (None, False)):
        out = io.StringIO()
        console = Console(force_terminal=color is not None, color_system=color, width=120, file=out)  # type: ignore[arg-type] # parametrized
        console.print(render(board(), View(120, 40)))
        assert ("38;5;208" in out.getvalue()) is there
        assert ("\x1b" in out.getvalue()) is there
        assert not any(code in out.getvalue() for code in ("\x1b[31m", "\x1b[32m"))


@pytest.mark.parametrize("size", [(20, 5), (40, 10), (60, 15), (300, 100)])
def test_it_fits_any_terminal(size: tuple[int, int]) -> None:
    lines = render(board(), View(*size, trouble="gone")).plain.split("\n")
    assert len(lines) == size[1]
    assert max(len(line) for line in lines) <= size[0]


def test_a_controller_that_is_gone_is_told_with_the_age_of_the_data() -> None:
    shown = render(board(), View(120, 40, data_age_s=12, trouble="it does not answer")).plain
    assert "data 12s old" in shown
    assert "it does not answer; trying again" in shown


def test_the_selected_of_64_replicas_is_always_visible() -> None:
    view = View(80, 24)
    for key, name in (("down", "main-1"), ("page down", "main-11"), ("end", "main-63"), ("up", "main-62")):
        view = pressed(view, key, many())
        assert selected_replica(many(), view) == name
        assert f"▸{name} " in render(many(), view).plain
    assert "of 64" in render(many(), view).plain


def test_filter_and_sort() -> None:
    view = View()
    for key in ("/", "c", "r", "x", "backspace", "a", "enter"):
        view = pressed(view, key, board())
    assert (view.filter, view.typing) == ("cra", False)
    assert [one.id for one in chosen(board(), view)] == ["image-0"]
    view = pressed(pressed(view, "escape", board()), "s", board())
    assert view.sort == "state"
    assert [one.id for one in chosen(board(), view)][:2] == ["image-0", "main-4"]
    nothing = replace(view, filter="zzz")
    assert "no replica has 'zzz'" in render(board(), nothing).plain
    assert pressed(nothing, "d", board()) == nothing, "there is nothing to describe"


def test_pages_open_scroll_and_close() -> None:
    view = replace(pressed(View(), "l", board()), lines=tuple(f"line {i}" for i in range(99)), title="log")
    view = pressed(view, "page down", board())
    assert "line 22" in render(board(), view).plain
    assert pressed(view, "escape", board()).page == ""
    assert pressed(View(), "q", board()).quit
    assert "PgDn" in render(board(), pressed(View(), "?", board())).plain


def test_marks() -> None:
    assert sparkline([0.0, None, 1.0, 2.0], 5) == " ▁ ▅█"
    assert sparkline([], 3) == "   "
    assert bar(0.5, 4) == "██░░"


def test_keys_by_name() -> None:
    assert decoded(b"q\x1b[A\x1b[6~\x1b\r\x7f\x1b[99~") == [
        "q",
        "up",
        "page down",
        "escape",
        "enter",
        "backspace",
    ]


# ---------------------------------------------------------------- on a terminal


Terminal = tuple[int, int, "subprocess.Popen[bytes]"]


@contextmanager
def _dashboard(folder: Path) -> Iterator[Terminal]:
    """On a terminal of its own: the master's end, the slave's, the process."""
    environ = {**os.environ, "TRITONFLEET_STATE_DIR": str(folder), "TERM": "xterm", "PYTHONUTF8": "1"}
    words = [sys.executable, "-m", "tritonfleet.cli.main", "--fleet", "demo", "top", "--interval", "100ms"]
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        words, stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True
    )
    try:
        yield master, slave, process
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)


@contextmanager
def _controller(folder: Path) -> Iterator[None]:
    """Until the end of the block it answers: what comes after is a controller that has died."""
    with serve(FleetPaths.of("demo", {"TRITONFLEET_STATE_DIR": str(folder)}).control_socket) as control:
        control.snapshots, control.board = [snapshot()], board()
        yield


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with _controller(tmp_path), _dashboard(tmp_path) as found:
        _read_until(found[0], b"LAST EVENTS")
        yield found


def _read_until(descriptor: int, wanted: bytes) -> bytes:
    data, deadline = b"", monotonic() + 20
    while wanted not in data and monotonic() < deadline:
        if select.select([descriptor], [], [], 0.2)[0]:
            data += os.read(descriptor, 65536)
    assert wanted in data, data
    return data


@pytest.mark.parametrize(("how", "code"), [("q", 0), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_terminal_is_given_back(terminal: Terminal, how: str | signal.Signals, code: int) -> None:
    master, slave, process = terminal
    assert not termios.tcgetattr(slave)[3] & termios.ICANON
    if isinstance(how, str):
        os.write(master, how.encode())
    else:
        process.send_signal(how)
    _read_until(master, b"\x1b[?25h\x1b[?1049l")
    assert process.wait(10) == code
    assert termios.tcgetattr(slave)[3] & termios.ICANON
    assert termios.tcgetattr(slave)[3] & termios.ECHO


def test_a_controller_that_dies_is_told_and_its_last_words_stay(tmp_path: Path) -> None:
    """Whole pictures, of 24 lines each: every one begins at the terminal's upper left corner."""
    with _dashboard(tmp_path) as (master, _, process):
        _read_until(master, b"the controller does not answer (it is not running)")
        with _controller(tmp_path):
            _read_until(master, b"data current")
        told = _read_until(master, b"does not answer (it is not running); trying again")
        last = told[told.rindex(b"\x1b[H") :]
        picture = last + _read_until(master, b"q quit")
        assert b"main-0" in picture, "what it said last is still there"
        assert b"data" in picture
        with _controller(tmp_path):
            _read_until(master, b"data current")
        assert process.poll() is None


def test_one_object_a_line_whatever_becomes_of_the_controller(tmp_path: Path) -> None:
    environ = {**os.environ, "TRITONFLEET_STATE_DIR": str(tmp_path)}
    words = ["--fleet", "demo", "dashboard", "-o", "json", "--interval", "100ms"]
    with _controller(tmp_path):
        process = subprocess.Popen(
            [sys.executable, "-m", "tritonfleet.cli.main", *words],
            env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(3):
            assert json.loads(process.stdout.readline())["snapshot"]["fleet"] == "demo"
    try:
        assert "does not answer" in process.stderr.readline()
        with _controller(tmp_path):
            assert json.loads(process.stdout.readline())["traffic"]["waiting"] == 3
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
        assert process.returncode == 130
    finally:
        process.kill()
        process.communicate()


def test_a_reader_that_has_enough_ends_it_quietly(tmp_path: Path) -> None:
    command = (
        f"{sys.executable} -m tritonfleet.cli.main --fleet demo top -o json --interval 100ms | head -n 1"
    )
    with _controller(tmp_path):
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            env={**os.environ, "TRITONFLEET_STATE_DIR": str(tmp_path)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_without_a_controller_a_stream_does_not_begin(tmp_path: Path) -> None:
    environ = {**os.environ, "TRITONFLEET_STATE_DIR": str(tmp_path)}
    words = ["--fleet", "demo", "top", "-o", "json", "--interval", "1s"]
    done = subprocess.run(
        [sys.executable, "-m", "tritonfleet.cli.main", *words],
        env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (4, "")

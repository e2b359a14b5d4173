"""Keys of a terminal, one by one, and signals as exceptions; both as before when it is over."""

import os
import re
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_SEQUENCES = {
    "[A": "up", "[B": "down", "OA": "up", "OB": "down", "[5~": "page up", "[6~": "page down", "[H": "home",
    "[F": "end", "OH": "home", "OF": "end", "[1~": "home", "[4~": "end",
}  # fmt: skip
_PLAIN = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace", "\x1b": "escape"}
_KEY = re.compile(r"\x1b(\[[0-9;]*[A-Za-z~]|O[A-Za-z])|(.)", re.DOTALL)


def decoded(data: bytes) -> list[str]:
    """Characters and names of keys. An escape sequence comes in one read; one that is not known is no key."""
    keys = []
    for match in _KEY.finditer(data.decode(errors="ignore")):
        sequence, character = match.groups()
        key = _SEQUENCES.get(sequence, "") if sequence else _PLAIN.get(character, character)
        if key:
            keys.append(key)
    return keys


@dataclass(frozen=True, slots=True)
class Keys:
    """``stdin`` is None where that is no terminal; ``wakeups`` is readable after any signal."""

    stdin: int | None
    wakeups: int

    @property
    def sources(self) -> list[int]:
        return [self.wakeups] if self.stdin is None else [self.wakeups, self.stdin]

    def read(self) -> list[str]:
        """Call it when ``stdin`` is readable."""
        data = os.read(self.stdin, 1024) if self.stdin is not None else b""
        return decoded(data) if data else ["q"]  # the terminal hung up

    def drain(self) -> None:
        os.read(self.wakeups, 1024)


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextmanager
def raw_keys() -> Iterator[Keys]:
    """Keys without Enter and without echo. SIGTERM and SIGHUP raise SystemExit, so that `finally` runs;
    Ctrl-Z does nothing, for it would leave the terminal as it is now."""
    stdin = sys.stdin.fileno() if sys.stdin.isatty() else None
    before = termios.tcgetattr(stdin) if stdin is not None else None
    wakeups, told = os.pipe()
    os.set_blocking(told, False)
    handlers = {
        number: signal.signal(number, handler)
        for number, handler in (
            (signal.SIGTERM, _end),
            (signal.SIGHUP, _end),
            (signal.SIGTSTP, signal.SIG_IGN),
            (signal.SIGWINCH, lambda *_: None),  # only wakes: the size is asked for at every picture
        )
    }
    old_wakeup = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    try:
        if stdin is not None:
            tty.setcbreak(stdin)
        yield Keys(stdin, wakeups)
    finally:
        if stdin is not None and before is not None:
            termios.tcsetattr(stdin, termios.TCSADRAIN, before)
        signal.set_wakeup_fd(old_wakeup)
        for number, old in handlers.items():
            signal.signal(number, old)
        os.close(wakeups)
        os.close(told)

"""Where output goes: data to stdout, messages and progress to stderr.

Colour follows rich's rules: none unless a terminal, none with ``NO_COLOR`` or ``TERM=dumb``.
"""

import json
import os
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from rich.console import Console, Group
from rich.text import Text

from tritonfleet.cli import pulls, render
from tritonfleet.cli.exits import CliError
from tritonfleet.cli.waiting import changed
from tritonfleet.core.wire import FleetSnapshot, Replica, ReplicaState

if TYPE_CHECKING:
    from rich.live import Live


class Output(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class ProgressKind(StrEnum):
    AUTO = "auto"
    PLAIN = "plain"
    JSON = "json"
    QUIET = "quiet"


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options of one invocation."""

    file: Path | None = None  # None: tritonfleet.yaml here
    fleet: str = ""  # a running fleet by name, without its file
    output: Output = Output.TABLE
    quiet: bool = False
    verbose: bool = False
    progress: ProgressKind = ProgressKind.AUTO
    no_input: bool = False

    @property
    def interactive(self) -> bool:
        """Whether a question can be asked."""
        return not self.no_input and sys.stdin.isatty() and sys.stderr.isatty()


def console(stream: IO[str]) -> Console:
    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)


def width() -> int | None:
    """Columns to fit stdout into; None when it is a pipe or file and COLUMNS does not say otherwise."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return console(sys.stdout).width
    return None


def show(text: Text) -> None:
    """Data for a person, to stdout."""
    console(sys.stdout).print(text, soft_wrap=True)


def show_line(line: str) -> None:
    """One line as it is, to stdout, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def show_data(value: Any, output: Output) -> None:
    """Data for a program, to stdout: anything msgspec encodes."""
    import msgspec

    if output is Output.YAML:
        sys.stdout.write(msgspec.yaml.encode(msgspec.to_builtins(value)).decode())
    else:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
    sys.stdout.flush()


def show_data_line(value: Any) -> None:
    """One JSON object a line, flushed: for streams."""
    import msgspec

    show_line(msgspec.json.encode(value).decode())


def _note(body: dict[str, Any]) -> None:
    sys.stderr.write(json.dumps(body) + "\n")
    sys.stderr.flush()


def say(settings: Settings, message: str) -> None:
    """A message for a person, to stderr; `-q` silences it."""
    if settings.quiet:
        return
    if settings.progress is ProgressKind.JSON:
        _note({"message": message})
    else:
        console(sys.stderr).print(Text(message), soft_wrap=True)


def say_verbose(settings: Settings, message: str) -> None:
    if settings.verbose:
        say(settings, message)


def say_error(error: CliError, progress: ProgressKind = ProgressKind.AUTO) -> None:
    """A failure, to stderr, never silenced: the message, the lines that prove it, the remedy."""
    if progress is ProgressKind.JSON:
        body = {
            "error": str(error),
            "code": int(error.code),
            "hint": error.hint,
            "details": list(error.details),
        }
        _note(body)
        return
    text = Text().append("error: ", render.BROKEN).append(str(error))
    for line in error.details:
        text.append(f"\n  | {line}", "dim")
    if error.hint:
        text.append("\n  hint: ", "bold").append(error.hint.replace("\n", "\n        "))
    console(sys.stderr).print(text, soft_wrap=True)


def _live(on: Console) -> "Live":
    from rich.live import Live  # only a wait on a terminal needs it

    return Live(console=on, refresh_per_second=8, transient=True)


class Progress:
    """What a wait shows on stderr. A context manager.

    On a terminal a picture that is redrawn; otherwise one plain line, or one JSON object, per change of
    a replica, so that a log of it reads as a story.
    """

    def __init__(self, settings: Settings) -> None:
        self._kind = ProgressKind.QUIET if settings.quiet else settings.progress
        self._console = console(sys.stderr)
        self._live: Live | None = None
        self._before: dict[str, tuple[str, ReplicaState]] = {}
        self._layers: pulls.Seen = {}
        self._began = monotonic()
        if (
            self._kind is ProgressKind.AUTO
            and self._console.is_terminal
            and not self._console.is_dumb_terminal
        ):
            self._live = _live(self._console)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, snapshot: FleetSnapshot, waiting_for: str) -> None:
        news, gone, self._before = changed(self._before, snapshot)
        layers, self._layers = pulls.news(self._layers, snapshot.pulls)
        if self._live is not None:
            self._live.update(frame(snapshot, waiting_for, monotonic() - self._began, self._console.width))
        elif self._kind is ProgressKind.JSON:
            for replica in news:
                self._json(snapshot.at, replica.id, replica.state.value, replica.reason)
            for name in gone:
                self._json(snapshot.at, name, "gone", "")
            for image, layer in layers:
                _note(
                    {"at": round(snapshot.at, 3), "image": image, "layer": layer.id, "status": layer.status}
                )
        elif self._kind is not ProgressKind.QUIET:
            for replica in news:
                self._console.print(progress_line(replica, snapshot.at), soft_wrap=True)
            for name in gone:
                self._console.print(Text(f"  {name}  gone"), soft_wrap=True)
            for image, layer in layers:
                self._console.print(Text(pulls.plain(image, layer)), soft_wrap=True)

    def _json(self, at: float, replica: str, state: str, reason: str) -> None:
        body = {"at": round(at, 3), "replica": replica, "state": state, "reason": reason}
        _note(body)


def progress_line(replica: Replica, now: float) -> Text:
    state = render.state_cell(replica.state)
    line = Text("  ").append(replica.id, "bold").append("  ").append(f"{state.text:<12}", state.style)
    return line.append("  ").append(render.replica_reason(replica, now))


def frame(snapshot: FleetSnapshot, waiting_for: str, elapsed_s: float, width: int) -> Group:
    """One picture of a wait that is under way."""
    title = Text().append(f"{snapshot.fleet} ", "bold").append(render.age(elapsed_s), "dim")
    title.append("  waiting for " + waiting_for if waiting_for else "  done")
    lines = [progress_line(replica, snapshot.at) for replica in snapshot.replicas]
    lines += pulls.picture(snapshot.pulls)
    for line in (title, *lines):
        line.truncate(max(width - 1, 20), overflow="ellipsis")
    return Group(title, *lines)

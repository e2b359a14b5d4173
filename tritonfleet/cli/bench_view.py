"""What `bench` shows: the progress of a load, and the report. `report` is pure."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from tritonfleet.bench import run
from tritonfleet.bench.results import Level, shares
from tritonfleet.cli import render
from tritonfleet.cli.board_marks import bar
from tritonfleet.cli.layout import Cell, Column, Row, table
from tritonfleet.cli.terminal import ProgressKind, Settings, console, say

KINDS = {"concurrency": "CONCURRENCY", "request_rate": "RATE ASKED", "request_intervals": "RATE ASKED"}
SERVER = ("QUEUE", "COMPUTE", "BATCH")
WIDEST_BAR = 48
BEHIND = 0.95  # of the rate that was asked for


class Meter:
    """A bar on stderr if that is a terminal, else one line for each finished load. A context manager."""

    def __init__(self, settings: Settings, levels: int) -> None:
        self._settings, self._levels, self._done = settings, levels, 0
        self._last: run.Progress | None = None
        stderr = console(sys.stderr)
        fancy = settings.progress is ProgressKind.AUTO and stderr.is_terminal and not stderr.is_dumb_terminal
        self._bar = None
        if fancy and not settings.quiet:
            columns = (BarColumn(24), TextColumn("{task.description}"), TimeElapsedColumn())
            self._bar = Progress(*columns, console=stderr, transient=True)
            self._task = self._bar.add_task("connecting", total=1.0)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, progress: run.Progress) -> None:
        self._last = progress
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=(self._done + progress.share) / self._levels,
                description=_doing(progress),
            )

    def finished(self) -> None:
        self._done += 1
        if self._bar is None and self._levels > 1 and self._last is not None:
            say(self._settings, f"{self._done} of {self._levels}: {_load(self._last.load)} measured")


def _load(load: run.Load) -> str:
    return f"{run.KINDS[type(load)].replace('_', ' ')} {load.value:g}"


def _doing(progress: run.Progress) -> str:
    words = [_load(progress.load), progress.phase, f"{progress.rate:.0f}/s"]
    if progress.latency_s is not None:
        words.append(latency(progress.latency_s))
    if progress.failed:
        words.append(f"{progress.failed} failed")
    return "  ".join(word for word in words if word)


def latency(seconds: float | None) -> str:
    """Three figures: ``0.412 ms``, ``4.12 ms``, ``41.2 ms``, ``412 ms``, ``4.12 s``."""
    if seconds is None:
        return "-"
    value, unit = (seconds, "s") if seconds >= 1 else (seconds * 1000, "ms")
    digits = 3 if value < 0.9995 else 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def report(model: str, address: str, levels: Sequence[Level], columns: int | None) -> Text:
    """The table, a picture, and what there is to say of single levels."""
    text = Text().append(model, "bold").append(f" on {address}\n\n")
    if not levels:
        return text.append("nothing was measured")
    text.append(_table(levels, columns))
    text.append("\n\n").append(_picture(levels, columns))
    for level in levels:
        remarks = _remarks(level)
        if remarks:
            title = f"{level.kind.replace('_', ' ')} {level.value:g}"
            text.append(f"\n\n{title}", "bold")
            for remark in remarks:
                text.append("\n  ").append(remark)
    return text


def _table(levels: Sequence[Level], columns: int | None) -> Text:
    """All figures, or as many as fit: the least asked for are left out first."""
    found = sorted(
        {percent for level in levels for percent in level.percentiles_s} or {"50", "99"}, key=float
    )
    titles = [
        KINDS[levels[0].kind],
        "REQ/S",
        "MEAN",
        *(f"P{percent}" for percent in found),
        *SERVER,
        "FAILED",
    ]
    titles.append("WINDOWS")
    rows = [_cells(level, found) for level in levels]
    for leave_out in ("", "BATCH", "P95", "COMPUTE", "QUEUE", "P90", "P99.9", "MEAN"):
        if leave_out in titles:
            at = titles.index(leave_out)
            del titles[at]
            for row in rows:
                del row[at]
        heads = tuple(Column(title, right=title != "WINDOWS") for title in titles)
        text = table(heads, [Row(tuple(row)) for row in rows], columns, reason="")
        if columns is None or max(map(len, text.plain.splitlines())) <= columns:
            break
    return text


def _cells(level: Level, percents: Sequence[str]) -> list[Cell]:
    server = level.server
    failed = level.failed + level.unanswered
    return [
        Cell(f"{level.value:g}", "bold"),
        Cell(f"{level.rate:.1f}" if level.rate < 100 else f"{level.rate:.0f}"),
        Cell(latency(level.mean_s)),
        *(Cell(latency(level.percentiles_s.get(percent))) for percent in percents),
        Cell(latency(server.queue_s) if server is not None else "-"),
        Cell(latency(server.compute_s) if server is not None else "-"),
        Cell(f"{server.batch:.1f}" if server is not None else "-"),
        Cell(f"{failed}", render.BROKEN if failed else ""),
        Cell(_verdict(level), "" if level.stable else "dim"),
    ]


def _verdict(level: Level) -> str:
    if level.stable:
        return "stable"
    return "not stable" if len(level.windows) > 1 else "one"


def _picture(levels: Sequence[Level], columns: int | None) -> Text:
    """One level: its latencies' distribution; several: rate and p99 side by side."""
    if len(levels) == 1:
        return _distribution(levels[0], columns)
    room = max(10, min(WIDEST_BAR // 2, ((columns or 100) - 44) // 2))
    most = max(level.rate for level in levels) or 1.0
    tails = [level.percentiles_s.get("99", 0.0) for level in levels]
    slowest = max(tails) or 1.0
    text = Text().append(f"{'':>8}  {'answers/s':<{room + 8}}  p99", "dim")
    for level, tail in zip(levels, tails, strict=True):
        text.append(f"\n{level.value:>8g}  ", "bold")
        text.append(f"{bar(level.rate / most, room)} {level.rate:<7.0f}  ")
        text.append(f"{bar(tail / slowest, room)} {latency(tail or None)}")
    return text


def _distribution(level: Level, columns: int | None) -> Text:
    bins = [(edge, count) for edge, count in level.histogram]
    if not bins:
        return Text("no request was answered with OK")
    while len(bins) > 2 and bins[-1][1] == 0:
        bins.pop()
    room = max(10, min(WIDEST_BAR, (columns or 80) - 34))
    most = max(count for _, count in bins)
    below = 0
    text = Text().append(f"{'answered within':>16}  {'answers':>8}   share", "dim")
    for index, (edge, count) in enumerate(bins):
        below += count
        if count == 0:  # a gap between few slow answers and the rest is one line
            if bins[index - 1][1]:
                text.append(f"\n{'…':>16}")
            continue
        filled = "█" * round(count / most * room) or "▏"
        text.append(f"\n{latency(edge):>16}  {count:>8}  {below / level.requests * 100:5.1f} %  {filled}")
    return text


def _remarks(level: Level) -> list[Text]:
    found = [Text(f"{level.requests} answers in {level.seconds:.1f} s; {level.reason}")]
    if level.kind != "concurrency" and 0 < level.rate < level.value * BEHIND and not level.interrupted:
        found.append(
            Text(
                f"the server answers {level.rate:.0f}/s of {level.value:g}/s: "
                "latency grows for as long as the load lasts"
            )
        )
    for name, count in sorted(level.failures.items()):
        found.append(
            Text().append(f"{count} × {name}", render.BROKEN).append(f": {level.failure_texts.get(name, '')}")
        )
    if level.unanswered:
        found.append(Text(f"{level.unanswered} not answered within 5 s after the end", render.BROKEN))
    if level.replicas:
        parts = ", ".join(
            f"{name} {count} ({share * 100:.0f} %)" for name, count, share in shares(level.replicas)
        )
        how = " by Triton's statistics, warm-up included" if level.replicas_by == "statistics" else ""
        found.append(Text(f"replicas: {parts}{how}"))
    client = level.client
    words = [f"client: {client.cpu * 100:.0f} % of a core"]
    if client.late_p99_s is not None:
        words.append(f"99 % of the requests left within {latency(client.late_p99_s)} of their time")
    if client.queued_most:
        words.append(f"up to {client.queued_most} waited here for a stream")
    found.append(Text("; ".join(words)))
    if client.limit:
        found.append(Text(f"the client may be what was measured: {client.limit}", render.BROKEN))
    return found

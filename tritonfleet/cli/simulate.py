"""`simulate`: what a pool would have done with a load, in virtual time."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path

from rich.text import Text

from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.layout import Cell, Column, Row, table
from tritonfleet.cli.names import parse_duration
from tritonfleet.cli.terminal import Output, Settings, show, show_data, show_line, width
from tritonfleet.core.signals import time_shown
from tritonfleet.simulate.aggregate import aggregate
from tritonfleet.simulate.choose import scaler_named
from tritonfleet.simulate.engine import simulate
from tritonfleet.simulate.flow import Flow, flow_of, generated_flow
from tritonfleet.simulate.plot import NoPlotterError, draw
from tritonfleet.simulate.result import Point, Result
from tritonfleet.simulate.scenario import Scenario
from tritonfleet.simulate.workload import Request, generated, read_trace

BLOCKS = " ▁▂▃▄▅▆▇█"
_COLUMNS = (
    Column("SCALER"),
    Column("REQUESTS", right=True),
    Column("IN TIME", right=True),
    Column("REFUSED", right=True),
    Column("P50", right=True),
    Column("P99", right=True),
    Column("REPLICA-H", right=True),
    Column("PEAK", right=True),
    Column("ACTIONS", right=True),
    Column("REVERSALS", right=True),
)


def run(
    settings: Settings, scenario: Mapping[str, object], scalers: Sequence[str], load: "Load",
    *, aggregated: bool = False, plot: Path | None = None,
) -> None:  # fmt: skip
    """Raises CliError (usage) for what cannot be simulated, or drawn."""
    try:
        pool = Scenario(**scenario)  # type: ignore[arg-type] # the options of the command, by the fields' names
        chosen = [scaler_named(text, pool) for text in scalers]
        if aggregated:
            flow = load.flow(pool.seed)
            results = [aggregate(pool, flow, scaler) for scaler in chosen]
        else:
            requests = load.requests(pool.seed)
            results = [simulate(pool, requests, scaler) for scaler in chosen]
        if plot is not None:
            draw(list(zip(scalers, results, strict=True)), plot)
    except (ValueError, OSError) as error:
        raise CliError(ExitCode.USAGE, str(error), hint="tritonfleet simulate --help") from None
    except NoPlotterError as error:
        raise CliError(ExitCode.USAGE, str(error), hint="pip install 'tritonfleet[plot]'") from None
    if settings.output in (Output.JSON, Output.YAML):
        show_data(results, settings.output)
    elif settings.output is Output.NAME:
        for result in results:
            show_line(result.scaler)
    else:
        rows = [_row(text, result) for text, result in zip(scalers, results, strict=True)]
        show(table(_COLUMNS, rows, width(), reason=""))
        if pool.mtbf_s is not None or pool.kills_s:
            for text, result in zip(scalers, results, strict=True):
                show(Text(f"{text}: {result.failures} replicas died, {result.resent} requests sent again"))
        for text, result in zip(scalers, results, strict=True):
            show(Text("\n").append(timeline(text, result, (width() or 100) - 30)))


class Load:
    """What is asked: ``trace`` with ``costs`` (``COLUMN=DURATION``, for each unit), or a generated shape."""

    def __init__(
        self, shape: str, rate: float, duration_s: float, service_s: float, sigma: float,
        trace: Path | None = None, costs: Sequence[str] = (), faster: float = 1.0,
    ) -> None:  # fmt: skip
        self._generated = (shape, rate, duration_s, service_s, sigma)
        self._trace, self._costs, self._faster = trace, costs, faster

    def flow(self, seed: int) -> Flow:
        return generated_flow(*self._generated) if self._trace is None else flow_of(self.requests(seed))

    def requests(self, seed: int) -> list[Request]:
        if self._trace is None:
            return generated(*self._generated, seed)
        costs = {}
        for text in self._costs:
            name, _, value = text.rpartition("=")
            costs[name] = parse_duration(value, "--cost")
        return read_trace(self._trace, costs, self._faster)


def _row(text: str, result: Result) -> Row:
    cells = (
        Cell(text, "bold"),
        Cell(f"{result.requests}"),
        Cell(f"{(1 - result.missed_share) * 100:.2f} %"),
        Cell(f"{result.refused}"),
        Cell(time_shown(result.p50_s)),
        Cell(time_shown(result.p99_s)),
        Cell(f"{result.replica_hours:.2f}"),
        Cell(f"{result.peak_replicas}"),
        Cell(f"{result.scale_actions}"),
        Cell(f"{result.reversals}"),
    )
    return Row(cells, "")


def timeline(name: str, result: Result, columns: int) -> str:
    """Load, replicas and p99 over time, one line each, with the largest value beside it."""
    points = result.timeline
    if not points:
        return f"{name}: too short for a time line"
    slices = _slices(points, max(columns, 20))
    rates = [sum(point.rate for point in part) / len(part) for part in slices]
    sizes = [max(point.ready for point in part) for part in slices]
    tails = [max((point.p99_s or 0.0 for point in part), default=0.0) for part in slices]
    lines = [
        f"{name}, {result.duration_s / 60:.0f} min from left to right; full height is the largest value",
        f"  requests  {_bars(rates)}  {max(rates):.1f}/s",
        f"  replicas  {_bars(sizes)}  {max(sizes)} ready",
        f"  p99       {_bars(tails)}  {time_shown(max(tails))}, {time_shown(result.slo_s)} allowed",
    ]
    return "\n".join(lines)


def _slices(points: Sequence[Point], columns: int) -> list[Sequence[Point]]:
    count = min(columns, len(points))
    edges = [len(points) * index // count for index in range(count + 1)]
    return [points[edges[index] : edges[index + 1]] for index in range(count)]


def _bars(values: Sequence[float]) -> str:
    most = max(values) or 1.0
    return "".join(BLOCKS[ceil(value * 8 / most)] for value in values)

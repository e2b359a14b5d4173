"""Simulations as a picture: load, replicas and p99 over time, one line for each scaler. Needs matplotlib, the
extra ``plot``."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from tritonfleet.simulate.result import Result

COLOURS = ("#2166ac", "#e08214", "#1b7837", "#b2182b", "#762a83", "#555555")


class NoPlotterError(Exception):
    """matplotlib is not installed."""


def draw(named: Sequence[tuple[str, Result]], path: Path) -> None:
    """The results by name, at least one, to ``path``, whose ending says the format.

    Raises NoPlotterError; OSError where it cannot be written; ValueError for a format that there is not."""
    if importlib.util.find_spec("matplotlib") is None:
        raise NoPlotterError("matplotlib is not installed")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    load, sizes, tail = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": (2, 3, 3)})
    slo_s, duration_s = named[0][1].slo_s, max(result.duration_s for _, result in named)
    unit_s, unit = (3600.0, "h") if duration_s >= 2 * 3600 else (60.0, "min")
    points = named[0][1].timeline
    load.fill_between(
        [point.at_s / unit_s for point in points], [point.rate for point in points],
        color="#888888", alpha=0.4, linewidth=0, step="pre",
    )  # fmt: skip
    for index, (name, result) in enumerate(named):
        colour = COLOURS[index % len(COLOURS)]
        at = [point.at_s / unit_s for point in result.timeline]
        said = f"{name}: {1 - result.missed_share:.2%} in time, {result.replica_hours:.1f} replica-hours"
        sizes.step(at, [point.ready for point in result.timeline], where="pre", color=colour, label=said)
        known = [(when, point.p99_s) for when, point in zip(at, result.timeline, strict=True) if point.p99_s]
        tail.plot([when for when, _ in known], [p99_s for _, p99_s in known], color=colour, linewidth=1)
    tail.axhline(slo_s, color="#222222", linestyle="--", linewidth=1, label=f"{slo_s:g} s allowed")
    load.set(ylabel="requests/s", ylim=(0, None))
    sizes.set(ylabel="replicas ready", ylim=(0, None))
    tail.set(ylabel="p99, s", xlabel=unit, yscale="log")
    tail.yaxis.set_major_formatter("{x:g}")
    for axis in (load, sizes, tail):
        axis.grid(visible=True, color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlim(0, duration_s / unit_s)
    sizes.legend(loc="best", frameon=False)
    tail.legend(loc="best", frameon=False)
    figure.savefig(path, dpi=120)

"""The samples of `tail.py` → percentiles, tables, a plot."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from statistics import mean, median

PERCENTS = (50.0, 95.0, 99.0, 99.9)
WARM_UP = 0.1  # of the requests of a run: queues fill
BAR = 52  # characters


@dataclass(frozen=True)
class Run:
    """One target, one workload. Latencies in seconds, in order of arrival."""

    target: str
    sizes: str
    load: float
    seed: int
    latencies_s: list[float]

    def counted(self) -> list[float]:
        return self.latencies_s[int(len(self.latencies_s) * WARM_UP) :]


def percentile(latencies: Sequence[float], percent: float) -> float:
    """Nearest rank."""
    ranked = sorted(latencies)
    return ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))]


@dataclass(frozen=True)
class Row:
    """One target under one kind of load: medians over the seeds, in seconds; and its p99 over another's, as
    the median over the seeds of the ratio within one seed."""

    target: str
    mean_s: float
    percentiles_s: tuple[float, ...]
    p99_over: dict[str, float]


def rows(runs: Sequence[Run], references: Sequence[str]) -> list[Row]:
    """``runs`` of one kind of load. One row per target, in the order in which they first come."""
    p99 = {(run.target, run.seed): percentile(run.counted(), 99) for run in runs}
    targets = list(dict.fromkeys(run.target for run in runs))
    found = []
    for target in targets:
        own = [run for run in runs if run.target == target]
        over = {
            other: median(p99[target, run.seed] / p99[other, run.seed] for run in own)
            for other in references
            if all((other, run.seed) in p99 for run in own)
        }
        levels = tuple(median(percentile(run.counted(), percent) for run in own) for percent in PERCENTS)
        found.append(Row(target, median(mean(run.counted()) for run in own), levels, over))
    return found


def groups(runs: Sequence[Run]) -> dict[tuple[str, float], list[Run]]:
    """By (sizes, load)."""
    found: dict[tuple[str, float], list[Run]] = {}
    for run in runs:
        found.setdefault((run.sizes, run.load), []).append(run)
    return found


def table(runs: Sequence[Run], references: Sequence[str]) -> str:
    """One block for each kind of load; times in milliseconds."""
    blocks = []
    for (sizes, load), own in groups(runs).items():
        found = rows(own, references)
        shown = [name for name in references if any(name in row.p99_over for row in found)]
        heads = "".join(f"{f'p{percent:g}':>9}" for percent in PERCENTS)
        over = "".join(f"{f'p99/{name}':>{len(name) + 7}}" for name in shown)
        lines = [f"{sizes + f' {load:g}':24}{'mean':>9}{heads}{over}"]
        for row in found:
            times = "".join(f"{seconds * 1e3:9.1f}" for seconds in (row.mean_s, *row.percentiles_s))
            ratios = "".join(
                f"{f'{row.p99_over[name]:.2f}' if name in row.p99_over else '-':>{len(name) + 7}}"
                for name in shown
            )
            lines.append(f"{row.target:24}{times}{ratios}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def text_plot(runs: Sequence[Run]) -> str:
    """p50 `|`, p95 `+`, p99 `#`, p99.9 `>` of each target on a logarithmic axis that all share."""
    found = {key: rows(own, ()) for key, own in groups(runs).items()}
    times = [seconds for block in found.values() for row in block for seconds in row.percentiles_s]
    low, high = log10(min(times)), log10(max(times))
    scale = (BAR - 1) / max(high - low, 0.01)
    axis = f"{10**low * 1e3:.0f} ms"
    lines = [
        "| p50   + p95   # p99   > p99.9",
        f"{'':24}{axis}{f'{10**high * 1e3:.0f} ms':>{BAR - len(axis)}}",
    ]
    for (sizes, load), block in found.items():
        lines.append(f"{sizes} {load:g}")
        for row in block:
            bar = [" "] * BAR
            columns = [round((log10(seconds) - low) * scale) for seconds in row.percentiles_s]
            for at in range(columns[0], columns[-1]):
                bar[at] = "-"
            for at, mark in zip(columns, "|+#>", strict=True):
                bar[at] = mark
            lines.append(f"{'  ' + row.target:24}{''.join(bar).rstrip()}")
    return "\n".join(lines)


def png(runs: Sequence[Run], path: Path) -> bool:
    """Write the tails as a picture, if matplotlib is installed: the share of requests slower than x."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    found = groups(runs)
    columns = min(len(found), 3)
    rows = -(-len(found) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(6 * columns, 4.5 * rows), squeeze=False)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    for axis, ((sizes, load), own) in zip(axes.flat, found.items(), strict=False):  # a row may be longer
        for target in dict.fromkeys(run.target for run in own):
            ranked = sorted(latency * 1e3 for run in own if run.target == target for latency in run.counted())
            shares = [1 - index / len(ranked) for index in range(len(ranked))]
            axis.plot(ranked, shares, label=target, linewidth=2 if "least_work" in target else 1)
        axis.set(xscale="log", yscale="log", ylim=(5e-4, 1), xlabel="latency, ms")
        axis.set_title(f"{sizes} sizes, load {load:g}")
        axis.grid(visible=True, which="both", alpha=0.2)
    axes[0][0].set_ylabel("share of requests that take longer")
    axes.flat[len(found) - 1].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    return True

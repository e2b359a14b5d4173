"""`bench --plot`: the levels as a picture, by matplotlib (extra `plot`)."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from tritonfleet.bench.results import Level


def missing() -> str:
    """Why nothing can be drawn; "" if it can."""
    return "" if importlib.util.find_spec("matplotlib") else "matplotlib is not installed"


def draw(path: Path, model: str, levels: Sequence[Level]) -> None:
    """Latency by percentile against answers per second, or for one level its distribution."""
    from matplotlib.figure import Figure  # no pyplot: nothing global, no window

    shown = [level for level in levels if level.requests]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    if len(shown) > 1:
        for percent in ("50", "90", "99"):
            rates = [level.rate for level in shown]
            axes.plot(
                rates,
                [level.percentiles_s[percent] * 1e3 for level in shown],
                marker="o",
                label=f"p{percent}",
            )
        for level in shown:
            point = (level.rate, level.percentiles_s["99"] * 1e3)
            axes.annotate(
                f"{level.value:g}", point, textcoords="offset points", xytext=(4, 4), fontsize="small"
            )
        axes.set(xlabel="answers per second", ylabel="latency, ms", xlim=(0, None), ylim=(0, None))
        axes.set_title(f"{model}, by {shown[0].kind.replace('_', ' ')}")
        axes.legend()
    else:
        [level] = shown
        edges = [edge * 1e3 for edge, _ in level.histogram]
        widths = [
            edge - before
            for edge, before in zip(edges, [edges[0] * edges[0] / edges[1], *edges], strict=False)
        ]
        axes.bar(
            edges, [count for _, count in level.histogram], width=[-size for size in widths], align="edge"
        )
        axes.set(xscale="log", xlabel="latency, ms", ylabel="answers")
        axes.set_title(f"{model}, {level.kind.replace('_', ' ')} {level.value:g}: {level.rate:.0f} answers/s")
    axes.grid(visible=True, alpha=0.2)
    figure.savefig(path, dpi=120)

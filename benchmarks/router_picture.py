"""The medians of benchmarks/router.py as bars, one panel a figure; needs matplotlib."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

COLUMNS = 3
OWN, OTHERS, DIRECT = "#76b900", "#9aa5b1", "#d5dbe1"


def draw(document: dict[str, Any], path: Path) -> bool:
    """Write the picture; False without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figures = [one for one in document["figures"] if one["medians"]]
    rows = -(-len(figures) // COLUMNS)
    canvas, panels = pyplot.subplots(rows, COLUMNS, figsize=(4.4 * COLUMNS, 2.1 * rows), squeeze=False)
    for panel in panels.flat[len(figures) :]:
        panel.set_axis_off()
    for panel, one in zip(panels.flat, figures, strict=False):
        names = list(reversed(one["medians"]))
        values = [one["medians"][name] for name in names]
        colours = [
            {"tritonfleet": OWN, "2 workers": OWN, "direct": DIRECT}.get(name, OTHERS) for name in names
        ]
        bars = panel.barh(names, values, color=colours)
        panel.bar_label(bars, fmt=_shown, padding=3)
        better = "more is better" if one["unit"] in ("MB/s", "/s") else "less is better"
        panel.set_title(f"{one['title']}, {one['unit']}\n({better})", fontsize=9)
        panel.margins(x=0.2)
        panel.set_xticks([])
        panel.spines[["top", "right", "bottom"]].set_visible(False)
    about = document["machine"]
    canvas.text(
        0.5,
        0.005,
        f"{about['cpu']}, {about['cores']} cores; medians; each proxy one worker; 2 Tritons behind them",
        ha="center",
        fontsize=8,
        color="#666666",
    )
    canvas.tight_layout(rect=(0, 0.02, 1, 1))
    canvas.savefig(path, dpi=110)
    return True


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


if __name__ == "__main__":
    import json

    sys.exit(
        0 if draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])) else "matplotlib is absent"
    )

"""Pictures of a fleet's run: load, replicas and p99 over time, with what was decided; alone, or beside its
simulation. Needs matplotlib."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fleet_run import Record, binned, quantile

from tritonfleet.simulate.result import Result

INK, BLUE, ORANGE, RED, GREY = "#222222", "#2166ac", "#e08214", "#b2182b", "#888888"
Lost = tuple[float, float]  # from, to: seconds
Line = tuple[Sequence[float], Sequence[float]]  # x, y


def save(drawn: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=120)


def figure(title: str) -> Any:
    """(figure, its three axes), or None where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(11, 8.5), layout="constrained")
    axes = drawn.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": (2, 3, 3)})
    drawn.suptitle(title, x=0.02, ha="left", fontsize=13, fontweight="bold", color=INK)
    for axis in axes:
        axis.grid(visible=True, color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0)
    axes[2].set_xlabel("seconds from the first request")
    return drawn, axes


def load_line(found: Record, bin_s: float) -> Line:
    counts = [len(one) / bin_s for one in binned(found.due_s, found.latencies_s, bin_s)]
    return [index * bin_s for index in range(len(counts))], counts


def tail_line(due_s: Sequence[float], latencies_s: Sequence[float], bin_s: float, share: float) -> Line:
    """A quantile per bin, at the bin's middle; bins without requests are left out."""
    bins = binned(due_s, latencies_s, bin_s)
    known = [(index, one) for index, one in enumerate(bins) if one]
    return [(index + 0.5) * bin_s for index, _ in known], [quantile(one, share) for _, one in known]


def draw(found: Record, allowed_s: float, bin_s: float, lost: Sequence[Lost], path: Path) -> bool:
    """One run, written to ``path``; False where matplotlib is not installed."""
    made = figure("A real fleet under a load that steps 1× → 6× → 1×")
    if made is None:
        return False
    drawn, (load, sizes, tail) = made
    draw_load(found, load, bin_s)
    at = [one.at_s for one in found.samples]
    sizes.fill_between(
        at,
        [one.ready for one in found.samples],
        step="post",
        color=BLUE,
        alpha=0.25,
        linewidth=0,
        label="ready",
    )
    sizes.step(
        at, [one.desired for one in found.samples], where="post", color=INK, linewidth=1.5, label="ordered"
    )
    top = max(one.desired for one in found.samples)
    sizes.set(ylabel="replicas", ylim=(0, top + 2), yticks=range(top + 2))
    sizes.legend(loc="upper right", ncols=2, frameon=False)
    decisions(found, sizes)
    for share, colour, width in ((0.5, GREY, 1.2), (0.99, RED, 1.8)):
        tail.plot(
            *tail_line(found.due_s, found.latencies_s, bin_s, share),
            color=colour, linewidth=width, label=f"p{share * 100:.0f}",
        )  # fmt: skip
    tail.axhline(allowed_s, color=INK, linestyle="--", linewidth=1, label=f"p99 allowed: {allowed_s:g} s")
    for start, end in lost:
        tail.axvspan(start, end, color=RED, alpha=0.12, linewidth=0)
    tail.set(ylabel="latency, s", yscale="log")
    tail.set_ylim(top=2 * max(tail.get_ylim()[1], allowed_s))  # room for the legend
    tail.yaxis.set_major_formatter("{x:g}")
    tail.legend(loc="upper right", ncols=3, frameon=False)
    for axis in (load, sizes, tail):
        axis.set_xlim(0, at[-1])
    save(drawn, path)
    return True


def draw_load(found: Record, axis: Any, bin_s: float) -> None:
    x, rates = load_line(found, bin_s)
    axis.fill_between(x, rates, step="post", color=BLUE, alpha=0.25, linewidth=0)
    axis.step(x, rates, where="post", color=BLUE, linewidth=1)
    axis.set(ylabel="requests/s", ylim=(0, None))


def draw_beside(
    found: Record, result: Result, simulated_s: Sequence[float], bin_s: float, path: Path
) -> bool:
    """A run and its simulation, written to ``path``; False where matplotlib is not installed."""
    made = figure("The real fleet, and what the simulator says of the same requests")
    if made is None:
        return False
    drawn, (load, sizes, tail) = made
    draw_load(found, load, bin_s)
    at = [one.at_s for one in found.samples]
    sizes.step(at, [one.ready for one in found.samples], where="post", color=BLUE, linewidth=2, label="real")
    points = [one for one in result.timeline if one.at_s <= at[-1]]
    sizes.step(
        [one.at_s for one in points], [one.ready for one in points],
        where="post", color=ORANGE, linewidth=2, linestyle="--", label="simulated",
    )  # fmt: skip
    sizes.set(ylabel="replicas ready", ylim=(0, None))
    sizes.legend(loc="upper right", ncols=2, frameon=False)
    for latencies, colour, style, name in (
        (found.latencies_s, BLUE, "-", "real"), (simulated_s, ORANGE, "--", "simulated"),
    ):  # fmt: skip
        line = tail_line(found.due_s, latencies, bin_s, 0.99)
        tail.plot(*line, color=colour, linestyle=style, linewidth=1.8, label=name)
    tail.set(ylabel=f"p99 of {bin_s:g} s, s", yscale="log")
    tail.yaxis.set_major_formatter("{x:g}")
    tail.legend(loc="upper right", ncols=2, frameon=False)
    for axis in (load, sizes, tail):
        axis.set_xlim(0, at[-1])
    save(drawn, path)
    return True


def decisions(found: Record, axis: Any) -> None:
    """Each change of size, marked where it was decided, with the target that decided."""
    for one in found.events:
        if one.kind != "pool.autoscaled" or one.after is None or one.before is None:
            continue
        grows = one.after > one.before
        axis.axvline(one.at_s, color=ORANGE, linewidth=0.8, linestyle=":")
        axis.annotate(
            f"{one.before} → {one.after}" + (f"\n{because(one.reason)}" if grows else ""),
            (one.at_s, one.after), textcoords="offset points", xytext=(-5 if grows else 5, 5),
            ha="right" if grows else "left", fontsize=8, color=INK,
        )  # fmt: skip


def because(reason: str) -> str:
    """What a decision rests on, from its reason: ``occupancy, in panic``."""
    said = reason.partition(": ")[2]
    target = said.removeprefix("panic: ").partition(" asks for")[0]
    return target + (", in panic" if said.startswith("panic") else "")

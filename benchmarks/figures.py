"""What a benchmark of the router found: one number of every target, and what it is held against."""

from dataclasses import dataclass
from statistics import median

OURS = "tritonfleet"


@dataclass(frozen=True)
class Figure:
    """One number of every target. ``bars``: what ``own`` is held against, by rival: at most (or ``at_least``)
    so many times the rival's, or, under "all", so much in itself. ``paired``: the samples of all targets with
    the same index belong together (one seed, one turn), and the ratio is the median over these pairs.
    ``digits``: after the point, in the table. ``note``: what a reader must know besides, such as why there
    are no samples."""

    title: str
    unit: str
    samples: dict[str, list[float]]
    bars: dict[str, float]
    at_least: bool = False
    own: str = OURS
    paired: bool = False
    digits: int = 1
    note: str = ""

    @property
    def medians(self) -> dict[str, float]:
        return {name: median(taken) for name, taken in self.samples.items()}

    def ratio(self, rival: str) -> float | None:
        """Of our number to ``rival``'s, or None where there is none."""
        theirs = [1.0] if rival == "all" else self.samples.get(rival, [])
        ours = self.samples.get(self.own, [])
        if not ours or not any(theirs):
            return None
        if self.paired and rival != "all":
            return median(one / other for one, other in zip(ours, theirs, strict=True))
        return median(ours) / median(theirs)

    def verdicts(self) -> list[str]:
        found = []
        for rival, bar in self.bars.items():
            ratio = self.ratio(rival)
            if ratio is None:
                continue
            met = ratio >= bar if self.at_least else ratio <= bar
            sign, word = "≥" if self.at_least else "≤", "met" if met else "NOT MET"
            against = f"{bar:g} {self.unit}" if rival == "all" else f"{bar:g} × {rival}"
            found.append(f"{ratio:.2f}, bar {sign} {against}: {word}")
        return found

    def table(self) -> str:
        lines, digits = [f"{self.title}, {self.unit}"], self.digits
        for name, taken in self.samples.items():
            of = f"({min(taken):.{digits}f}-{max(taken):.{digits}f})"
            lines.append(f"  {name:12} {median(taken):10.{digits}f}  {of}")
        return "\n".join(lines + [f"  {said}" for said in [*self.verdicts(), self.note] if said])

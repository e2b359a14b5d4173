"""What is wrong with a fleet file, as data and as the text a person reads."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing that is wrong, and where. ``line`` and ``column`` count from 1; 0 means the whole file."""

    file: str
    line: int
    column: int
    path: str  # "pools.text.replicas.min"; "" for the file as a whole
    message: str
    excerpt: str = ""  # the line of the file
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        text = ": ".join(part for part in (place, self.path, self.message) if part)
        if self.excerpt:
            text += f"\n{self.line:4d} | {self.excerpt.expandtabs(1)}"  # one column each, as YAML counts
            text += f"\n     | {' ' * (self.column - 1)}^"
        if self.hint:
            text += f"\n  hint: {self.hint}"
        return text


class ConfigError(Exception):
    """A fleet file cannot be used. ``problems`` are all that were found, in the order of the file."""

    def __init__(self, problems: Iterable[ConfigProblem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line, problem.column)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def shown(value: object) -> str:
    """A value as a fleet file would have it: ``true``, ``'word'``, ``[1, 2]``; nothing is ``empty``."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    text = repr(value) if isinstance(value, str | int | float) else str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean 'max'?`` or nothing."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""

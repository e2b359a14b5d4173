"""The commands that the pages show: those in fenced blocks, and what stands between backticks in the text."""

import re
import shlex
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "benchmarks" / "README.md",
    ROOT / "examples" / "README.md",
]
PROGRAMS = {"tritonfleet", "make", "docker", "python", "sh", "pip", "git"}
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PLACE_HOLDERS = re.compile(r"<[^>]*>")


class Command(NamedTuple):
    """``words`` from the program's name on; what comes before it (sudo, variables) is left out."""

    page: str
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        return self.words[0]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def shown() -> list[Command]:
    """All in fenced blocks, in the order of the pages. In a transcript only the lines after ``$`` count."""
    found = []
    for page in PAGES:
        for language, block in _FENCED.findall(page.read_text()):
            if language in ("", "sh", "bash", "console"):
                name = str(page.relative_to(ROOT))
                found += [Command(name, words) for words in _commands(block)]
    return found


def _commands(block: str) -> Iterator[tuple[str, ...]]:
    lines = block.splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    for line in lines:
        try:
            words = shlex.split(_PLACE_HOLDERS.sub("X", line), comments=True)
        except ValueError:
            continue  # a sentence with an apostrophe
        yield from _programs(words)


def _programs(words: list[str]) -> Iterator[tuple[str, ...]]:
    """The parts of a line between ``&&``, up to a redirection, that call one of `PROGRAMS`."""
    part: list[str] = []
    for word in [*words, "&&"]:
        if word != "&&":
            part.append(word)
            continue
        while part and (part[0] == "sudo" or re.fullmatch(r"[A-Z_]+=\S*", part[0])):
            part = part[1:]
        if part and Path(part[0]).name in PROGRAMS and not part[0].endswith("/"):
            cut = next((index for index, one in enumerate(part) if one in (">", "|", "2>")), len(part))
            yield (Path(part[0]).name, *part[1:cut])
        part = []


def named(ours: Collection[str]) -> list[Command]:
    """Those between backticks in running text: what begins with a program, or with one of ``ours``, the
    commands of `tritonfleet`, and has an option."""
    found = []
    for page in PAGES:
        text = _FENCED.sub("", page.read_text())
        for code in re.findall(r"`((?:tritonfleet|make) [^`\n]+)`", text):
            words = tuple(code.replace("\\|", "|").split(">")[0].split())
            found.append(Command(str(page.relative_to(ROOT)), words))
        for code in re.findall(r"`([a-z]+ [^`\n]*-[^`\n]+)`", text):
            words = tuple(code.replace("\\|", "|").split())
            if words[0] in ours and any(word.startswith("-") for word in words):
                found.append(Command(str(page.relative_to(ROOT)), ("tritonfleet", *words)))
    return found

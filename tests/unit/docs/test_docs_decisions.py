"""docs/decisions/: the index lists every page, and every dependency has its reason."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
DECISIONS = ROOT / "docs" / "decisions"
PAGES = sorted(DECISIONS.glob("[0-9]*.md"))
INDEX = (DECISIONS / "README.md").read_text()


def test_the_index_lists_every_page_under_its_title() -> None:
    listed = dict(re.findall(r"^\| \[(\d{4})\]\(\1-[\w-]+\.md\) \| (.+) \|$", INDEX, re.MULTILINE))
    titles = dict(page.read_text().partition("\n")[0].removeprefix("# ").split(": ", 1) for page in PAGES)
    assert listed == titles
    assert [page.name[:4] for page in PAGES] == [f"{number:04}" for number in range(1, len(PAGES) + 1)]


def test_every_dependency_has_its_line() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    text = "\n".join(page.read_text() for page in PAGES).lower()
    for requirement in wanted:
        name = re.split(r"[\[<>=;~! ]", requirement)[0].lower()
        assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text), name

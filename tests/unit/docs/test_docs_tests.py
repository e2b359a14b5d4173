"""docs/security.md and docs/conformance.md name tests that there are, and every limit has its row."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from tritonfleet.core.limits import RouterLimits

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
FILES = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
NAMED = re.compile(r"`(test_[a-z0-9_]+\.py)::([^`]+)`")
SECTIONS = {
    "security.md": "## What a client may do",
    "conformance.md": "## What gRPC asks of a proxy",
}


def rows(page: str) -> list[list[str]]:
    """The cells of the first table in the page's section."""
    section = (DOCS / page).read_text().partition(SECTIONS[page])[2]
    table = section[section.index("\n| ") :].split("\n\n")[0]
    return [line.strip("| ").split(" | ") for line in table.strip().splitlines()[2:]]


@pytest.mark.parametrize("page", SECTIONS)
def test_every_row_names_tests_that_there_are(page: str) -> None:
    found = rows(page)
    assert len(found) >= 15
    for row in found:
        named = NAMED.findall(row[-1])
        assert named, row
        for file, name in named:
            # A test, or the name of a case of one.
            case = f'"{name}":' in FILES[file] or f"def {name}(" in FILES[file]
            assert case, (file, name)


def test_every_limit_has_its_row() -> None:
    text = " ".join(" ".join(row) for row in rows("security.md"))
    for field in fields(RouterLimits):
        key = field.name.removesuffix("_s") + "_timeout" if field.name.endswith("_s") else field.name
        assert f"`{key}`" in text, key

"""docs/configuration.md is what the specification says."""

from pathlib import Path

from tritonfleet.config.explain import known_keys
from tritonfleet.config.reference import POOL, reference

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == reference(), (
        "run: python -m tritonfleet.config.reference > docs/configuration.md"
    )


def test_every_key_has_its_line() -> None:
    page = reference()
    keys = [".".join(map(str, path)) for path in known_keys(pool=POOL)]
    parts = {key.rpartition(".")[0] for key in keys}
    for key in keys:
        assert key in parts or f"| `{key}` |" in page, key

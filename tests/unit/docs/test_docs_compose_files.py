"""The compose files say what they mean: no key twice, of which a reader would see the last one only."""

from pathlib import Path
from typing import Any

import pytest
import yaml

COMPOSE = Path(__file__).parents[3] / "compose"


class Strict(yaml.SafeLoader):
    """As YAML 1.2 wants it: keys are unique."""


def _mapping(loader: Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value]
    assert len(keys) == len(set(keys)), f"line {node.start_mark.line + 1}: a key stands twice in {keys}"
    loader.flatten_mapping(node)  # merge keys; what is written beside one wins
    return dict(loader.construct_pairs(node, deep=True))


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


@pytest.mark.parametrize("path", sorted(COMPOSE.glob("**/*.y*ml")), ids=lambda path: path.name)
def test_no_key_stands_twice(path: Path) -> None:
    assert isinstance(yaml.load(path.read_text(), Strict), dict)


def test_a_key_that_stands_twice_is_found() -> None:
    with pytest.raises(AssertionError, match="line 1"):
        yaml.load("a: 1\nb: 2\na: 3\n", Strict)

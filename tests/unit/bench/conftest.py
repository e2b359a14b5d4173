"""The scripted replica of the router's tests is the server of the load generator's."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "router"


@pytest.fixture(scope="session", autouse=True)
def _router_parts_importable() -> Iterator[None]:
    sys.path.append(str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))

"""Durations are taken from a clock that does not step."""

import ast
from pathlib import Path
from time import time

import pytest

from tritonfleet.drivers import clock

CONTROLLER = Path(__file__).parents[3] / "tritonfleet" / "controller"
BY_THE_CALENDAR = {"journal", "certificates", "autoscaler"}  # what people read, X.509, a schedule's entries


def test_it_shows_the_time_and_goes_as_the_monotonic_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert abs(clock.steady_time() - time()) < 3600, "the wall clock may have been set since the start"
    monkeypatch.setattr(clock, "time", lambda: 0.0)
    monkeypatch.setattr(clock, "monotonic", lambda: 5.0)
    before = clock.steady_time()
    monkeypatch.setattr(clock, "monotonic", lambda: 7.0)
    assert clock.steady_time() - before == 2.0


def test_the_controller_asks_no_other_for_what_is_due() -> None:
    """A step of the wall clock by an hour would be an hour of backoff, or of a drain."""
    asking = set()
    for path in CONTROLLER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                asking |= {path.stem for name in node.names if name.name == "time"}
    assert asking == BY_THE_CALENDAR

"""The autoscaling benchmark: how it reads a curve, and one small comparison."""

import importlib
from types import ModuleType

import pytest


@pytest.fixture
def autoscale() -> ModuleType:
    return importlib.import_module("autoscale")


def test_a_curve_is_read_between_its_points_and_never_above_a_cheaper_one(autoscale: ModuleType) -> None:
    points = ((1.0, 0.4, 8), (3.0, 0.2, 4), (4.0, 0.3, 0), (5.0, 0.0, 2))
    curve = [autoscale.Ran("x", "tritonfleet", 0.5, hours, missed, n, 0) for hours, missed, n in points]
    assert autoscale.read_at(curve, 0.9) is None
    assert autoscale.read_at(curve, 2.0) == pytest.approx((0.3, 6.0))
    assert autoscale.read_at(curve, 4.0) == pytest.approx((0.1, 3.0))
    assert autoscale.read_at(curve, 9.0) == (0.0, 2)


def test_half_of_the_misses_at_the_same_hours_is_counted(autoscale: ModuleType) -> None:
    def run(scaler: str, missed: float, turns: int) -> object:
        return autoscale.Ran("x", scaler, 0.5, 2.0, missed, turns, 0)

    lines = autoscale.summary([run("tritonfleet", 0.1, 3), run("hpa", 0.3, 5), run("hpa", 0.15, 1)])
    assert lines[1].split() == ["x", "hpa", "1", "2", "1", "2"]
    assert "0.33" in autoscale.compared([run("tritonfleet", 0.1, 3), run("hpa", 0.3, 5)])[1]


def test_all_targets_can_be_run(autoscale: ModuleType) -> None:
    load = autoscale.Load("short", 3.0, autoscale.generated("step", 1.0, 60.0, 0.2, 0.5, 1))
    for scaler, targets in autoscale.TARGETS.items():
        assert autoscale.ran(load, scaler, targets[0]).hours > 0

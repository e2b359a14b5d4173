"""Workloads, names of scalers, and the rules of the baselines."""

from dataclasses import replace
from pathlib import Path

import pytest

from tritonfleet.simulate.baselines import Hpa, Knative, RayServe
from tritonfleet.simulate.choose import SCALERS, scaler_named
from tritonfleet.simulate.meter import Bin, Meter
from tritonfleet.simulate.scalers import Pool
from tritonfleet.simulate.scenario import Scenario
from tritonfleet.simulate.workload import SHAPES, generated, read_trace

POOL = Pool(4, 1, 32, 4, 0, 0, 0, 1, 2, 45.0)


def meter(seconds: float = 60.0, *, busy: float = 0.0, in_flight: int = 0, ready: int = 4) -> Meter:
    """Levels that last; ``busy`` is the share of ``ready`` replicas' time."""
    found = Meter()
    for _ in range(int(seconds * 2)):
        found.now = Bin(busy_s=busy * ready * 0.5)
        found.close(in_flight, 0, ready)
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_the_arrivals_that_its_mean_says(shape: str) -> None:
    found = generated(shape, 5.0, 2000, 0.1, 0.5, seed=2)
    mean = sum(SHAPES[shape](step / 1000) for step in range(1000)) / 1000
    assert len(found) == pytest.approx(5.0 * 2000 * mean, rel=0.1)
    assert sum(one.seconds for one in found) / len(found) == pytest.approx(0.1, rel=0.1)
    assert [one.at for one in found] == sorted(one.at for one in found)


def test_a_trace_is_read_with_its_costs(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("TIME,In,Out\n2023-11-16 18:15:46.5000000,100,10\n2023-11-16 18:15:48.0000000,1,20\n")
    first, second = read_trace(file, {"In": 0.001, "Out": 0.1}, faster=2.0)
    assert (first.at, first.size) == (0.0, 400)
    assert first.seconds == pytest.approx(1.1)
    assert second.at == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("TIME,In\n1.0,x\n", r"trace.csv:2.*'x'"),
        ("TIME,Out\n1,1\n", "no column In"),
        ("TIME,In\n", "no rows"),
    ],
)
def test_a_bad_trace_is_refused_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=says):
        read_trace(file, {"In": 1.0})


def test_every_scaler_can_be_named() -> None:
    scenario = Scenario(slo_s=1.0)
    assert [scaler_named(name, scenario).interval_s > 0 for name in SCALERS] == [True] * len(SCALERS)
    for wrong in ("magic", "hpa=x", "hpa=0", "static=1.5"):
        with pytest.raises(ValueError, match=wrong.partition("=")[0]):
            scaler_named(wrong, scenario)


def test_hpa_multiplies_by_the_ratio_outside_its_tolerance() -> None:
    assert Hpa(0.5).desired(0, POOL, meter(busy=0.75)) == 6
    assert Hpa(0.5).desired(0, POOL, meter(busy=0.54)) == 4


def test_hpa_counts_pods_that_are_not_ready_as_idle_when_it_grows() -> None:
    assert Hpa(0.5).desired(0, replace(POOL, size=6, loading=2), meter(busy=0.75)) == 6
    assert Hpa(0.5).desired(0, replace(POOL, size=6, loading=2), meter(busy=1.0)) == 8


def test_hpa_shrinks_to_the_most_of_five_minutes() -> None:
    hpa, idle = Hpa(0.5), meter(busy=0.25)
    assert hpa.desired(0, POOL, meter(busy=0.5)) == 4
    assert hpa.desired(285, POOL, idle) == 4
    assert hpa.desired(301, POOL, idle) == 2


def test_hpa_grows_by_its_limit_at_most() -> None:
    assert Hpa(0.05).desired(0, POOL, meter(busy=1.0)) == 8


def test_knative_panics_at_twice_and_does_not_shrink_then() -> None:
    knative, busy = Knative(2.0), meter(in_flight=20)
    assert knative.desired(0, POOL, busy) == 10
    assert knative.desired(30, POOL, meter(in_flight=2)) == 10
    assert knative.desired(61, POOL, meter(in_flight=2)) == 2  # half of what is ready at most


def test_ray_serve_waits_for_its_delays() -> None:
    ray, busy, idle = RayServe(2.0), meter(in_flight=20), meter(in_flight=1)
    assert [ray.desired(at, POOL, busy) for at in (0, 29, 30)] == [4, 4, 10]
    assert [ray.desired(at, POOL, idle) for at in (31, 630, 631)] == [4, 4, 1]

"""The benchmarks around a recorded run of a real fleet: the record, the claims of the demonstration, and the
simulator against the record that is shipped."""

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def fleet_run() -> ModuleType:
    return importlib.import_module("fleet_run")


@pytest.fixture
def demo() -> ModuleType:
    return importlib.import_module("demo_autoscale")


@pytest.fixture
def validate() -> ModuleType:
    return importlib.import_module("validate")


def record_of(fleet_run: ModuleType, demo: ModuleType, **changed: Any) -> Any:
    """The demonstration as it should be: 2 replicas, 4 from 65 s on (ordered at 50 s), 2 again at 190 s."""
    due, sizes = fleet_run.arrivals(demo.SETUP)
    slow = [2.0 if 55 <= at < 66 else 0.05 for at in due]
    samples = [
        fleet_run.Sample(at, 4 if 50 <= at < 190 else 2, 4 if 65 <= at < 190 else 2, 0, 0)
        for at in range(255)
    ]
    events = [
        fleet_run.Event(50.0, "pool.autoscaled", "2 → 4: panic: target_utilization asks for 4 (…)", 2, 4),
        fleet_run.Event(65.0, "replica.ready", "ready", cold_start_s=15.0),
        fleet_run.Event(185.0, "pool.autoscaled", "4 → 3: …", 4, 3),
        fleet_run.Event(190.0, "pool.autoscaled", "3 → 2: …", 3, 2),
    ]
    found = fleet_run.Record(demo.SETUP, "now", 0.042, 0.04, due, sizes, slow, 0, 0, 0.001, samples, events)
    return replace(found, **changed)


def test_a_setup_draws_the_same_requests_again(fleet_run: ModuleType, demo: ModuleType) -> None:
    due, sizes = fleet_run.arrivals(demo.SETUP)
    assert fleet_run.arrivals(demo.SETUP) == (due, sizes)
    in_the_middle = sum(45 <= at < 135 for at in due)
    assert in_the_middle == pytest.approx(demo.HIGH * 90, rel=0.05)
    assert sum(sizes) / len(sizes) == pytest.approx(demo.SETUP.mean_bytes, rel=0.03)


def test_models_are_copied_with_the_setups_parameters(
    fleet_run: ModuleType, validate: ModuleType, tmp_path: Path
) -> None:
    copy = fleet_run.repository(validate.SETUP, tmp_path)
    config = (copy / "sized_batch" / "config.pbtxt").read_text()
    assert "max_batch_size: 4" in config
    assert '"base_ms" value: { string_value: "20" }' in config
    assert '"per_byte_us" value: { string_value: "40" }' in config


def test_a_record_is_read_as_it_was_written(fleet_run: ModuleType, demo: ModuleType, tmp_path: Path) -> None:
    found = record_of(fleet_run, demo)
    found.write(tmp_path / "record.json")
    again = fleet_run.Record.read(tmp_path / "record.json")
    assert again.due_s == [round(at, 4) for at in found.due_s]
    assert (again.setup, again.samples, again.events) == (found.setup, found.samples, found.events)


def test_the_claims_hold_for_a_run_that_is_as_claimed(fleet_run: ModuleType, demo: ModuleType) -> None:
    judged = demo.claims(record_of(fleet_run, demo))
    assert [claim.holds for claim in judged] == [True] * 4
    assert "ordered 5.0 s after the step, serving 20.0 s after it" in str(judged[0])


@pytest.mark.parametrize(
    ("broken", "change"),
    [
        (0, {"latencies_s": [2.0] * 7000}),
        (0, {"samples": []}),
        (1, {"events": []}),
        (2, {"ends": 3}),
        (3, {"failed": 1}),
        (3, {"wrong": 1}),
    ],
)
def test_a_claim_that_does_not_hold_fails(
    fleet_run: ModuleType, demo: ModuleType, broken: int, change: dict[str, Any]
) -> None:
    found = record_of(fleet_run, demo)
    if "latencies_s" in change:
        change = {"latencies_s": change["latencies_s"][: len(found.due_s)]}
    if "samples" in change:
        change = {"samples": [replace(one, desired=2, ready=2) for one in found.samples]}
    if "ends" in change:
        change = {"samples": [*found.samples, replace(found.samples[-1], ready=3)]}
    assert not demo.claims(replace(found, **change))[broken].holds


def test_pictures_are_drawn(fleet_run: ModuleType, demo: ModuleType, tmp_path: Path) -> None:
    found = record_of(fleet_run, demo)
    plot = importlib.import_module("fleet_plot")
    assert plot.draw(found, 1.0, 2.0, demo.lost(found, 1.0), tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_the_simulator_agrees_with_the_recorded_run(
    fleet_run: ModuleType, validate: ModuleType, tmp_path: Path
) -> None:
    found = fleet_run.Record.read(validate.RECORDED)
    again = validate.simulated(found)
    text, agrees = validate.compare(found, again)
    assert agrees, text
    plot = importlib.import_module("fleet_plot")
    assert plot.draw_beside(found, again.result, again.latencies_s, 5.0, tmp_path / "both.png")


def test_a_simulation_of_another_fleet_does_not_agree(fleet_run: ModuleType, validate: ModuleType) -> None:
    found = fleet_run.Record.read(validate.RECORDED)
    slower = replace(found, busy_s=2 * found.busy_s)
    _, agrees = validate.compare(found, validate.simulated(slower))
    assert not agrees

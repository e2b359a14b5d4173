"""`tritonfleet simulate`, as a person calls it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tritonfleet.cli.exits import CliError
from tritonfleet.cli.main import app

SHORT = ["simulate", "step", "--duration", "5m", "--scaler", "tritonfleet", "--scaler", "static=2"]


def test_the_table_compares_scalers_and_draws_their_time_lines() -> None:
    result = CliRunner().invoke(app, SHORT)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split()[:2] == ["SCALER", "REQUESTS"]
    assert [line.split()[0] for line in lines[1:3]] == ["tritonfleet", "static=2"]
    assert sum(line.startswith("  replicas  ") for line in lines) == 2


def test_json_has_everything() -> None:
    result = CliRunner().invoke(app, ["--json", *SHORT])
    first, second = json.loads(result.stdout)
    assert first["requests"] == second["requests"] > 0
    assert second["timeline"][-1]["ready"] == 2


def test_by_rates_and_as_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "both.png"
    result = CliRunner().invoke(app, ["--json", *SHORT, "--aggregated", "--plot", str(picture)])
    first, second = json.loads(result.stdout)
    assert first["requests"] == second["requests"] > 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_trace_by_rates(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("TIME,In\n" + "".join(f"{second},1\n" for second in range(60)))
    trace = ["--trace", str(file), "--cost", "In=100ms", "--aggregated"]
    [found] = json.loads(CliRunner().invoke(app, ["--json", "simulate", *trace]).stdout)
    assert (found["requests"], found["missed"]) == (60, 0)


def test_a_picture_needs_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    result = CliRunner().invoke(app, [*SHORT, "--plot", str(tmp_path / "a.png")])
    assert isinstance(result.exception, CliError)
    assert "pip install 'tritonfleet[plot]'" in str(result.exception.hint)


def test_replicas_that_died_are_told() -> None:
    result = CliRunner().invoke(app, [*SHORT, "--mtbf", "1m", "--cold-start", "5s"])
    assert "replicas died, " in result.stdout
    result = CliRunner().invoke(app, [*SHORT, "--kill", "1m", "--kill", "2m", "--max-inflight", "1"])
    assert "static=2: 2 replicas died, " in result.stdout


def test_a_mistake_is_named() -> None:
    result = CliRunner().invoke(app, ["simulate", "--scaler", "magic"])
    assert isinstance(result.exception, CliError)
    assert "no scaler 'magic'; there are: tritonfleet" in str(result.exception)


@pytest.mark.parametrize("cost", ["In=fast", "Out=1ms"])
def test_a_trace_needs_costs_of_its_columns(tmp_path: Path, cost: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("TIME,In\n1,1\n")
    result = CliRunner().invoke(app, ["simulate", "--trace", str(file), "--cost", cost])
    assert isinstance(result.exception, CliError)

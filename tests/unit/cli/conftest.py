"""Commands run in this process, against a scripted controller of a fleet named demo."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runs import Cli, Outcome
from control_server import ControlServer, serve
from fleet_samples import snapshot

from tritonfleet.cli.main import main
from tritonfleet.controller.paths import FleetPaths


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FleetPaths:
    for name in ("FILE", "FLEET", "OUTPUT", "PROGRESS", "QUIET", "NO_INPUT", "VERBOSE"):
        monkeypatch.delenv(f"TRITONFLEET_{name}", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("TRITONFLEET_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    found = FleetPaths.of("demo")
    found.make()
    return found


@pytest.fixture
def cli(paths: FleetPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*words: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["tritonfleet", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def control(paths: FleetPaths) -> Iterator[ControlServer]:
    with serve(paths.control_socket) as server:
        server.snapshots = [snapshot()]
        yield server

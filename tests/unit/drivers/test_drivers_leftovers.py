"""Empty folders of killed servers go, and nothing else."""

import os
import time
from pathlib import Path

import pytest

from tritonfleet.drivers import leftovers


def folder(parent: Path, name: str, age_s: float) -> Path:
    made = parent / name
    made.mkdir()
    then = time.time() - age_s
    os.utime(made, (then, then))
    return made


@pytest.fixture(autouse=True)
def servers(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the tritonservers of this host started; what really runs here is not the tests' business."""
    starts: list[float] = []
    monkeypatch.setattr(leftovers, "_server_starts", lambda: starts)
    return starts


def test_without_a_server_all_that_are_empty_go(tmp_path: Path) -> None:
    old = folder(tmp_path, "python_env_abc123", 60)
    full = folder(tmp_path, "python_env_full00", 60)
    (full / "file").touch()
    folder(tmp_path, "python_env_longer_name", 60)
    folder(tmp_path, "other_folder", 60)
    assert leftovers.sweep(tmp_path) == [old]
    assert not old.exists()
    assert len(list(tmp_path.iterdir())) == 3


def test_what_a_live_server_may_have_made_stays(tmp_path: Path, servers: list[float]) -> None:
    older = folder(tmp_path, "python_env_older0", 60)
    newer = folder(tmp_path, "python_env_newer0", 10)
    servers += [time.time() - 30, time.time() - 5]
    assert leftovers.sweep(tmp_path) == [older]
    assert newer.exists()


def test_one_that_was_made_just_now_stays(tmp_path: Path) -> None:
    folder(tmp_path, "python_env_now000", 0)
    assert leftovers.sweep(tmp_path) == []


def test_a_second_sweep_finds_nothing(tmp_path: Path) -> None:
    folder(tmp_path, "python_env_abc123", 60)
    assert len(leftovers.sweep(tmp_path)) == 1
    assert leftovers.sweep(tmp_path) == []

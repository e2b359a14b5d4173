"""Every input that fuzzing started from or failed with, once more; and the fuzzer finds a planted fault."""

import subprocess
import sys
from pathlib import Path

import pytest
from run import CORPUS, by_mutation, seeds
from targets import TARGETS

BLIND = ["--without-atheris"]
INPUTS = sorted(CORPUS.glob("*/*"))


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_nothing_fails_twice(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_every_target_has_a_corpus() -> None:
    assert {path.parent.name for path in INPUTS} == set(TARGETS)


def test_a_fault_is_found_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without coverage even: one that any change of a seed's first byte shows."""
    (tmp_path / "peek_at").mkdir()
    (tmp_path / "peek_at" / "seed").write_bytes(seeds("peek_at")[0])

    def faulty(data: bytes) -> None:
        assert data[:1] == b"\0", "planted"

    monkeypatch.setattr("run.CORPUS", tmp_path)
    monkeypatch.setitem(TARGETS, "peek_at", faulty)
    assert by_mutation("peek_at", 30, seed=1) == 1
    [kept] = (tmp_path / "peek_at").glob("failed-*")
    with pytest.raises(AssertionError, match="planted"):
        faulty(kept.read_bytes())


def test_the_command_fuzzes_and_says_how() -> None:
    result = subprocess.run(
        [sys.executable, str(CORPUS.parent / "run.py"), "--seconds=0.3", "--targets=peek_at", *BLIND],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "mutated without knowledge of coverage" in result.stdout

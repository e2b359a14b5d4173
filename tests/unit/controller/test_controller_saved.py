"""Small files, written whole or not at all."""

from pathlib import Path

import pytest

from tritonfleet.controller import saved
from tritonfleet.controller.saved import SavedFleet, SavedSlot, SavedWorker
from tritonfleet.core.model import ModelStatus, ReplicaState
from tritonfleet.drivers.spawn import ProcessIdentity


def test_what_is_written_is_read(tmp_path: Path) -> None:
    slot = SavedSlot(
        "main", 3, ReplicaState.READY, "5 models ready", ready_at=1.5, models=(ModelStatus("m", True),)
    )
    fleet = SavedFleet(17, {"main": 4}, {"main-0": 3, "main-9": 1}, {"main-0": slot})
    saved.write(tmp_path / "state.json", fleet)
    assert saved.read(tmp_path / "state.json", SavedFleet) == fleet
    workers = {"0": SavedWorker(ProcessIdentity(1, 2, "boot"), ("python", "-m", "x"), 3.0)}
    saved.write(tmp_path / "routers.json", workers)
    assert saved.read(tmp_path / "routers.json", dict[str, SavedWorker]) == workers


def test_nothing_else_is_left_beside(tmp_path: Path) -> None:
    for number in range(3):
        saved.write(tmp_path / "state.json", SavedFleet(number))
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_none_is_none(tmp_path: Path) -> None:
    assert saved.read(tmp_path / "state.json", SavedFleet) is None


def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"revision": "many"}')
    with pytest.raises(ValueError, match=r"state\.json cannot be understood .*move it away and start again"):
        saved.read(tmp_path / "state.json", SavedFleet)


def test_a_file_of_an_older_version_is_understood(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"revision": 4, "unknown_now": true}')
    assert saved.read(tmp_path / "state.json", SavedFleet) == SavedFleet(4)


@pytest.mark.parametrize("left", [b"", bytes(4096)])
def test_what_a_power_loss_has_emptied_is_none(tmp_path: Path, left: bytes) -> None:
    """The next boot must bring the fleet up without a person."""
    (tmp_path / "state.json").write_bytes(left)
    assert saved.read(tmp_path / "state.json", SavedFleet) is None

"""The settings' journal on disk."""

from pathlib import Path

from tritonfleet.controller.settings import Settings
from tritonfleet.core.settings import Setting


def load(model: str, message: bytes = b"\x12\x01\xff") -> Setting:
    return Setting("model", model, "/x/RepositoryModelLoad", message)


def region(name: str, *, ending: bool = False) -> Setting:
    return Setting("system_shm", name, "/x/SystemSharedMemoryRegister", b"r", ending=ending)


def test_the_next_controller_finds_it_again(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "settings")
    settings.put(load("digits", b"old"))
    settings.put(region("input"))
    settings.put(load("digits"))
    again = Settings(tmp_path / "settings")
    assert again.entries == settings.entries
    assert [entry.message for entry in again.entries] == [b"r", b"\x12\x01\xff"]
    assert again.revision == 3
    assert again.put(load("echo")).revision == 4


def test_one_file_per_thing_and_none_when_it_is_over(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "settings")
    for name in ("a", "b", "a"):
        settings.put(region(name))
    assert len(list((tmp_path / "settings").iterdir())) == 2
    settings.put(region("", ending=True))
    assert len(list((tmp_path / "settings").iterdir())) == 1
    settings.forget_endings()
    assert list((tmp_path / "settings").iterdir()) == []
    settings.put(region("c"))
    settings.clear()
    assert not (tmp_path / "settings").exists()


def test_what_is_the_same_thing_in_two_pools_is_two_settings(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "settings")
    small = Setting("trace", "", "/x/TraceSetting", b"1", pools=("small",))
    settings.put(small)
    settings.put(Setting("trace", "", "/x/TraceSetting", b"2"))
    assert Settings(tmp_path / "settings").entries == settings.entries
    found = settings.of("trace", "", ("small",))
    assert found is not None
    assert found.message == b"1"
    assert settings.of("trace", "digits", ()) is None


def test_a_damaged_file_costs_one_setting_only(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "settings")
    settings.put(load("digits"))
    settings.put(load("echo"))
    next((tmp_path / "settings").glob("*.json")).write_text("{")
    assert len(Settings(tmp_path / "settings").entries) == 1

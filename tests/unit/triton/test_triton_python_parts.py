"""What the packaged Triton needs of the interpreter beside it: libpython where it is found, numpy 1."""

import ctypes.util
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

from tritonfleet.triton import embedded
from tritonfleet.triton.embedded import TritonNotFoundError


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    path = tmp_path / "stub"
    path.write_bytes(b"\x7fELF ... libpython3.11.so.1.0\0")
    return path


def test_an_interpreter_s_own_library_folder_is_searched(
    stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libpython3.11.so.1.0").touch()
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: {"LIBDIR": str(tmp_path)}[name])
    assert embedded._libpython_folder(stub, "3.11") == [str(tmp_path)]


def test_a_library_the_loader_finds_needs_no_folder(
    stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: str(tmp_path))
    monkeypatch.setattr(
        ctypes.util, "find_library", lambda name: {"python3.11": "libpython3.11.so.1.0"}[name]
    )
    assert embedded._libpython_folder(stub, "3.11") == []


def test_a_missing_libpython_says_what_to_install(
    stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: str(tmp_path))
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(TritonNotFoundError, match=r"needs libpython3\.11\.so\.1\.0") as caught:
        embedded._libpython_folder(stub, "3.11")
    assert "apt-get install libpython3.11" in caught.value.remedy
    stub.write_bytes(b"libpython3-419a3a08.13.so.1.0")  # bundled in the wheel
    assert embedded._libpython_folder(stub, "3.13") == []


def test_numpy_2_is_refused_because_outputs_would_be_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "2.4.6")
    with pytest.raises(TritonNotFoundError, match=r"needs numpy 1, and numpy 2\.4\.6 is installed") as caught:
        embedded._check_numpy("0.7.0", "3.12")
    assert caught.value.remedy == "pip install 'numpy<2'"
    with pytest.raises(TritonNotFoundError) as caught:
        embedded._check_numpy("0.7.0", "3.13")
    assert "use 3.11 or 3.12" in caught.value.remedy
    monkeypatch.setattr(metadata, "version", lambda name: "1.26.4")
    embedded._check_numpy("0.7.0", "3.12")

"""`scripts/make_venv.sh`: which Python it takes, and what it says where there is none or half of one."""

import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def fake_python(path: Path, *, version: str = "3.11", missing: str = "") -> Path:
    """A program that answers the script's questions as a Python of ``version`` would."""
    suitable = 0 if (3, 11) <= tuple(map(int, version.split("."))) <= (3, 12) else 1
    path.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f"*'(3, 11) <='*) exit {suitable} ;;\n"
        f"*ensurepip*) exit {1 if 'venv' in missing else 0} ;;\n"
        f"*ctypes*) exit {1 if 'libpython' in missing else 0} ;;\n"
        f"*print*) echo {version} ;;\n"
        '*"-m venv"*) mkdir -p "$3/bin"; touch "$3/made" ;;\n'
        "esac\n"
    )
    path.chmod(0o755)
    return path


def make_venv(folder: Path, python: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the script where only ``folder`` and the shell's own programs are on PATH."""
    environ = {"PATH": f"{folder}:{folder / 'system'}", **({"PYTHON": python} if python else {})}
    system = folder / "system"
    system.mkdir(exist_ok=True)
    for program in ("rm", "mkdir", "touch"):
        target = next(Path(p) / program for p in ("/bin", "/usr/bin") if (Path(p) / program).exists())
        (system / program).symlink_to(target)
    return subprocess.run(
        ["/bin/sh", str(ROOT / "scripts" / "make_venv.sh"), str(folder / "venv")],
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_first_suitable_python_is_taken(tmp_path: Path) -> None:
    fake_python(tmp_path / "python3", version="3.9")
    fake_python(tmp_path / "python3.12", version="3.12")
    done = make_venv(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "with python3.12 (3.12)" in done.stdout
    assert (tmp_path / "venv" / "made").exists()


@pytest.mark.parametrize(
    ("missing", "packages"),
    [
        ("venv", "python3.11-venv "),
        ("libpython", "libpython3.11 "),
        ("venv libpython", "python3.11-venv libpython3.11 "),
    ],
)
def test_what_a_python_lacks_is_named_as_packages(tmp_path: Path, missing: str, packages: str) -> None:
    fake_python(tmp_path / "python3", version="3.11", missing=missing)
    done = make_venv(tmp_path)
    assert done.returncode == 1
    assert "python3 is Python 3.11, but a part of it is missing" in done.stderr
    assert f"apt-get install {packages}" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_complete_python_is_preferred_to_one_that_lacks_something(tmp_path: Path) -> None:
    fake_python(tmp_path / "python3", version="3.12", missing="libpython")
    fake_python(tmp_path / "python3.11", version="3.11")
    assert "with python3.11 (3.11)" in make_venv(tmp_path).stdout


@pytest.mark.parametrize("version", ["3.10", "3.13", "2.7"])
def test_no_suitable_python_says_what_was_looked_for(tmp_path: Path, version: str) -> None:
    fake_python(tmp_path / "python3", version=version)
    done = make_venv(tmp_path)
    assert done.returncode == 1
    assert "No Python 3.11 or 3.12 found" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr


def test_a_named_python_is_the_only_one_looked_at(tmp_path: Path) -> None:
    fake_python(tmp_path / "python3")
    named = fake_python(tmp_path / "mine", version="3.12")
    assert f"with {named} (3.12)" in make_venv(tmp_path, str(named)).stdout


def test_no_python_at_all(tmp_path: Path) -> None:
    assert make_venv(tmp_path, "/nowhere/python").returncode == 1


def test_an_environment_that_works_is_kept(tmp_path: Path) -> None:
    fake_python(tmp_path / "python3")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    fake_python(tmp_path / "venv" / "bin" / "python")
    done = make_venv(tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert not (tmp_path / "venv" / "made").exists()


def constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_pin_is_a_plain_name_and_version() -> None:
    for line in constraints():
        name, _, version = line.partition("#")[0].partition(";")[0].strip().partition("==")
        assert name, line
        assert version, line
        assert "/" not in line, f"no addresses: {line}"


def test_every_direct_dependency_has_a_pin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(requirement for extra in extras for requirement in extra)]
    pins = {line.partition("==")[0].lower().replace("_", "-") for line in constraints()}
    names = {requirement.partition(">=")[0].partition("[")[0].lower() for requirement in wanted}
    assert names - pins == set()

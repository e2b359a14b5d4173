"""Where tritonserver is, and what it needs around it to run.

In the order they are tried: ``$TRITONFLEET_TRITONSERVER``, ``tritonserver`` on PATH, the nvidia-pytriton
wheel of this interpreter (a real server with the Python backend, for x86-64 Linux with glibc ≥ 2.35).

The wheel is not a runnable installation: its libraries lie in a folder of their own, and its Python backend
needs the stub built for this Python version beside it. A folder with both is made once per wheel and
Python version in the user's cache.
"""

import ctypes.util
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

WHEEL = "nvidia-pytriton"


class TritonNotFoundError(Exception):
    """There is no tritonserver. ``remedy`` says how to get one."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class TritonInstallation:
    """A tritonserver that can be launched: ``env`` is what its environment must contain in addition."""

    binary: str
    kind: Literal["path", "embedded"]
    backends: str | None = None  # for --backend-directory; None: its own default
    env: dict[str, str] = field(default_factory=dict)
    version: str = ""  # of the wheel; "" for a server found on PATH


def find_tritonserver(environ: Mapping[str, str]) -> TritonInstallation:
    """Raises TritonNotFoundError. May take a second the first time (it copies 20 MB into the cache)."""
    named = environ.get("TRITONFLEET_TRITONSERVER", "")
    if named:
        if not (Path(named).is_file() and os.access(named, os.X_OK)):
            raise TritonNotFoundError(
                f"TRITONFLEET_TRITONSERVER names {named}, which is no executable file", "correct or unset it"
            )
        return TritonInstallation(named, "path")
    found = shutil.which("tritonserver", path=environ.get("PATH", os.defpath))
    if found:
        return TritonInstallation(found, "path")
    return _embedded(environ)


def _embedded(environ: Mapping[str, str]) -> TritonInstallation:
    site = Path(sysconfig.get_path("platlib"))
    server = site / "pytriton" / "tritonserver"
    binary = server / "bin" / "tritonserver"
    try:
        version = metadata.version(WHEEL)
    except metadata.PackageNotFoundError:
        version = ""
    if not version or not binary.is_file():
        raise TritonNotFoundError(
            "there is no tritonserver: not on PATH, and nvidia-pytriton is not installed in this environment",
            f"{sys.executable} -m pip install --no-deps {WHEEL} (x86-64 Linux), or put tritonserver on PATH",
        )
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / python / "triton_python_backend_stub"
    if not stub.is_file():
        there = sorted(path.name for path in (server / "python_backend_stubs").glob("*"))
        raise TritonNotFoundError(
            f"{WHEEL} {version} has no Python backend for Python {python}, only for {', '.join(there)}",
            "make the virtual environment with one of these",
        )
    _check_numpy(version, python)
    libraries = [str(site / "nvidia_pytriton.libs"), *_libpython_folder(stub, python)]
    cache = Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/tmp"), ".cache"))  # noqa: S108 # only a fallback for accounts without a home
    backends = cache / "tritonfleet" / f"backends-{version}-py{python}"
    if not backends.is_dir():
        _build_backends(server / "backends" / "python", stub, backends)
    # The stub embeds an interpreter that takes its prefix, and so finds numpy, by the python3 on PATH.
    own_bin = str(Path(sys.executable).parent)
    return TritonInstallation(
        str(binary),
        "embedded",
        str(backends),
        {
            "PATH": os.pathsep.join([own_bin, environ.get("PATH", os.defpath)]),
            "LD_LIBRARY_PATH": os.pathsep.join(
                filter(None, [*libraries, environ.get("LD_LIBRARY_PATH", "")])
            ),
        },
        version,
    )


def _check_numpy(wheel: str, python: str) -> None:
    """The wheel's stub was built for numpy 1: with numpy 2 every output of a model would be empty."""
    try:
        numpy = metadata.version("numpy")
    except metadata.PackageNotFoundError:
        return
    if not numpy.startswith("1."):
        raise TritonNotFoundError(
            f"the Python backend of {WHEEL} {wheel} needs numpy 1, and numpy {numpy} is installed",
            "pip install 'numpy<2' (there is none for Python 3.13: use 3.11 or 3.12)"
            if python not in ("3.11", "3.12")
            else "pip install 'numpy<2'",
        )


def _libpython_folder(stub: Path, python: str) -> list[str]:
    """The folder to search for libpython, if one must be named: the stub links to it, and an interpreter that
    was built by pyenv, conda and the like has it where the loader does not look.

    Debian's python3 is one static program, and its libpython a package of its own. Without it the stub cannot
    start, and Triton waits for it for ever: so that is an error here.
    """
    name = f"libpython{python}.so.1.0"
    if name.encode() not in stub.read_bytes():
        return []  # bundled in the wheel under another name
    configured = sysconfig.get_config_var("LIBDIR") or ""
    if configured and Path(configured, name).is_file():
        return [configured]
    if ctypes.util.find_library(f"python{python}") is None:
        raise TritonNotFoundError(
            f"Triton's Python backend needs {name}, which this machine does not have",
            f"apt-get install libpython{python} (Debian, Ubuntu)",
        )
    return []


def _build_backends(python_backend: Path, stub: Path, target: Path) -> None:
    """Copied beside and renamed: a reader sees all of it or nothing, and of two that race one wins."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=target.name) as folder:
        built = Path(folder, "backends")
        shutil.copytree(python_backend, built / "python")
        shutil.copy2(stub, built / "python" / stub.name)
        try:
            built.rename(target)
        except OSError:
            if not target.is_dir():
                raise

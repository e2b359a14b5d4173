"""What a command does not import: pydantic, httpx and the like take longer than the command itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from control_server import serve
from fleet_samples import snapshot

from tritonfleet.config import fleet_name
from tritonfleet.controller.paths import FleetPaths

HEAVY = {
    "asyncio", "docker", "email", "grpc", "http.client", "httpx", "numpy", "pydantic", "rich.live",
    "rich.table", "starlette", "tritonclient", "tritonfleet.drivers", "uvicorn", "yaml",
}  # fmt: skip
SHOW = "import sys; from tritonfleet.cli.main import main\ntry:\n  main()\nfinally:\n  print(*sys.modules)"


def imported(folder: Path, *words: str) -> set[str]:
    """What is imported at the end of a command that ends well."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TRITONFLEET_")}
    environ["TRITONFLEET_STATE_DIR"] = str(folder / "state")
    done = subprocess.run(
        [sys.executable, "-c", SHOW, *words],
        env=environ, cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    assert not imported(tmp_path, "--help") & (HEAVY | {"rich", "msgspec"})


@pytest.mark.parametrize(
    "words", [("ps",), ("--fleet", "demo", "ps"), ("ps", "-o", "json"), ("ps", "-o", "wide")]
)
def test_ps_imports_nothing_heavy(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "tritonfleet.yaml").write_text("version: 1\nname: demo  # of the fleet\npools: {}\n")
    paths = FleetPaths.of("demo", {"TRITONFLEET_STATE_DIR": str(tmp_path / "state")})
    with serve(paths.control_socket) as server:
        server.snapshots = [snapshot()]
        found = imported(tmp_path, *words)
    assert not found & HEAVY
    assert "tritonfleet.core.wire" in found
    assert "tritonfleet.core.wire_routers" not in found


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("version: 1\nname: demo\n", "demo"),
        ("name:   demo-2   # mine\npools:\n  name: {model_repository: x}\n", "demo-2"),
        ("{version: 1, name: flow}", "flow"),
        ('name: "quoted"\n', "quoted"),
        ("name: ${FLEET:-fallback}\n", "fallback"),
        ("a: |\n  name: no\nname: yes-it-is\n", "yes-it-is"),
        ("pools: {\nname: inner}\nname: outer\n", "outer"),
        ("name: true\n", ""),
        ("name: null\n", ""),
        ("name: Demo\n", ""),
        ("name: demo\nname: other\n", "demo"),
        ("version: 1\n", ""),
        ("- name: demo\n", ""),
        ("name: [demo\n", ""),
        ("", ""),
    ],
)
def test_the_name_alone(tmp_path: Path, text: str, name: str) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    assert fleet_name(path, {}) == name


def test_no_file_has_no_name(tmp_path: Path) -> None:
    assert fleet_name(tmp_path / "none.yaml", {}) == ""
    (tmp_path / "bytes").write_bytes(b"name: \xff\n")
    assert fleet_name(tmp_path / "bytes", {}) == ""

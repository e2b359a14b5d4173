"""Where tritonserver is looked for, and that the embedded one really serves."""

import asyncio
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import AsyncIterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from tritonfleet.core.model import ModelStatus
from tritonfleet.drivers.base import Instance, LaunchSpec
from tritonfleet.drivers.devices import cpu_slots
from tritonfleet.drivers.process import ProcessDriver
from tritonfleet.triton import embedded
from tritonfleet.triton.client import ProbeError, TritonClient
from tritonfleet.triton.embedded import TritonInstallation, TritonNotFoundError, find_tritonserver

REPOSITORY = Path(__file__).parents[3] / "model_repository"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
START_S = 60.0


def executable(folder: Path, name: str = "tritonserver") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


class TestOrder:
    def test_the_variable_comes_first(self, tmp_path: Path) -> None:
        named, on_path = executable(tmp_path / "named", "my-triton"), executable(tmp_path / "path")
        environ = {"TRITONFLEET_TRITONSERVER": named, "PATH": str(Path(on_path).parent)}
        assert find_tritonserver(environ) == TritonInstallation(named, "path")

    def test_then_path(self, tmp_path: Path) -> None:
        on_path = executable(tmp_path / "path")
        assert find_tritonserver({"PATH": f"{tmp_path}:{tmp_path / 'path'}"}) == TritonInstallation(
            on_path, "path"
        )

    def test_an_empty_variable_is_none(self, tmp_path: Path) -> None:
        on_path = executable(tmp_path / "path")
        environ = {"TRITONFLEET_TRITONSERVER": "", "PATH": str(tmp_path / "path")}
        assert find_tritonserver(environ).binary == on_path

    @pytest.mark.parametrize("what", ["nothing", "folder", "plain"])
    def test_a_variable_that_names_no_executable_is_an_error(self, tmp_path: Path, what: str) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "plain").touch()
        named = tmp_path / what
        with pytest.raises(TritonNotFoundError) as missing:
            find_tritonserver({"TRITONFLEET_TRITONSERVER": str(named), "PATH": ""})
        assert str(missing.value) == (f"TRITONFLEET_TRITONSERVER names {named}, which is no executable file")
        assert missing.value.remedy == "correct or unset it"


class TestWheel:
    def test_without_it_the_remedy_is_how_to_get_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "path", [str(tmp_path)])  # where installed packages are looked for
        with pytest.raises(TritonNotFoundError) as missing:
            find_tritonserver({"PATH": str(tmp_path)})
        assert "nvidia-pytriton is not installed" in str(missing.value)
        assert f"{sys.executable} -m pip install --no-deps nvidia-pytriton" in missing.value.remedy

    def test_a_python_it_was_not_built_for_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = tmp_path / "pytriton" / "tritonserver"
        executable(server / "bin")
        (server / "python_backend_stubs" / "3.8").mkdir(parents=True)
        (server / "python_backend_stubs" / "3.10").mkdir()
        monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))
        monkeypatch.setattr(metadata, "version", lambda _name: "9.9.9")
        with pytest.raises(TritonNotFoundError) as missing:
            find_tritonserver({"PATH": ""})
        assert f"nvidia-pytriton 9.9.9 has no Python backend for Python {PYTHON}, only for 3." in str(
            missing.value
        )


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """No tritonserver on PATH, and a cache of its own."""
    if shutil.which("tritonserver"):
        pytest.skip("this machine has a tritonserver on PATH")
    return {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path / "cache")}


class TestEmbedded:
    def test_its_folder_is_built_once_whole_with_the_stub(
        self, environ: dict[str, str], tmp_path: Path
    ) -> None:
        first = find_tritonserver(environ)
        assert first.kind == "embedded"
        assert first.version == metadata.version("nvidia-pytriton")
        backends = tmp_path / "cache" / "tritonfleet" / f"backends-{first.version}-py{PYTHON}"
        assert first.backends == str(backends)
        assert {"libtriton_python.so", "triton_python_backend_stub"} <= {
            path.name for path in (backends / "python").iterdir()
        }
        built = backends.stat().st_ino
        assert find_tritonserver(environ) == first
        assert backends.stat().st_ino == built
        assert list(backends.parent.iterdir()) == [backends], "nothing is left of the building"

    def test_of_two_that_build_at_once_one_wins(self, environ: dict[str, str], tmp_path: Path) -> None:
        source, stub = tmp_path / "backend", tmp_path / "stub"
        source.mkdir()
        stub.touch()
        target = tmp_path / "cache" / "backends"
        (target / "python").mkdir(parents=True)
        (target / "python" / "of the other").touch()
        embedded._build_backends(source, stub, target)
        assert [path.name for path in (target / "python").iterdir()] == ["of the other"]
        assert list(target.parent.iterdir()) == [target]

    def test_it_adds_to_path_and_library_path_what_the_stub_needs(self, environ: dict[str, str]) -> None:
        environ["LD_LIBRARY_PATH"] = "/mine"
        found = find_tritonserver(environ)
        assert found.env["PATH"].split(":")[0] == str(Path(sys.executable).parent)
        assert found.env["PATH"].endswith(environ["PATH"])
        libraries = found.env["LD_LIBRARY_PATH"].split(":")
        assert Path(libraries[0]).is_dir()
        assert libraries[-1] == "/mine"

    def test_home_s_cache_without_xdg(self, environ: dict[str, str], tmp_path: Path) -> None:
        del environ["XDG_CACHE_HOME"]
        found = find_tritonserver({**environ, "HOME": str(tmp_path / "home")})
        assert found.backends is not None
        assert found.backends.startswith(str(tmp_path / "home" / ".cache" / "tritonfleet"))


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[Instance]:
    fleet = "t" + os.urandom(4).hex()
    driver = ProcessDriver(fleet, tmp_path / fleet, cpu_slots(1))
    started = await driver.start(
        LaunchSpec(fleet, "main", "main-0", 1, "hash", (), str(REPOSITORY), ("echo",), exit_timeout_s=5)
    )
    try:
        yield started
    finally:
        await driver.stop(started, 0)
        await driver.remove(started)
        await driver.close()


async def ready(client: TritonClient) -> tuple[ModelStatus, ...]:
    deadline = time.monotonic() + START_S
    while True:
        try:
            return await client.models(timeout=5)
        except ProbeError as error:
            if not error.refused or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.05)


@pytest.mark.triton
async def test_the_client_s_answers_are_those_of_a_real_server(replica: Instance) -> None:
    client = TritonClient(replica.host, replica.grpc_port)
    try:
        with pytest.raises(ProbeError, match="nothing listens") as loading:
            await client.models(timeout=5)
        assert loading.value.refused
        models = {model.name: model for model in await ready(client)}
        assert models["echo"] == ModelStatus("echo", True, ("1",))
        assert not models["digits"].ready, "only what was asked for is loaded"
        (before,) = await client.statistics(timeout=5)
        assert (before.model, before.version, before.success_count) == ("echo", "1", 0)
        async with triton.InferenceServerClient(f"{replica.host}:{replica.grpc_port}") as user:
            given = triton.InferInput("INPUT0", [3], "UINT8")
            given.set_data_from_numpy(np.arange(3, dtype=np.uint8))
            for _ in range(4):
                await user.infer("echo", [given])
            with pytest.raises(InferenceServerException):
                await user.infer("echo", [triton.InferInput("INPUT0", [3], "FP32")])
        (after,) = await client.statistics(timeout=5)
        deadline = time.monotonic() + 5
        while after.success_count < 4 and time.monotonic() < deadline:  # it counts after it has answered
            await asyncio.sleep(0.05)
            (after,) = await client.statistics(timeout=5)
        assert (after.success_count, after.inferences, after.executions) == (4, 4, 4)
        assert after.compute_infer_ns > 0
        assert after.last_inference_ms / 1000 == pytest.approx(time.time(), abs=START_S)
    finally:
        await client.close()

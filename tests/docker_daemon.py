"""The Docker daemon that tests use: which one, whether it will do, and what is missing if not.

`scripts/ci_docker.sh` makes one, with a stub of NVIDIA's runtime hook on its PATH: so it accepts device
requests on a host without a GPU.
"""

import contextlib
import os
from functools import cache
from typing import Any

import docker.errors
import pytest

from tritonfleet.drivers.base import DriverError
from tritonfleet.drivers.docker_engine import DockerEngine

IMAGE = os.environ.get("TRITONFLEET_TEST_IMAGE", "tritonfleet-triton-cpu")


def engine() -> DockerEngine:
    return DockerEngine("", os.environ, timeout_s=30)


def ask(work: Any) -> Any:
    """One call of the SDK's low-level client, on a connection of its own."""
    found = engine()
    try:
        return found.now("test", work)
    finally:
        found.close()


@cache
def lacking(image: str) -> str:
    """ "" if there is a daemon with the image, else what is missing."""
    try:
        ask(lambda client: client.inspect_image(image))
    except DriverError as error:
        return f"{error}; `scripts/ci_docker.sh` makes both a daemon and the image {image}"
    return ""


def require(image: str = IMAGE) -> None:
    """Skip, or with TRITONFLEET_REQUIRE_DOCKER=1 fail, where there is no daemon with the image."""
    missing = lacking(image)
    if missing and os.environ.get("TRITONFLEET_REQUIRE_DOCKER") == "1":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


def containers(fleet: str) -> dict[str, dict[str, Any]]:
    """The inspection of every container of a fleet, by replica and generation."""

    def look(client: Any) -> dict[str, dict[str, Any]]:
        rows = client.containers(all=True, filters={"label": f"tritonfleet.fleet={fleet}"})
        found = []
        for row in rows:
            with contextlib.suppress(docker.errors.NotFound):  # it went between the list and this
                found.append(client.inspect_container(row["Id"]))
        return {_instance(one["Config"]["Labels"]): one for one in found}

    return ask(look)  # type: ignore[no-any-return] # the SDK has no types


def _instance(labels: dict[str, str]) -> str:
    return f"{labels['tritonfleet.replica']}.{labels['tritonfleet.generation']}"


def remove_all(fleet: str) -> None:
    """Whatever a failed test left."""

    def clear(client: Any) -> None:
        for row in client.containers(all=True, filters={"label": f"tritonfleet.fleet={fleet}"}):
            with contextlib.suppress(docker.errors.NotFound):
                client.remove_container(row["Id"], force=True, v=True)

    ask(clear)


def require_gpu_stub() -> None:
    """Skip on a daemon that is not known to believe in any GPU that is named to it."""
    if os.environ.get("TRITONFLEET_GPU_STUB") != "1":
        pytest.skip("needs a daemon with a stub of NVIDIA's runtime hook: `scripts/ci_docker.sh up DIR`")

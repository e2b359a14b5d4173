"""Images: there already, or pulled once however many replicas wait for one, its progress told in lines."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import Any

from docker import errors, utils

from tritonfleet.drivers.base import DriverError
from tritonfleet.drivers.docker_engine import Client, DockerEngine

LOOK_S = 5.0  # how long a daemon may take to answer before it counts as none
TELL_S = 2.0  # between two lines of progress
_DONE = ("Pull complete", "Already exists")


class ImageStore:
    def __init__(self, engine: DockerEngine) -> None:
        self._engine = engine
        self._pulling: dict[str, asyncio.Lock] = {}

    async def ensure(self, image: str, *, tell: Callable[[str], None]) -> None:
        """Return when the daemon has the image. Raises DriverError when it cannot be had."""
        if not image:
            raise DriverError(
                "no image is named", remedy="set triton.image in the fleet file", transient=False
            )
        async with self._pulling.setdefault(image, asyncio.Lock()):
            if not await self._engine.call(f"cannot look for image {image}", lambda c: is_present(c, image)):
                tell(f"pulling image {image}")
                await self._engine.call(f"cannot pull image {image}", lambda c: pull(c, image, tell))


def can_have(images: Iterable[str], host: str, environ: Mapping[str, str]) -> bool:
    """Whether a daemon answers that has every one of the images or knows where to pull it. Blocks."""
    engine = DockerEngine(host, environ, timeout_s=LOOK_S)
    try:
        return engine.now("look", lambda client: all(_obtainable(client, image) for image in images))
    except DriverError:
        return False
    finally:
        engine.close()


def _obtainable(client: Client, image: str) -> bool:
    if is_present(client, image):
        return True
    try:
        client.inspect_distribution(image)
    except errors.APIError:
        return False
    return True


def is_present(client: Client, image: str) -> bool:
    try:
        client.inspect_image(image)
    except errors.NotFound:
        return False
    return True


def pull(client: Client, image: str, tell: Callable[[str], None]) -> None:
    """Blocks until it is pulled. Raises DriverError with the daemon's words when it cannot be."""
    repository, tag = utils.parse_repository_tag(image)
    layers: dict[str, dict[str, Any]] = {}
    told_at = monotonic()
    try:
        steps = client.pull(repository, tag=tag or "latest", stream=True, decode=True)
    except errors.APIError as error:
        raise unavailable(image, str(error.explanation or error)) from error
    for step in steps:
        if "error" in step:
            raise unavailable(image, str(step["error"]))
        if "id" in step and "status" in step:
            layers[step["id"]] = step
        if monotonic() - told_at >= TELL_S:
            told_at = monotonic()
            tell(progress(layers))


def progress(layers: dict[str, dict[str, Any]]) -> str:
    """``pulled 3 of 7 layers, 120 of 800 MB of those that are under way``."""
    done = sum(step["status"] in _DONE for step in layers.values())
    moving = [
        step["progressDetail"] for step in layers.values() if step.get("progressDetail", {}).get("total")
    ]
    current = sum(detail.get("current", 0) for detail in moving) / 1e6
    total = sum(detail["total"] for detail in moving) / 1e6
    under_way = f", {current:.0f} of {total:.0f} MB of those that are under way" if moving else ""
    return f"pulled {done} of {len(layers)} layers{under_way}"


def unavailable(image: str, said: str) -> DriverError:
    return DriverError(
        f"there is no image {image} on this host, and it cannot be pulled: {said}",
        remedy=f"check the name; `docker pull {image}`, or build it",
        transient=False,
    )

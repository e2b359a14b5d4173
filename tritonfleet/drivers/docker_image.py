"""Images: there already, or pulled once however many replicas wait for one, its progress told as it comes."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from time import time

from docker import errors, utils

from tritonfleet.core.image_pull import ImagePull, after, summary
from tritonfleet.drivers.base import DriverError
from tritonfleet.drivers.docker_engine import Client, DockerEngine

LOOK_S = 5.0  # how long a daemon may take to answer before it counts as none
TELL_S = 2.0  # between two lines of progress in a log


class ImageStore:
    def __init__(self, engine: DockerEngine) -> None:
        self._engine = engine
        self._locks: dict[str, asyncio.Lock] = {}
        self._pulls: dict[str, ImagePull] = {}  # written by the thread that pulls, one at a time for an image

    def pulls(self) -> tuple[ImagePull, ...]:
        return tuple(self._pulls.copy().values())

    async def ensure(self, image: str, *, tell: Callable[[str], None]) -> None:
        """Return when the daemon has the image. Raises DriverError when it cannot be had."""
        if not image:
            raise DriverError(
                "no image is named", remedy="set triton.image in the fleet file", transient=False
            )
        async with self._locks.setdefault(image, asyncio.Lock()):
            if not await self._engine.call(f"cannot look for image {image}", lambda c: is_present(c, image)):
                tell(f"pulling image {image}")
                await self._engine.call(f"cannot pull image {image}", lambda c: self._pull(c, image, tell))

    def _pull(self, client: Client, image: str, tell: Callable[[str], None]) -> None:
        """Blocks. Raises DriverError."""
        told_at = began_at = time()
        found = ImagePull(image, began_at)

        def take(now: ImagePull) -> None:
            nonlocal told_at, found
            found = self._pulls[image] = now
            if time() - told_at >= TELL_S:
                told_at = time()
                tell(summary(now))

        take(found)
        try:
            pull(client, found, take)
        except BaseException as error:
            self._pulls[image] = replace(found, ended_at=time(), error=str(error) or repr(error))
            raise
        self._pulls[image] = replace(found, ended_at=time())
        tell(f"pulled image {image} in {time() - began_at:.0f} s: {summary(found)}")


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


def pull(client: Client, begun: ImagePull, take: Callable[[ImagePull], None]) -> None:
    """Blocks until it is pulled; ``take`` is given every step. Raises DriverError with the daemon's words
    when it cannot be."""
    found = begun
    repository, tag = utils.parse_repository_tag(found.image)
    try:
        steps = client.pull(repository, tag=tag or "latest", stream=True, decode=True)
    except errors.APIError as error:
        raise unavailable(found.image, str(error.explanation or error)) from error
    failure = ""
    for step in steps:  # to its end, after an error too: else the connection is left open
        failure = failure or str(step.get("error", ""))
        found = after(found, step)
        take(found)
    if failure:
        raise unavailable(found.image, failure)


def unavailable(image: str, said: str) -> DriverError:
    return DriverError(
        f"there is no image {image} on this host, and it cannot be pulled: {said}",
        remedy=f"check the name; `docker pull {image}`, or build it",
        transient=False,
    )

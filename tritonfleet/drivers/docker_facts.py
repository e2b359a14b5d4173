"""What a Docker daemon says of itself, for `doctor`: version, runtimes, which images it has. Blocks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tritonfleet.drivers.base import DriverError
from tritonfleet.drivers.docker_engine import DockerEngine
from tritonfleet.drivers.docker_image import LOOK_S, is_present


@dataclass(frozen=True, slots=True)
class DockerFacts:
    """``error`` "": it answers. ``images``: name → whether it is there."""

    host: str
    error: str = ""
    remedy: str = ""
    version: str = ""
    runtimes: tuple[str, ...] = ()
    images: dict[str, bool] = field(default_factory=dict)


def ask(images: Iterable[str], host: str, environ: Mapping[str, str]) -> DockerFacts:
    engine = DockerEngine(host, environ, timeout_s=LOOK_S)
    try:
        version, info, there = engine.now("it does not answer", lambda client: _told(client, tuple(images)))
    except DriverError as error:
        return DockerFacts(engine.host, str(error), error.remedy)
    finally:
        engine.close()
    return DockerFacts(engine.host, "", "", version, tuple(sorted(info.get("Runtimes") or {})), there)


def _told(client: Any, images: tuple[str, ...]) -> tuple[str, dict[str, Any], dict[str, bool]]:
    there = {image: is_present(client, image) for image in images}
    return str(client.version()["Version"]), client.info(), there


def images(host: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The tags of all images that the daemon has; none where it does not answer."""
    engine = DockerEngine(host, environ, timeout_s=LOOK_S)
    try:
        found = engine.now("it does not answer", lambda client: client.images())
    except DriverError:
        return ()
    finally:
        engine.close()
    return tuple(tag for image in found for tag in image.get("RepoTags") or ())

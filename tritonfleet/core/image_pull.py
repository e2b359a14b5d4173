"""A container image on its way to the Docker host, layer by layer, as the daemon tells of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

PULLED, PRESENT = "Pull complete", "Already exists"  # how a layer ends, in the daemon's words
FETCHING, UNPACKING = "Downloading", "Extracting"
_NO_LAYER = "Pulling from"  # a line about the image, with its tag in place of a layer's id


@dataclass(frozen=True, slots=True)
class Layer:
    """``status`` in the daemon's words; ``current`` of ``total``: bytes of the step it names, compressed.
    ``total`` is 0 until the layer's download has begun, and for one that was there already."""

    id: str
    status: str
    current: int = 0
    total: int = 0

    @property
    def done(self) -> bool:
        return self.status in (PULLED, PRESENT)


@dataclass(frozen=True, slots=True)
class ImagePull:
    """Times in seconds since the epoch; ``ended_at`` None while it goes on; ``error``: why it failed."""

    image: str
    began_at: float
    layers: tuple[Layer, ...] = ()
    ended_at: float | None = None
    error: str = ""

    @property
    def done(self) -> int:
        return sum(layer.done for layer in self.layers)

    @property
    def fetched(self) -> int:
        """Bytes that were downloaded so far."""
        return sum(layer.current if layer.status == FETCHING else layer.total for layer in self.layers)


def after(pull: ImagePull, step: Mapping[str, Any]) -> ImagePull:
    """The pull after one line of the daemon's answer to ``POST /images/create``."""
    name, status = str(step.get("id", "")), str(step.get("status", ""))
    if not name or not status or status.startswith(_NO_LAYER):
        return pull
    before = next((layer for layer in pull.layers if layer.id == name), None)
    layer = _moved(before or Layer(name, status), status, step.get("progressDetail") or {})
    if before is None:
        return replace(pull, layers=(*pull.layers, layer))
    return replace(pull, layers=tuple(layer if one is before else one for one in pull.layers))


def _moved(layer: Layer, status: str, detail: Mapping[str, Any]) -> Layer:
    total = max(0, int(detail.get("total") or 0)) or layer.total  # -1: the registry does not tell
    if status in (FETCHING, UNPACKING):
        return Layer(layer.id, status, int(detail.get("current") or 0), total)
    # What comes after a download names no bytes: all of them are here.
    return Layer(layer.id, status, total, total)


def summary(pull: ImagePull) -> str:
    """``3 of 7 layers, 120 MB fetched``."""
    if not pull.layers:
        return "the registry is being asked"
    return f"{pull.done} of {len(pull.layers)} layers, {pull.fetched / 1e6:.0f} MB fetched"

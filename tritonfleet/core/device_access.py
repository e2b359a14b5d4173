"""Whether a replica's container still has its GPUs, and what follows if it has not.

`systemctl daemon-reload` can take the GPUs from containers that run: systemd writes their device rules anew
and knows nothing of what NVIDIA's hook has added (nvidia-container-toolkit, issue 48). The rules are looked
at when a device is opened, so a server may go on answering with what it has open, and fail when a model is
loaded or a Python stub starts. Only a new container has the GPU again.

So a new process in the container is asked (`nvidia-smi -L`). Triton's own metrics do not tell: it keeps its
files open, and a GPU's series stays in the text whatever becomes of the GPU (``metrics.cc`` sets it to 0).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from tritonfleet.core.model import DeviceReading
from tritonfleet.core.outliers import Answers

LONGEST_FACTOR = 64  # how much rarer a container is asked that tells nothing, in units of ``every_s``
# What nvidia-smi says in a container that was detached. Other failures have other cures: a library that does
# not match the driver wants a reboot, and a GPU that is lost is lost for a new container, too.
_GONE = ("failed to initialize nvml: unknown error", "failed to initialize nvml: insufficient permissions",
         "no devices")  # fmt: skip
LONGEST_WORDS = 120  # characters of what it said, in a reason

Seen = Literal["there", "gone", "unknown"]


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """A container is asked every ``every_s``; ``failures`` answers in a row without a GPU mean that it was
    detached (0: nobody is asked); no container is replaced for it that is younger than ``pause_s``."""

    every_s: float = 60.0
    failures: int = 3
    pause_s: float = 300.0


@dataclass(frozen=True, slots=True)
class DeviceLook:
    """What ``nvidia-smi -L`` in a container ended with, and said."""

    code: int | None
    said: str


@dataclass(frozen=True, slots=True)
class DeviceAccess:
    """What is known of one container. ``had``: it has shown its GPUs once; ``gone``: answers in a row without
    them; ``blind``: looks in a row that told nothing; ``due``: when to look again."""

    had: bool = False
    gone: int = 0
    blind: int = 0
    due: float = 0.0
    said: str = ""


def seen(look: DeviceLook) -> Seen:
    """``unknown`` is everything that does not say that they were taken: no nvidia-smi in the image, a driver
    that was updated."""
    words = look.said.lower()
    if any(gone in words for gone in _GONE):
        return "gone"
    if look.code == 0:
        return "there" if "uuid:" in words else "gone"
    return "unknown"


def after_look(
    policy: AccessPolicy,
    known: DeviceAccess,
    look: DeviceLook | None,
    readings: Mapping[str, DeviceReading],
    devices: tuple[str, ...],
    now: float,
) -> DeviceAccess:
    """``look`` None: there was no answer. ``readings``: what the host's NVML says of devices, where it is
    asked; one that has trouble with them outside the container, too, was not taken from it."""
    found: Seen = "unknown" if look is None else seen(look)
    if found == "gone" and any(name in readings and readings[name].trouble for name in devices):
        found = "unknown"
    if found == "there":
        return DeviceAccess(had=True, due=now + policy.every_s)
    if found == "gone" and look is not None:
        said = " ".join(look.said.split())[:LONGEST_WORDS] or "nothing"
        return replace(known, gone=known.gone + 1, blind=0, due=now + policy.every_s, said=said)
    factor = min(2 ** min(known.blind + 1, 30), LONGEST_FACTOR)
    return replace(known, blind=known.blind + 1, due=now + policy.every_s * factor)


def detached(policy: AccessPolicy, known: DeviceAccess, started_at: float, now: float) -> str:
    """Why the container is to be replaced, or "". One that never showed a GPU has not lost it: where
    nvidia-smi fails from the start a new container would fail likewise."""
    if not known.had or known.gone < max(1, policy.failures) or now - started_at < policy.pause_s:
        return ""
    times = f"{known.gone} times in a row"
    return f"its container has lost its GPUs: nvidia-smi there says {known.said!r}, {times}"


def fails(before: Answers, now: Answers) -> bool:
    """Whether a detached replica does harm: at least half of its answers are bad since that was seen."""
    since = now.since(before)
    return since.bad > 0 and since.bad * 2 >= since.finished

"""What clients have set on the whole fleet, as a compacted journal: each thing's last word.

A client that loads a model, registers a region or changes a log level talks to "one Triton". The request
goes to every replica of now; what is kept here is sent again to every replica of later, before it serves.
Only the last word about each thing matters, so the journal is a tuple with at most one entry per (kind,
subject), ordered by revision. An *ending* (a region unregistered) is an entry too, for replicas that are
just being brought up to date; it goes when there are none.

Kinds: ``model`` (subject: its name), ``system_shm`` and ``cuda_shm`` (the region's name; "" for all of
them), ``trace`` (the model's name, or "" for the global settings), ``log`` ("").
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["model", "system_shm", "cuda_shm", "trace", "log"]
SHM: tuple[Kind, ...] = ("system_shm", "cuda_shm")
INVALID_ARGUMENT = 3  # gRPC status: what Triton says of an unknown model's trace settings


@dataclass(frozen=True, slots=True)
class Setting:
    """One last word. ``message`` is the request as protobuf bytes, to be sent to ``path`` again. ``pools``:
    the pools it was sent to, () for all. ``accepted``: of a region, the instances that took it."""

    kind: Kind
    subject: str
    path: str
    message: bytes
    revision: int = 0
    pools: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    ending: bool = False

    def dispensable(self, status: int) -> bool:
        """Whether a replica may serve without it, having refused it with this gRPC status. A region's memory
        may be gone with the client that made it, and a CUDA region exists on one GPU only; a model may have
        been unloaded since it was traced (it is told again when it is loaded). A model that cannot be loaded
        is another matter."""
        of_model = self.kind == "trace" and self.subject != ""
        return self.kind in SHM or (of_model and status == INVALID_ARGUMENT)

    def __str__(self) -> str:
        rpc = self.path.rpartition("/")[2]
        return f"{rpc} {self.subject!r}" if self.subject else rpc


def last_revision(settings: tuple[Setting, ...]) -> int:
    return max((setting.revision for setting in settings), default=0)


def put(settings: tuple[Setting, ...], new: Setting) -> tuple[Setting, ...]:
    """``new`` takes the place of what was said about its subject before, to the same pools; an ending with
    the subject "" takes the place of everything of its kind, and what is said of a model to all pools that
    of what was said to some. Its revision must be above all others."""

    def outdated(old: Setting) -> bool:
        if old.kind != new.kind:
            return False
        if new.ending and not new.subject:
            return True
        to_all = new.kind == "model" and not new.pools
        return old.subject == new.subject and (to_all or old.pools == new.pools)

    return (*(old for old in settings if not outdated(old)), new)


def without_endings(settings: tuple[Setting, ...]) -> tuple[Setting, ...]:
    """What a replica that starts from nothing needs."""
    return tuple(setting for setting in settings if not setting.ending)


def left_for(settings: tuple[Setting, ...], pool: str, seen: int) -> tuple[Setting, ...]:
    """What a replica of ``pool`` that has had everything up to revision ``seen`` still needs, in the order in
    which it is to be sent: models first, for other settings may name them."""
    left = [s for s in settings if s.revision > seen and (not s.pools or pool in s.pools)]
    if seen == 0:
        left = list(without_endings(tuple(left)))
    return tuple(sorted(left, key=lambda s: (s.kind != "model", s.revision)))


def accepted_by(
    settings: tuple[Setting, ...], revision: int, instance: str, alive: Collection[str]
) -> tuple[Setting, ...]:
    """``instance`` has taken the setting of this revision, too. Those no longer ``alive`` are forgotten."""
    return tuple(
        replace(old, accepted=(*(one for one in old.accepted if one in alive and one != instance), instance))
        if old.revision == revision
        else old
        for old in settings
    )


def partial_regions(settings: tuple[Setting, ...], serving: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The registered regions that some of the ``serving`` instances lack → those that have them. One that
    nobody has is left out: then Triton's own error is the right answer, wherever a request goes."""
    found = {}
    for setting in settings:
        holders = tuple(instance for instance in setting.accepted if instance in serving)
        if setting.kind in SHM and not setting.ending and 0 < len(holders) < len(serving):
            found[setting.subject] = holders
    return found

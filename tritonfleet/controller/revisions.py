"""The revisions of a fleet on disk: what it was asked to be, newest last, and what became of that."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tritonfleet.config import FleetSpec
from tritonfleet.controller import saved
from tritonfleet.controller.saved import Write
from tritonfleet.core.rollout import Revision

KEPT = 10
ASKED = ("start", "up")  # by whom a revision comes from the fleet file


@dataclass(frozen=True, slots=True)
class SavedRevision:
    """``spec``: the whole file as plain data, defaults and variables filled in."""

    about: Revision
    spec: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SavedRevisions:
    revisions: list[SavedRevision] = field(default_factory=list)


def plain(spec: FleetSpec) -> dict[str, Any]:
    found: dict[str, Any] = spec.model_dump(mode="json", by_alias=True)
    return found


class Revisions:
    """At most `KEPT`; the newest that was deployed is always among them."""

    def __init__(self, path: Path, write: Write = saved.write) -> None:
        self._path, self._save = path, write
        self._kept = (saved.read(path, SavedRevisions) or SavedRevisions()).revisions

    @property
    def all(self) -> tuple[Revision, ...]:
        return tuple(one.about for one in self._kept)

    @property
    def current(self) -> Revision | None:
        return self._kept[-1].about if self._kept else None

    def add(self, revision: Revision, spec: FleetSpec, **settled: Any) -> Revision:
        """``revision`` under the next number; what was still rolling is superseded, or what ``settled`` says.
        One write for both: a controller that dies in between would leave a change that nobody looks at."""
        current = self.current
        if current is not None and (settled or current.status in ("rolling", "failed")):
            values = settled or {"status": "superseded", "settled_at": revision.at}
            self._kept[-1] = replace(self._kept[-1], about=replace(current, **values))
        numbered = replace(revision, number=current.number + 1 if current else 1)
        self._kept.append(SavedRevision(numbered, plain(spec)))
        self._trim()
        self._write()
        return numbered

    def change(self, number: int, **values: Any) -> Revision:
        """Raises StopIteration for one that is not kept."""
        at = next(index for index, one in enumerate(self._kept) if one.about.number == number)
        changed = replace(self._kept[at].about, **values)
        self._kept[at] = replace(self._kept[at], about=changed)
        self._write()
        return changed

    def runs_already(self, spec: FleetSpec) -> bool:
        return bool(self._kept) and self._kept[-1].spec == plain(spec)

    def instead_of(self, spec: FleetSpec) -> tuple[Revision, FleetSpec] | None:
        """What goes on although the file says ``spec``: the file is as it was when it was last brought here,
        and that has been rolled back or undone since."""
        asked = next((one for one in reversed(self._kept) if one.about.by in ASKED), None)
        if asked is None or asked is self._kept[-1] or asked.spec != plain(spec):
            return None
        current = self._kept[-1]
        found = _valid(current)
        return (current.about, found) if found is not None else None

    def deployed(self) -> Iterator[tuple[Revision, FleetSpec]]:
        """Those that were deployed, newest first, as far as this version of the program understands them."""
        for one in reversed(self._kept):
            if one.about.status == "deployed" and (spec := _valid(one)) is not None:
                yield one.about, spec

    def spec_of(self, number: int) -> FleetSpec | None:
        return next((_valid(one) for one in self._kept if one.about.number == number), None)

    def clear(self) -> None:
        """The fleet is down."""
        self._kept = []
        self._path.unlink(missing_ok=True)

    def _trim(self) -> None:
        deployed = next((one for one in reversed(self._kept) if one.about.status == "deployed"), None)
        surplus = len(self._kept) - KEPT
        for one in [one for one in self._kept if one is not deployed][: max(surplus, 0)]:
            self._kept.remove(one)

    def _write(self) -> None:
        self._save(self._path, SavedRevisions(list(self._kept)))


def _valid(one: SavedRevision) -> FleetSpec | None:
    try:
        return FleetSpec.model_validate(one.spec)
    except ValidationError:  # written by another version
        return None

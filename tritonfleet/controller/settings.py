"""The journal of what clients set on the fleet (`core.settings`), on disk: one small file per entry."""

import hashlib
import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from tritonfleet.controller import saved
from tritonfleet.core import settings
from tritonfleet.core.settings import Setting

log = logging.getLogger(__name__)


class Settings:
    """``folder`` holds a file per entry, so a change costs one write however much was loaded before."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = [self._read(path) for path in sorted(folder.glob("*.json"))]
        self._entries = tuple(sorted((s for s in found if s is not None), key=lambda s: s.revision))
        self.revision = settings.last_revision(self._entries)

    @property
    def entries(self) -> tuple[Setting, ...]:
        return self._entries

    @staticmethod
    def _read(path: Path) -> Setting | None:
        try:
            return saved.read(path, Setting)
        except ValueError as error:
            log.error("a setting of the fleet is lost: %s", error)
            return None

    def put(self, setting: Setting) -> Setting:
        """Note a last word; it is on disk when this returns."""
        self.revision += 1
        noted = replace(setting, revision=self.revision)
        self._replace_all(settings.put(self._entries, noted))
        return noted

    def accepted(self, setting: Setting, instance: str, alive: Collection[str]) -> None:
        """A replica that came later has taken it."""
        self._replace_all(settings.accepted_by(self._entries, setting.revision, instance, alive))

    def forget_endings(self) -> None:
        """No replica is being brought up to date: endings have nothing more to end."""
        kept = settings.without_endings(self._entries)
        if kept != self._entries:
            self._replace_all(kept)

    def left_for(self, pool: str, seen: int) -> tuple[Setting, ...]:
        return settings.left_for(self._entries, pool, seen)

    def of(self, kind: settings.Kind, subject: str, pools: tuple[str, ...]) -> Setting | None:
        found = (s for s in self._entries if (s.kind, s.subject, s.pools) == (kind, subject, pools))
        return next(found, None)

    def clear(self) -> None:
        """The fleet is down: what its clients had set ends with it."""
        self._replace_all(())
        if self._folder.is_dir():
            self._folder.rmdir()

    def _replace_all(self, entries: tuple[Setting, ...]) -> None:
        before, after = set(self._entries), set(entries)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for new in after - before:
            saved.write(self._path(new), new)
        for old in {self._path(s) for s in before - after} - {self._path(s) for s in after}:
            old.unlink(missing_ok=True)
        self._entries = entries

    def _path(self, setting: Setting) -> Path:
        name = "\0".join((setting.subject, *setting.pools))
        return self._folder / f"{setting.kind}-{hashlib.sha256(name.encode()).hexdigest()[:24]}.json"

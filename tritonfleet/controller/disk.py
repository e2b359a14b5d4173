"""Writes that a disk which is full, or read-only, does not end the controller by."""

from pathlib import Path
from typing import Any

from tritonfleet.controller import saved
from tritonfleet.controller.journal import Journal


class Disk:
    """What could not be written is kept and tried again (`again`); what is there of it on disk is older."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._pending: dict[Path, Any] = {}

    def write(self, path: Path, value: Any) -> None:
        try:
            saved.write(path, value)
        except OSError as error:
            if not self._pending:
                said = (
                    f"{path} cannot be written: {error.strerror or error}; what runs goes on, and it is tried"
                )
                self._journal.add("state.unwritten", "controller", f"{said} again")
            self._pending[path] = value
            return
        if self._pending.pop(path, None) is not None and not self._pending:
            self._journal.add("state.written", "controller", f"{path} and all before it are written")

    def again(self) -> None:
        """Write what is missing."""
        for path, value in list(self._pending.items()):
            self.write(path, value)

"""Says in good time that a certificate ends (`core.certificates` judges)."""

import asyncio
from collections.abc import Iterable
from time import monotonic, time
from typing import TYPE_CHECKING

from tritonfleet.config import FleetSpec
from tritonfleet.config.certificates import read_certificates
from tritonfleet.controller.journal import Journal
from tritonfleet.core.certificates import Certificate, Validity, described, validity

if TYPE_CHECKING:
    from tritonfleet.controller.fleet import Fleet

LOOK_S = 60.0  # between two looks at the same files
TURN_S = 1.0  # until other files are looked at, which a changed fleet file names
KINDS = {
    Validity.GOOD: "certificate.good",
    Validity.ENDING: "certificate.ending",
    Validity.ENDED: "certificate.expired",
    Validity.EARLY: "certificate.early",
    Validity.UNREAD: "certificate.unread",
}


class CertificateDesk:
    """``found``: the files at the last look. The journal hears of each change for the worse, and of its
    end."""

    def __init__(self, journal: Journal) -> None:
        self.found: tuple[Certificate, ...] = ()
        self._journal = journal
        self._said: dict[str, Validity] = {}  # by use; none: good

    async def run(self, fleet: "Fleet") -> None:
        seen, due = None, 0.0
        while True:
            if fleet.spec is not seen or monotonic() >= due:
                seen, due = fleet.spec, monotonic() + LOOK_S
                await self.look(seen)
            await asyncio.sleep(TURN_S)

    async def look(self, spec: FleetSpec) -> None:
        # In a thread: files may be on a share that hangs, and the first look imports.
        self.take(await asyncio.to_thread(read_certificates, spec), time())

    def take(self, found: Iterable[Certificate], now: float) -> None:
        self.found = tuple(found)
        self._said = {use: said for use, said in self._said.items() if use in {one.use for one in self.found}}
        for one in self.found:
            state = validity(one, now)
            if state is not self._said.get(one.use, Validity.GOOD):
                self._said[one.use] = state
                self._journal.add(KINDS[state], one.use, described(one, now), path=one.path)

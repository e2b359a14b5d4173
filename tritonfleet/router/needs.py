"""What a request needs of its replica beside the model: a version of it, shared-memory regions.

Most requests need neither. Who does has a `Needs`, which names its candidates and its queue in the
dispatcher, since other replicas can serve it than the rest of its model's requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tritonfleet.router.replica import Replica

Regions = Mapping[str, frozenset[str]]  # those that some replicas lack → the instances that have them


class Needs(NamedTuple):
    model: str
    version: str = ""  # "": whichever Triton chooses
    regions: tuple[str, ...] = ()  # of those that not every replica has

    def __str__(self) -> str:
        version = f" version {self.version!r}" if self.version else ""
        regions = f" with region {', '.join(map(repr, self.regions))}" if self.regions else ""
        return f"model {self.model!r}{version}{regions}"

    def narrowed(self, replicas: list[Replica], regions: Regions) -> list[Replica]:
        """Those of ``replicas`` that have what is needed; where none of them has it, all: then Triton's own
        error is the right answer."""
        if self.version:
            having = [replica for replica in replicas if replica.row.has_version(self.model, self.version)]
            replicas = having or replicas
        for region in self.regions:
            holders = regions.get(region, frozenset())
            replicas = [replica for replica in replicas if replica.instance in holders] or replicas
        return replicas

    def distinguishing(self, replicas: Iterable[Replica]) -> Needs | None:
        """What of it makes a difference to where a request that has to wait may go. A version that none of
        ``replicas`` is known to have makes none. Clients make versions up, and each would have a queue of its
        own, to be asked at every turn."""
        rows = [one.row for one in replicas if self.model in one.row.models]
        told = any(self.version in row.versions.get(self.model, ()) for row in rows)
        if not self.version or told or len({row.has_version(self.model, self.version) for row in rows}) > 1:
            return self
        return self._replace(version="") if self.regions else None


def holders_of(regions: Mapping[str, Sequence[str]]) -> Regions:
    """The table's regions, quick to ask."""
    return {name: frozenset(instances) for name, instances in regions.items()}

"""Which replica a sequence lives on. Its state is there and nowhere else.

A sequence is pinned when its start is sent and let go when its end was answered, or when nothing was heard of
it for a while (Triton itself forgets an idle sequence, after a second by default). With several workers,
each sees only some connections: then a start goes where a hash of the sequence's name points, and a worker
that never saw the start points to the same replica.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tritonfleet.router.peek import SequenceKey
    from tritonfleet.router.replica import Replica

IDLE_S = 60.0
MOST = 200_000  # pinned at once; beyond, the oldest are let go


class Sequences:
    def __init__(self) -> None:
        self._pins: dict[SequenceKey, tuple[Replica, float]] = {}  # in the order of their last use

    def __len__(self) -> int:
        return len(self._pins)

    def replica_of(self, key: SequenceKey, now: float) -> Replica | None:
        found = self._pins.pop(key, None)
        if found is None:
            return None
        self._pins[key] = (found[0], now)
        return found[0]

    def pin(self, key: SequenceKey, replica: Replica, now: float) -> None:
        self.release(key)
        self._pins[key] = (replica, now)
        replica.sequences += 1
        if len(self._pins) > MOST:
            self.release(next(iter(self._pins)))

    def release(self, key: SequenceKey) -> None:
        found = self._pins.pop(key, None)
        if found is not None:
            found[0].sequences -= 1

    def release_replica(self, replica: Replica) -> None:
        """It is gone, and the state of its sequences with it."""
        for key in [key for key, (pinned, _) in self._pins.items() if pinned is replica]:
            self.release(key)

    def sweep(self, now: float) -> None:
        while self._pins:
            key, (_, used_at) = next(iter(self._pins.items()))
            if now - used_at < IDLE_S:
                return
            self.release(key)


def pointed_at(key: SequenceKey, replicas: Iterable[Replica]) -> Replica:
    """Rendezvous hashing: every worker points the same way, and the loss of a replica moves only what was
    there. ``replicas`` is not empty."""
    name = "\0".join(map(str, key)).encode()
    return max(replicas, key=lambda r: blake2b(name + b"\0" + r.instance.encode(), digest_size=8).digest())

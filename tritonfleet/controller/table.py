"""The router's table: built from the slots, numbered, and handed to whoever follows it."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from tritonfleet.config import FleetSpec
from tritonfleet.controller.hints import TableHints
from tritonfleet.controller.slot import Slot
from tritonfleet.core.model import ReplicaState
from tritonfleet.core.wire import RouterSettings, RouterTable, TableReplica

NO_HINTS = TableHints()
KEEPALIVE_S = 5.0  # a worker takes 15 s of silence for a dead controller


def limits(
    slot: Slot, max_inflight: str | int, learned: Mapping[str, int] = MappingProxyType({})
) -> dict[str, int]:
    """By model, how many calls the routers may send to the slot at once (a pool's ``max_inflight``)."""
    if max_inflight == "off":
        return {}
    if isinstance(max_inflight, int):
        return {model.name: max_inflight for model in slot.models}
    return {model: max(limit, learned.get(model, 0)) for model, limit in slot.slots.items()}


def rows(
    slots: Iterable[Slot],
    max_inflight: Mapping[str, str | int] = MappingProxyType({}),
    hints: TableHints = NO_HINTS,
) -> tuple[TableReplica, ...]:
    """Ready and draining replicas, by id; ``max_inflight`` by pool."""
    return tuple(
        TableReplica(
            slot.id,
            slot.instance.instance,
            slot.pool,
            slot.instance.host,
            slot.instance.grpc_port,
            slot.state is ReplicaState.DRAINING,
            tuple(model.name for model in slot.models if model.ready),
            limits(slot, max_inflight.get(slot.pool, "auto"), hints.slots.get(slot.instance.instance, {})),
            {model.name: model.versions for model in slot.models if model.ready},
            hints.paces.get(slot.instance.instance, 1.0),
            isinstance(max_inflight.get(slot.pool), int),
            slot.decoupled,
            slot.instance.tls,
        )
        for slot in sorted(slots, key=lambda slot: slot.id)
        if slot.state.serving and slot.instance is not None
    )


class TableFeed:
    """The table in force and its followers. Nothing is handed out before `open`: a controller that has just
    adopted a fleet must not tell the routers of a smaller one while it looks."""

    def __init__(self, fleet: str, policy: str, revision: int) -> None:
        self._table = RouterTable(fleet, revision, policy, ())
        self._opened = False
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def table(self) -> RouterTable:
        return self._table

    @property
    def revision(self) -> int:
        return self._table.revision

    @property
    def is_open(self) -> bool:
        return self._opened

    def open(self) -> None:
        if not self._opened:
            self._opened = True
            self._table = replace(self._table, revision=self.revision + 1)
            self._wake()

    @property
    def asleep(self) -> Mapping[str, float]:
        return self._table.asleep

    def update_from(
        self,
        slots: Iterable[Slot],
        spec: FleetSpec,
        asleep: Mapping[str, float] = MappingProxyType({}),
        hints: TableHints = NO_HINTS,
    ) -> bool:
        """Take over the slots' state and the fleet file's settings; True if the table changed."""
        queue = spec.router.queue
        settings = RouterSettings(queue.max_requests, queue.max_wait, queue.order, spec.router.retry)
        limit = {name: pool.max_inflight for name, pool in spec.pools.items()}
        return self.update(slots, spec.router.policy, settings, limit, asleep, hints)

    def update(
        self,
        slots: Iterable[Slot],
        policy: str,
        settings: RouterSettings = RouterSettings(),  # noqa: B008 # frozen
        max_inflight: Mapping[str, str | int] = MappingProxyType({}),
        asleep: Mapping[str, float] = MappingProxyType({}),
        hints: TableHints = NO_HINTS,
    ) -> bool:
        """Take over what is given; True if the table changed, and so has a new revision."""
        changed = RouterTable(
            self._table.fleet,
            self.revision,
            policy,
            rows(slots, max_inflight, hints),
            settings,
            dict(asleep),
            dict(hints.regions),
            dict(hints.priors),
        )
        if changed == self._table:
            return False
        self._table = replace(changed, revision=self.revision + 1)
        self._wake()
        return True

    async def follow(self) -> AsyncIterator[RouterTable]:
        """The table now, at every change, and every few seconds as a sign of life."""
        while not self._closed:
            changed = self._changed
            if self._opened:
                yield self._table
            try:
                async with asyncio.timeout(KEEPALIVE_S):
                    await changed.wait()
            except TimeoutError:
                continue

    def close(self) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

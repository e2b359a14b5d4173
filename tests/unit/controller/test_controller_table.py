"""The routers' table: who is in it, its revision, and those who follow it."""

import asyncio

import pytest
from controller_parts import until

from tritonfleet.controller import table as module
from tritonfleet.controller.hints import TableHints
from tritonfleet.controller.slot import Slot
from tritonfleet.controller.table import TableFeed, rows
from tritonfleet.core.model import ModelStatus, ReplicaState
from tritonfleet.core.wire import RouterSettings, RouterTable
from tritonfleet.drivers.base import Instance


def slot(name: str, state: ReplicaState, *models: ModelStatus) -> Slot:
    instance = Instance(
        "demo", "main", name, 3, "hash", ("cpu0",), "pid 1", "127.0.0.1", 2001, 2002, 2003, 0.0, 30
    )
    return Slot(name, "main", state, "", generation=3, instance=instance, models=models)


def test_only_those_that_may_hold_requests_are_in_it() -> None:
    found = rows([slot(f"main-{index}", state) for index, state in enumerate(ReplicaState)])
    states = {
        row.id: (list(ReplicaState)[int(row.id.rpartition("-")[2])].value, row.draining) for row in found
    }
    assert sorted(states.values()) == [("draining", True), ("ready", False)]


def test_a_row_names_the_instance_and_its_ready_models() -> None:
    models = (ModelStatus("digits", True, ("1",)), ModelStatus("broken", False))
    (row,) = rows([slot("main-0", ReplicaState.READY, *models)])
    assert (row.instance, row.host, row.port, row.models) == ("main-0.3", "127.0.0.1", 2001, ("digits",))
    assert row.versions == {"digits": ("1",)}
    assert [row.has_version("digits", version) for version in ("1", "2")] == [True, False]
    assert row.has_version("another", "2")  # of what it does not know it says nothing


def test_a_limit_that_was_learned_counts_where_it_is_larger() -> None:
    ready = slot("main-0", ReplicaState.READY, ModelStatus("m", True), ModelStatus("n", True))
    ready.slots = {"m": 2, "n": 16}
    hints = TableHints(slots={"main-0.3": {"m": 8, "n": 4}})
    (row,) = rows([ready], {}, hints)
    assert row.slots == {"m": 8, "n": 16}
    assert rows([ready], {"main": 3}, hints)[0].slots == {"m": 3, "n": 3}


def test_a_revision_is_a_change() -> None:
    feed = TableFeed("demo", "least_requests", 41)
    feed.open()
    assert feed.revision == 42
    one = [slot("main-0", ReplicaState.READY)]
    assert feed.update(one, "least_requests")
    assert not feed.update(one, "least_requests")
    assert feed.update(one, "round_robin")
    assert feed.update([slot("main-0", ReplicaState.DRAINING)], "round_robin")
    assert feed.revision == 45


async def test_followers_see_the_table_now_and_every_change_but_nothing_before_it_opens() -> None:
    feed = TableFeed("demo", "least_requests", 0)
    seen: list[RouterTable] = []

    async def follow() -> None:
        async for table in feed.follow():
            seen.append(table)  # noqa: PERF401 # it is looked at while it grows

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.01)
    feed.update([slot("main-0", ReplicaState.READY)], "least_requests")
    await asyncio.sleep(0.01)
    assert seen == [], "an adopting controller must not tell of a smaller fleet"
    feed.open()
    await until(lambda: len(seen) == 1)
    feed.update([], "least_requests")
    await until(lambda: len(seen) == 2)
    feed.close()
    await asyncio.wait_for(following, 5)
    assert [len(table.replicas) for table in seen] == [1, 0]
    assert seen[0].revision < seen[1].revision


async def test_silence_is_broken_before_a_worker_thinks_us_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.KEEPALIVE_S < 15
    monkeypatch.setattr(module, "KEEPALIVE_S", 0.01)
    feed = TableFeed("demo", "least_requests", 0)
    feed.open()
    stream = feed.follow()
    assert await anext(stream) == await anext(stream) == await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined] # it is a generator


def test_slots_and_settings_are_in_the_table() -> None:
    ready = slot("main-0", ReplicaState.READY, ModelStatus("digits", True, ("1",)))
    ready.slots = {"digits": 128}
    assert rows([ready])[0].slots == {"digits": 128}
    assert rows([ready], {"main": "off"})[0].slots == {}
    assert rows([ready], {"main": 7})[0].slots == {"digits": 7}
    feed = TableFeed("demo", "least_work", 0)
    assert feed.update([ready], "least_work")
    assert not feed.update([ready], "least_work")
    assert feed.update([ready], "least_work", RouterSettings(retry="off"))
    ready.slots = {"digits": 4}
    assert feed.update([ready], "least_work", RouterSettings(retry="off"))

"""Rolling changes: carried out, taken back when the new replicas fail, undone, and kept over a restart."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Any

import pytest
from controller_parts import PaperDriver, fleet_of, kinds, reasons, spec_of, states, until

from tritonfleet.config import pool_hash
from tritonfleet.controller import commands, saved
from tritonfleet.controller.adopt import adopt
from tritonfleet.controller.commands import RefusedError
from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.revisions import KEPT, SavedRevisions
from tritonfleet.core.rollout import UndoRequest
from tritonfleet.core.wire import ApplyRequest
from tritonfleet.drivers.base import DriverError, Instance, LaunchSpec

GOOD, BAD = ["--log-verbose=1"], ["--no-such-option"]


class Strict(PaperDriver):
    """Servers with the argument `BAD` end before they listen."""

    async def start(self, spec: LaunchSpec) -> Instance:
        instance = await super().start(spec)
        if spec.args == tuple(BAD):
            self[spec.instance].models = None
            self[spec.instance].end(code=1, detail="unrecognized option")
        return instance


class Change:
    """A fleet of two replicas, and its file."""

    def __init__(self, folder: Path, driver: PaperDriver, **pool: Any) -> None:
        self.folder, self.driver = folder, driver
        (folder / "repository" / "echo" / "1").mkdir(parents=True, exist_ok=True)
        self.fleet = fleet_of(folder, driver, spec_of(folder / "repository", **pool))

    def up(self, *args: str, **pool: Any) -> str:
        spec = spec_of(self.folder / "repository", triton={"args": list(args)}, **pool)
        self.fleet.file.write_text(json.dumps(spec.model_dump(mode="json", by_alias=True)))
        return commands.apply(self.fleet, ApplyRequest(str(self.fleet.file), by="test")).message

    def history(self) -> list[tuple[int, str, str]]:
        return [(one.number, one.by, one.status) for one in self.fleet.rollouts.revisions.all]

    def settled(self, number: int, status: str) -> bool:
        return any(one[0] == number and one[2] == status for one in self.history())


@asynccontextmanager
async def changing(folder: Path, driver: PaperDriver, **pool: Any) -> AsyncIterator[Change]:
    """Its loop runs; at the end it is left as by a controller that ends."""
    one = Change(folder, driver, **pool)
    fleet: Fleet = one.fleet
    await adopt(fleet)
    loop = asyncio.create_task(fleet.run())
    try:
        await until(lambda: states(fleet) == {"main-0": "ready", "main-1": "ready"})
        yield one
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        await fleet.close()
        fleet.journal.close()
    assert "controller.error" not in kinds(fleet), reasons(fleet, "controller.error")


async def test_a_change_is_a_revision_and_deployed_when_all_are_replaced(tmp_path: Path) -> None:
    async with changing(tmp_path, Strict()) as one:
        await until(lambda: one.settled(1, "deployed"))
        assert one.up(*GOOD) == "pool main: replicas are replaced one by one"
        await until(lambda: one.settled(2, "deployed"))
        assert one.history() == [(1, "start", "deployed"), (2, "up", "deployed")]
        assert len(one.driver.launched) == 4
        assert (
            "revision 2: main 2 of 2 ready with configuration" in reasons(one.fleet, "rollout.deployed")[-1]
        )
        one.up(*GOOD)  # the same again is no revision, nor is a size
        assert len(one.history()) == 2
        one.up(*GOOD, drain_timeout=7)
        await until(lambda: one.settled(3, "deployed"))
        assert len(one.driver.launched) == 4, "settings take effect without new processes"


async def test_a_change_whose_replicas_fail_is_stopped_and_rolled_back(tmp_path: Path) -> None:
    async with changing(tmp_path, Strict()) as one:
        await until(lambda: one.settled(1, "deployed"))
        before = {slot.instance for slot in one.fleet.slots.values()}
        good = one.fleet.spec
        fewest = 2

        def rolled_back() -> bool:
            nonlocal fewest
            fewest = min(fewest, list(states(one.fleet).values()).count("ready"))
            return one.settled(3, "deployed")

        one.up(*BAD)
        await until(rolled_back)
        assert one.history() == [
            (1, "start", "deployed"),
            (2, "up", "rolled_back"),
            (3, "rollback", "deployed"),
        ]
        assert fewest == 2, "no replica that served was touched"
        assert {slot.instance for slot in one.fleet.slots.values()} == before
        assert one.fleet.spec == good
        revision = one.fleet.rollouts.revisions.all[1]
        assert revision.replica == "main-2"
        assert "exited with code 1: unrecognized option" in revision.reason
        assert "starting again" not in revision.reason, "which it does not"
        (said,) = reasons(one.fleet, "rollout.rolled_back")
        assert said.startswith("revision 2 is stopped, the pool goes back to revision 1: main-2 fails again")
        tries = [name for name in one.driver.launched if name.startswith("main-2")]
        assert len(tries) == 3

        one.up(*BAD)  # asked for again, it is tried again
        await until(lambda: one.settled(4, "rolled_back"))


async def test_a_replica_that_is_never_ready_rolls_back_after_one_startup_timeout(tmp_path: Path) -> None:
    driver = Strict()
    async with changing(tmp_path, driver, startup_timeout=0.2) as one:
        await until(lambda: one.settled(1, "deployed"))
        driver.come_up_ready = False
        one.up(*GOOD, startup_timeout=0.2)
        await until(lambda: one.settled(3, "deployed"))
        assert "main-2 failed: not ready within 0.2 s" in one.fleet.rollouts.revisions.all[1].reason
        assert [name for name in driver.launched if name.startswith("main-2")] == ["main-2.1"]


async def test_what_can_never_be_launched_rolls_back_at_the_first_try(tmp_path: Path) -> None:
    driver = Strict()
    async with changing(tmp_path, driver) as one:
        await until(lambda: one.settled(1, "deployed"))
        driver.refusal = DriverError("there is no image x", remedy="pull it", transient=False)
        one.up(*GOOD)
        await until(lambda: one.settled(2, "rolled_back"))
        assert one.fleet.rollouts.revisions.all[1].reason == "main-2 failed: there is no image x (pull it)"
        driver.refusal = None
        await until(lambda: one.settled(3, "deployed"))


async def test_a_change_of_a_sleeping_pool_that_fails_when_it_wakes_is_rolled_back(tmp_path: Path) -> None:
    async with changing(tmp_path, Strict()) as one:
        await until(lambda: one.settled(1, "deployed"))
        one.fleet.sizes["main"] = 0
        one.fleet.wake()
        await until(lambda: not one.fleet.slots)
        one.up(*BAD)
        one.fleet.tick(time())
        assert one.history()[-1] == (2, "up", "rolling")
        one.fleet.sizes["main"] = 1
        one.fleet.wake()
        await until(lambda: one.settled(2, "rolled_back"))
        await until(lambda: states(one.fleet) == {"main-0": "ready"})


async def test_without_a_revision_that_was_deployed_there_is_no_way_back(tmp_path: Path) -> None:
    driver = Strict()
    driver.come_up_ready = False
    one = Change(tmp_path, driver, startup_timeout=0.1)
    await adopt(one.fleet)
    loop = asyncio.create_task(one.fleet.run())
    await until(lambda: one.settled(1, "failed"))
    assert "there is nothing to go back to" in reasons(one.fleet, "rollout.failed")[0]
    driver.come_up_ready = True
    await until(lambda: one.settled(1, "deployed"))
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    await one.fleet.close()


async def test_undo_goes_to_the_last_good_revision_or_the_one_that_is_named(tmp_path: Path) -> None:
    async with changing(tmp_path, Strict()) as one:
        await until(lambda: one.settled(1, "deployed"))
        with pytest.raises(RefusedError, match="there is no other revision"):
            commands.undo(one.fleet, UndoRequest())
        first = pool_hash(one.fleet.spec, "main")
        one.up(*GOOD)
        await until(lambda: one.settled(2, "deployed"))
        said = commands.undo(one.fleet, UndoRequest(by="anna")).message
        assert said == "back to revision 1: pool main: replicas are replaced one by one"
        await until(lambda: one.settled(3, "deployed"))
        assert {slot.config_hash for slot in one.fleet.slots.values()} == {first}
        with pytest.raises(RefusedError, match="there is no revision 9"):
            commands.undo(one.fleet, UndoRequest(9))
        with pytest.raises(RefusedError, match="already is as revision 1 says"):
            commands.undo(one.fleet, UndoRequest(1))
        commands.undo(one.fleet, UndoRequest(2))
        await until(lambda: one.settled(4, "deployed"))
        assert [by for _, by, _ in one.history()] == ["start", "up", "undo", "undo"]
        assert reasons(one.fleet, "rollout.undone") == [
            "back to revision 1 by anna",
            "back to revision 2 by user",
        ]


async def test_the_next_controller_does_not_try_again_what_was_rolled_back(tmp_path: Path) -> None:
    driver = Strict()
    async with changing(tmp_path, driver) as one:
        await until(lambda: one.settled(1, "deployed"))
        one.up(*BAD)
        await until(lambda: one.settled(3, "deployed"))
    launched = list(driver.launched)
    async with changing(tmp_path, driver, triton={"args": BAD}) as again:
        assert again.fleet.spec.pools["main"].triton.args == ()
        (said,) = reasons(again.fleet, "rollout.kept")
        assert said.startswith(
            "tritonfleet.yaml is as it was; revision 3 (pool main as in revision 1) goes on"
        )
        assert driver.launched == launched
    async with changing(tmp_path, driver, triton={"args": GOOD}) as other:  # another file is another wish
        await until(lambda: other.settled(4, "deployed"))
        assert other.fleet.spec.pools["main"].triton.args == tuple(GOOD)


async def test_a_change_goes_on_under_the_next_controller(tmp_path: Path) -> None:
    driver = Strict()
    async with changing(tmp_path, driver) as one:
        await until(lambda: one.settled(1, "deployed"))
        driver.starts.clear()
        one.up(*BAD)
        await until(lambda: "main-2" in one.fleet.slots)
    driver.starts.set()
    async with changing(tmp_path, driver, triton={"args": BAD}) as again:
        await until(lambda: again.settled(2, "rolled_back"))


async def test_only_the_last_revisions_are_kept_and_the_last_good_one(tmp_path: Path) -> None:
    async with changing(tmp_path, Strict()) as one:
        await until(lambda: one.settled(1, "deployed"))
        one.driver.starts.clear()  # nothing is deployed any more
        for number in range(KEPT + 5):
            one.up(f"--log-verbose={number}")
        kept = [number for number, _, _ in one.history()]
        assert kept == [1, *range(KEPT + 5 - KEPT + 3, KEPT + 5 + 2)]
        assert len(kept) == KEPT
        assert one.history()[1][2] == "superseded"
        one.driver.starts.set()


async def test_a_rollback_is_noted_in_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that dies between two would find a change that is taken back, and nothing in its place:
    then what has failed would be its last word."""
    last: list[str] = []
    write = saved.write

    def noting(path: Path, value: Any) -> None:
        write(path, value)
        if isinstance(value, SavedRevisions):
            last.append(value.revisions[-1].about.status)

    monkeypatch.setattr(saved, "write", noting)
    async with changing(tmp_path, Strict()) as one:
        await until(lambda: one.settled(1, "deployed"))
        one.up(*BAD)
        await until(lambda: one.settled(3, "deployed"))
    assert "rolled_back" not in last
    assert [status for _, _, status in one.history()] == ["deployed", "rolled_back", "deployed"]

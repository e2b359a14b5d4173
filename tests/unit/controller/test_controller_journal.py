"""The journal survives, numbers on, and is followed."""

import asyncio
from pathlib import Path

import pytest

from tritonfleet.controller import journal as module
from tritonfleet.controller.journal import Journal
from tritonfleet.core.model import Event


def test_numbers_go_on_in_the_next_controller(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    Journal(path).add("replica.ready", "main-0", "5 models ready after 1.2 s", cold_start_s=1.2)
    event = Journal(path).add("replica.exited", "main-0", "killed by SIGKILL")
    assert event.seq == 2
    first, second = Journal(path).since(0)
    assert (first.type, first.subject, first.data) == ("replica.ready", "main-0", {"cold_start_s": 1.2})
    assert second == event
    assert [found.seq for found in Journal(path).since(1)] == [2]


def test_a_line_that_a_crash_cut_off_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    Journal(path).add("a.b", "x", "first")
    with path.open("ab") as file:
        file.write(b'{"seq": 2, "at": 1.0, "ty')
    journal = Journal(path)
    assert [event.reason for event in journal.since(0)] == ["first"]
    journal.add("a.b", "x", "after the crash")
    assert [event.reason for event in Journal(path).since(0)] == ["first", "after the crash"]


def test_rotation_keeps_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 300)
    path = tmp_path / "events.jsonl"
    journal = Journal(path)
    for number in range(20):
        journal.add("a.b", "x", f"event {number}")
    assert path.stat().st_size < 600
    assert path.with_name("events.jsonl.1").exists()
    assert Journal(path).seq == 20
    assert len(journal.since(0)) == 20


def test_numbers_survive_a_death_right_after_rotation(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    Journal(path).add("a.b", "x", "one")
    path.replace(tmp_path / "events.jsonl.1")
    assert Journal(path).add("a.b", "x", "two").seq == 2


def test_a_full_disk_does_not_stop_the_fleet(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "missing" / "events.jsonl")
    assert journal.add("a.b", "x", "cannot be written").seq == 1
    assert len(journal.since(0)) == 1


async def test_followers_get_what_was_what_comes_and_the_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    journal.add("a.b", "x", "before")
    journal.add("a.b", "x", "also before")
    seen: list[Event] = []

    async def follow() -> None:
        async for event in journal.follow(1):
            seen.append(event)  # noqa: PERF401 # it is looked at while it grows

    following = asyncio.create_task(follow())
    await asyncio.sleep(0)
    journal.add("a.b", "x", "after")
    await asyncio.sleep(0.01)
    journal.add("a.b", "x", "later")
    journal.close()
    await asyncio.wait_for(following, 5)
    assert [event.seq for event in seen] == [2, 3, 4]

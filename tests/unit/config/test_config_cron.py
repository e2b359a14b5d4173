"""Cron expressions: what a fleet file may say, and when it is due."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
import yaml
from fleet_files import Folder

from tritonfleet.config import resolved
from tritonfleet.config.cron import checked_cron, checked_zone, last_and_next
from tritonfleet.config.errors import ConfigError

FILE = """\
version: 1
name: demo
pools:
  main:
    model_repository: models
    autoscale:
      schedule:
        - {cron: "0 8 * * mon-fri", for: 10h, min: 4, timezone: Europe/Berlin}
        - {cron: "30 22 * * *", for: 15m, min: 2}
"""


def berlin(year: int, month: int, day: int, hour: int) -> float:
    return datetime(year, month, day, hour, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()


@pytest.mark.parametrize("text", ["0 8 * * mon-fri", "*/15 8-18 1,15 jan-jun *", "0 0 * * 7", "59 23 L * *"])
def test_what_cron_takes(text: str) -> None:
    assert checked_cron(text) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "five fields"),
        ("0 8 * *", "five fields"),
        ("0 0 8 * * *", "five fields"),
        ("60 8 * * *", "wrong minute"),
        ("0 24 * * *", "wrong hour"),
        ("0 8 0 * *", "wrong day-of-month"),
        ("0 8 * 13 *", "wrong month"),
        ("0 8 * * mon-fry", "wrong day-of-week"),
        ("0 8 * * fri-mon", "wrong day-of-week"),
    ],
)
def test_what_it_does_not(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_cron(text)


@pytest.mark.parametrize("name", ["Europe/Atlantis", "", "../etc/passwd", "/etc/passwd", "Europe"])
def test_zones_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        checked_zone(name)


def test_last_and_next() -> None:
    monday = berlin(2026, 11, 23, 8)
    found = last_and_next("0 8 * * mon-fri", "Europe/Berlin", monday)
    assert found == (monday, monday + 86400)
    assert last_and_next("0 8 * * mon-fri", "Europe/Berlin", monday - 1) == (monday - 3 * 86400, monday)
    assert last_and_next("0 8 * * mon-fri", "Europe/Berlin", monday + 59.9) == found


def test_days_when_the_clock_is_changed() -> None:
    spring, autumn = berlin(2026, 3, 29, 12), berlin(2026, 10, 25, 12)
    assert last_and_next("0 8 * * *", "Europe/Berlin", spring)[0] == berlin(2026, 3, 29, 8)
    assert last_and_next("0 8 * * *", "Europe/Berlin", autumn)[0] == berlin(2026, 10, 25, 8)
    skipped = last_and_next("30 2 * * *", "Europe/Berlin", spring)[0]
    assert skipped == berlin(2026, 3, 29, 3)


def test_a_schedule_in_a_file(folder: Folder) -> None:
    scaling = folder.load(FILE).pools["main"].autoscale
    assert scaling is not None
    assert [str(entry) for entry in scaling.schedule] == [
        '"0 8 * * mon-fri" (Europe/Berlin)', '"30 22 * * *" (UTC)',
    ]  # fmt: skip
    assert [(entry.length, entry.min) for entry in scaling.schedule] == [(36000.0, 4), (900.0, 2)]


def test_the_resolved_file_has_the_files_words(folder: Folder) -> None:
    spec = folder.load(FILE)
    plain = resolved(spec)
    assert plain["pools"]["main"]["autoscale"]["schedule"][0]["for"] == "10h"
    assert folder.load(yaml.safe_dump(plain)) == spec


@pytest.mark.parametrize(
    ("right", "wrong", "line", "message"),
    [
        ("0 8 * * mon-fri", "0 25 * * mon-fri", 8, "wrong hour"),
        ("Europe/Berlin", "Europe/Atlantis", 8, "no time zone"),
        ("for: 15m", "for: soon", 9, "not a duration"),
        ("min: 2", "min: 0", 9, "at least 1"),
        ("min: 2", "min: 2, mni: 2", 9, "unknown key"),
        ("for: 15m, ", "", 9, "is missing"),
    ],
)
def test_mistakes_have_their_place(folder: Folder, right: str, wrong: str, line: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        folder.load(FILE.replace(right, wrong))
    (problem,) = caught.value.problems
    assert problem.line == line
    assert problem.column > 9
    assert message in problem.message

"""Cron expressions: checked for the fleet file, and turned into times.

Five fields (minute, hour, day of month, month, day of week), with names, ranges, lists and steps, as Debian's
cron reads them: a time that the change to summer time skips comes right after it, one that the change back
repeats comes once.
"""

from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

EXAMPLE = "0 8 * * mon-fri"


def checked_cron(text: str) -> str:
    """Raises ValueError with an example."""
    if len(text.split()) != 5:
        raise ValueError(
            f"{text!r} has not cron's five fields (minute, hour, day, month, weekday); such as {EXAMPLE!r}"
        )
    try:
        CronSim(text, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        problem = str(error).removeprefix("Bad ")
        raise ValueError(f"{text!r} is no cron expression: wrong {problem}; such as {EXAMPLE!r}") from None
    return text


def checked_zone(name: str) -> str:
    """Raises ValueError with an example."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder's name or one that leads out of them, too
        raise ValueError(
            f"{name!r} is no time zone that this host knows; such as UTC or Europe/Berlin"
        ) from None
    return name


@lru_cache(maxsize=256)
def _last_and_next(cron: str, zone: str, minute: int) -> tuple[float | None, float | None]:
    # From the minute's end backwards and from its beginning forwards: cron's times are whole minutes.
    here = ZoneInfo(zone)
    last = next(CronSim(cron, datetime.fromtimestamp(minute * 60 + 1, here), reverse=True), None)
    coming = next(CronSim(cron, datetime.fromtimestamp(minute * 60, here)), None)
    return (last.timestamp() if last else None, coming.timestamp() if coming else None)


def last_and_next(cron: str, zone: str, now: float) -> tuple[float | None, float | None]:
    """When it was last due at or before ``now``, and when it is due next; None: never in 50 years. Seconds
    since the epoch."""
    return _last_and_next(cron, zone, int(now // 60))

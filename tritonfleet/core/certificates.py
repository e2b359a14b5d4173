"""How long certificates hold, and when somebody must hear of their end. Pure; files are read in `config`."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

# Long enough to get a new one by hand. Certificates that programs renew live 90 days and are renewed when a
# third is left, or live a day and are renewed with hours left: whoever warned of those as early would always
# warn. So a fifth of the lifetime, and two weeks at most.
LONGEST_NOTICE_S = 14 * 86400.0
SHARE = 0.2


class Validity(StrEnum):
    GOOD = "good"
    ENDING = "ending"
    ENDED = "ended"
    EARLY = "early"  # it begins in the future: a clock is wrong, here or where it was made
    UNREAD = "unread"


@dataclass(frozen=True, slots=True)
class Certificate:
    """One PEM file that the fleet file names. Times in epoch seconds. ``error``: why it was not read.

    ``use``: the key in the fleet file, such as ``router.tls.cert``. Of a chain the times are those during
    which all of it holds; of a file of authorities, those during which any of it does."""

    use: str
    path: str
    begins_at: float = 0.0
    ends_at: float = 0.0
    error: str = ""


def validity(found: Certificate, now: float) -> Validity:
    if found.error:
        return Validity.UNREAD
    if now >= found.ends_at:
        return Validity.ENDED
    if now < found.begins_at:
        return Validity.EARLY
    notice_s = min(LONGEST_NOTICE_S, SHARE * (found.ends_at - found.begins_at))
    return Validity.ENDING if found.ends_at - now < notice_s else Validity.GOOD


def described(found: Certificate, now: float) -> str:
    """What is to be said of it, good or not; the file last, where a line that is too long is cut."""
    return f"{found.use} {_state(found, now)} ({found.path})"


def _state(found: Certificate, now: float) -> str:
    match validity(found, now):
        case Validity.UNREAD:
            return f"cannot be read: {found.error}"
        case Validity.ENDED:
            return f"expired on {day(found.ends_at)}: connections that check it are refused"
        case Validity.EARLY:
            return f"is not valid before {day(found.begins_at)}: is the clock right?"
        case Validity.ENDING:
            return f"expires in {left(found.ends_at - now)}, on {day(found.ends_at)}"
        case _:
            return f"is valid until {day(found.ends_at)}"


def day(at: float) -> str:
    """To the minute, in UTC as in the certificate: hours matter where one lives a day."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def left(seconds: float) -> str:
    """``12 days``, ``5 hours``, ``1 minute``: rounded down."""
    for unit, size in (("day", 86400), ("hour", 3600)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}s"
    minutes = int(seconds // 60)
    return f"{minutes} minute{'s' * (minutes != 1)}"

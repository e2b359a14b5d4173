"""When somebody hears of a certificate's end, and in which words."""

import pytest

from tritonfleet.core.certificates import Certificate, Validity, described, left, validity

DAY = 86400.0
BEGINS = 1_800_000_000.0


def lasting(days: float) -> Certificate:
    return Certificate("router.tls.cert", "/etc/server.pem", BEGINS, BEGINS + days * DAY)


@pytest.mark.parametrize(
    ("lifetime", "left_days", "expected"),
    [
        (365.0, 14.1, Validity.GOOD),
        (365.0, 13.9, Validity.ENDING),  # two weeks at most
        (90.0, 30.0, Validity.GOOD),  # when programs renew
        (60.0, 12.1, Validity.GOOD),
        (60.0, 11.9, Validity.ENDING),  # a fifth
        (1.0, 0.3, Validity.GOOD),
        (1.0, 0.1, Validity.ENDING),
        (365.0, 0.0, Validity.ENDED),
        (365.0, -1.0, Validity.ENDED),
        (365.0, 365.1, Validity.EARLY),
    ],
)
def test_the_nearer_the_end_the_worse(lifetime: float, left_days: float, expected: Validity) -> None:
    assert validity(lasting(lifetime), BEGINS + (lifetime - left_days) * DAY) is expected


def test_what_was_not_read_is_neither_good_nor_ended() -> None:
    assert validity(Certificate("x", "y", error="No such file"), BEGINS) is Validity.UNREAD


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (-1.0, "is not valid before 2027-01-15 08:00 UTC: is the clock right?"),
        (0.0, "is valid until 2028-01-15 08:00 UTC"),
        (353.0, "expires in 12 days, on 2028-01-15 08:00 UTC"),
        (365.0, "expired on 2028-01-15 08:00 UTC: connections that check it are refused"),
    ],
)
def test_what_is_said_has_the_key_the_file_and_the_date(days: float, said: str) -> None:
    assert described(lasting(365.0), BEGINS + days * DAY) == f"router.tls.cert {said} (/etc/server.pem)"


def test_what_could_not_be_read_says_why() -> None:
    unread = Certificate("router.tls.cert", "/etc/server.pem", error="Permission denied")
    assert described(unread, BEGINS) == "router.tls.cert cannot be read: Permission denied (/etc/server.pem)"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (30, "0 minutes"),
        (60, "1 minute"),
        (3600, "60 minutes"),
        (7200, "2 hours"),
        (86400, "24 hours"),
        (2 * 86400, "2 days"),
        (14 * 86400 - 1, "13 days"),
    ],
)
def test_the_time_left_is_rounded_down(seconds: float, said: str) -> None:
    assert left(seconds) == said

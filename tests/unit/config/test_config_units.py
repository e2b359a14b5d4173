"""Durations and sizes: what people write, what it means, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.config.units import LONGEST, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("250ms", 0.25),
        ("290ms", 0.29),
        ("10us", 1e-5),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        (" 30S ", 30.0),
        ("12", 12.0),
        (5, 5.0),
        (0.5, 0.5),
    ],
)
def test_durations(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        *("", "s", "30 s", "-3s", "3x", "1e3s", "٣s", True, None, [], float("nan"), float("inf"), -1, -0.5),
        *("36501d", 10**400, "9" * 400, "9" * 400 + "s"),
    ],
)
def test_what_is_no_duration(written: object) -> None:
    with pytest.raises(
        ValueError, match=r"is not a duration; write it as 250ms|is negative|is too long; at most 36500d"
    ):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("64m", 64 << 20),
        ("1g", 1 << 30),
        ("1t", 1 << 40),
        ("1.5k", 1536),
        ("2GiB", 2 << 30),
        ("1kb", 1024),
        ("7b", 7),
        ("123", 123),
        (123, 123),
        (4096.0, 4096),
        (0, 0),
    ],
)
def test_sizes(written: object, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize(
    "written", ["", "m", "64x", "-1m", "1 g", False, None, {}, float("nan"), float("inf"), -1, 0.5]
)
def test_what_is_no_size(written: object) -> None:
    with pytest.raises(ValueError, match=r"is not a size|is not a whole number of bytes"):
        parse_size(written)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.0005, "0.0005s"),
        (0.25, "250ms"),
        (1.5, "1500ms"),
        (30.0, "30s"),
        (60.0, "60s"),
        (90.0, "90s"),
        (120.0, "2m"),
        (7200.0, "2h"),
        (172800.0, "2d"),
    ],
)
def test_durations_are_shown_as_people_write_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(min_value=0, max_value=LONGEST))
def test_every_duration_reads_back_as_itself(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(min_value=0, max_value=1 << 60))
def test_every_size_reads_back_as_itself(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(0, 500), st.sampled_from(["us", "ms", "s", "m", "h", "d"]))
def test_a_written_duration_survives_being_shown(number: int, unit: str) -> None:
    seconds = parse_duration(f"{number}{unit}")
    assert parse_duration(format_duration(seconds)) == seconds

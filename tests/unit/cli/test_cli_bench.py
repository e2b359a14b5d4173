"""`bench`: what its options mean, and what its report says."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from tritonfleet.bench.results import ClientCost, Level, ServerShare, histogram, percentiles
from tritonfleet.cli.bench import milliseconds, parse_range
from tritonfleet.cli.bench_address import parse
from tritonfleet.cli.bench_png import draw, missing
from tritonfleet.cli.bench_view import latency, report
from tritonfleet.cli.exits import CliError
from tritonfleet.core.stability import Window

LATENCIES = [0.001 * step for step in range(1, 100)] + [1.0]
LEVEL = Level(
    kind="concurrency",
    value=8,
    seconds=15.0,
    requests=100,
    rate=412.3,
    mean_s=0.0123,
    percentiles_s=percentiles(LATENCIES),
    stable=True,
    reason="the last 3 windows agree: 412/s ± 1 %, 12 ms ± 2 %",
    client=ClientCost(0.11, 0.02, None, 0),
    replicas={"main-0": 40, "main-1": 60},
    replicas_by="answers",
    server=ServerShare(100, 0.002, 0.004, 3.5),
    windows=(Window(5.0, 412.0, 0.012),) * 3,
    histogram=histogram(LATENCIES),
)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("8", [8]),
        ("1:4", [1, 2, 3, 4]),
        ("1:8:3", [1, 4, 7]),
        ("10:10", [10]),
        ("0.5:1.5:0.5", [0.5, 1, 1.5]),
    ],
)
def test_ranges(text: str, values: list[float]) -> None:
    assert parse_range(text, "--request-rate-range") == values


@pytest.mark.parametrize("text", ["", "a", "4:1", "0", "1:2:0", "1:2:3:4", "1:", "nan", "1:inf", "-1:3"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(CliError, match="is not N, FROM:TO"):
        parse_range(text, "--concurrency-range")


def test_a_range_of_too_many() -> None:
    with pytest.raises(CliError, match="1000 at most"):
        parse_range("1:1001", "--concurrency-range")


def test_times_are_milliseconds_unless_they_say_otherwise() -> None:
    assert [milliseconds(text, "-p") for text in ("5000", "1.5", "5s", "2m")] == [5.0, 0.0015, 5.0, 120.0]
    with pytest.raises(CliError, match="is not a duration"):
        milliseconds("soon", "-p")


@pytest.mark.parametrize(
    ("url", "shown"), [("h:1", "h:1"), ("h", "h:8001"), ("[::1]:9", "[::1]:9"), ("::1", "[::1]:8001")]
)
def test_addresses(url: str, shown: str) -> None:
    assert str(parse(url)) == shown


@pytest.mark.parametrize("url", ["http://h:1", "h:0", "h:99999", ":1"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(CliError, match="is not HOST:PORT"):
        parse(url)


def test_three_figures() -> None:
    shown = [latency(value) for value in (0.00004, 0.0009996, 0.00412, 0.0412, 0.09996, 0.412, 4.12, None)]
    assert shown == ["0.040 ms", "1.00 ms", "4.12 ms", "41.2 ms", "100 ms", "412 ms", "4.12 s", "-"]


def test_the_report_of_one_load() -> None:
    text = report("text", "h:1", [LEVEL], 120).plain
    lines = text.splitlines()
    assert lines[0] == "text on h:1"
    assert lines[2].split() == [
        "CONCURRENCY", "REQ/S", "MEAN", "P50", "P90", "P95", "P99", "P99.9", "QUEUE", "COMPUTE",
        "BATCH", "FAILED", "WINDOWS",
    ]  # fmt: skip
    assert lines[3].split()[:4] == ["8", "412", "12.3", "ms"]
    assert lines[3].split()[-3:] == ["3.5", "0", "stable"]
    assert "replicas: main-0 40 (40 %), main-1 60 (60 %)" in text
    assert "…" in text, "the gap before the slowest is one line"
    assert " 100.0 %" in text
    assert max(map(len, lines)) <= 120


def test_the_report_of_a_range_fits_80_columns() -> None:
    levels = [replace(LEVEL, value=value, rate=value * 50.0) for value in (1, 8, 64)]
    lines = report("text", "h:1", levels, 80).plain.splitlines()
    picture = [line for line in lines if "█" in line]
    assert len(picture) == 3
    assert max(map(len, [*lines[:6], *picture])) <= 80
    assert lines[2].split()[-2:] == ["FAILED", "WINDOWS"]
    assert picture[0].count("█") < picture[2].count("█")


def test_what_is_wrong_is_said() -> None:
    level = replace(
        LEVEL, kind="request_rate", value=1000.0, stable=False, failures={"UNAVAILABLE": 7},
        failure_texts={"UNAVAILABLE": "no replica"}, unanswered=2, replicas_by="statistics",
        client=ClientCost(0.99, 0.0, 0.002, 12),
    )  # fmt: skip
    text = report("text", "h:1", [level], 120).plain
    for words in (
        "not stable",
        "the server answers 412/s of 1000/s",
        "7 × UNAVAILABLE: no replica",
        "2 not answered",
        "by Triton's statistics, warm-up included",
        "99 % of the requests left within 2.00 ms of their time; up to 12 waited here",
        "the client may be what was measured: it used 99 % of a core",
    ):
        assert words in text
    assert text.splitlines()[3].split()[-3] == "9", "failed and unanswered"


def test_nothing_answered() -> None:
    level = replace(LEVEL, requests=0, rate=0.0, mean_s=None, percentiles_s={}, histogram=(), server=None)
    assert "no request was answered with OK" in report("text", "h:1", [level], None).plain
    assert "nothing was measured" in report("text", "h:1", [], None).plain


def test_a_picture_needs_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert missing() == "matplotlib is not installed"


@pytest.mark.skipif(bool(missing()), reason="matplotlib (extra `plot`) is not installed")
@pytest.mark.parametrize("count", [1, 3])
def test_a_picture(tmp_path: Path, count: int) -> None:
    levels = [replace(LEVEL, value=float(index + 1), rate=100.0 * (index + 1)) for index in range(count)]
    draw(tmp_path / "x.png", "text", levels)
    assert (tmp_path / "x.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"

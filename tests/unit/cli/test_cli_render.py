"""What people see, against golden text: the tables at several widths, events, descriptions, progress."""

import io
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest
from fleet_samples import (
    LONG,
    NOW,
    busy_snapshot,
    event,
    pool,
    replica,
    snapshot,
    worker,
)
from rich.console import Console

from tritonfleet.cli import render
from tritonfleet.cli.describe import describe_device, describe_pool, describe_replica
from tritonfleet.cli.layout import Cell, Column, Row, fields, table
from tritonfleet.cli.terminal import frame, progress_line
from tritonfleet.core.certificates import Certificate
from tritonfleet.core.launched import Launched
from tritonfleet.core.model import ReplicaState
from tritonfleet.core.wire import RouterInfo

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("width", [80, 140, None])
def test_ps_looks_as_agreed(width: int | None) -> None:
    shown = render.ps(busy_snapshot(), width).plain + "\n"
    assert shown == (GOLDEN / f"ps_{width or 'pipe'}.txt").read_text()


def test_a_certificate_that_ends_soon_is_said_below_the_header() -> None:
    good = Certificate("router.tls.client_ca", "/etc/ca.pem", NOW - 100, NOW + 1e9)
    ends = Certificate("router.tls.cert", "/etc/server.pem", NOW - 1e9, NOW + 12.5 * 86400)
    shown = render.ps(snapshot(certificates=(good, ends))).plain.splitlines()
    assert shown[1].startswith("router.tls.cert expires in 12 days, on ")
    assert not any("client_ca" in line for line in shown)


def test_wide_looks_as_agreed() -> None:
    assert render.ps(busy_snapshot(), 140, wide=True).plain + "\n" == (GOLDEN / "ps_wide_140.txt").read_text()


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_no_table_line_is_wider_than_the_terminal(width: int) -> None:
    lines = render.ps(busy_snapshot(), width).plain.splitlines()
    assert max(len(line) for line in lines) <= max(width, 76)  # 76: the replica table without its reasons


def test_a_pipe_gets_one_line_per_row() -> None:
    shown = render.ps(busy_snapshot(), None).plain
    assert next(line for line in shown.splitlines() if line.startswith("image-0")).endswith("57s")
    assert LONG in shown


def test_every_state_has_a_word_and_its_own_glyph() -> None:
    cells = [render.state_cell(state).text for state in ReplicaState]
    assert all(cell.split(" ")[1] == state.value for cell, state in zip(cells, ReplicaState, strict=True))
    assert len({cell[0] for cell in cells}) == len(ReplicaState)


def test_colour_is_blue_and_orange_never_red_or_green() -> None:
    console = Console(force_terminal=True, color_system="256", width=140, file=io.StringIO())
    console.print(render.ps(busy_snapshot(), 140, wide=True))
    styles = console.file.getvalue()  # type: ignore[attr-defined] # it is the StringIO above
    assert "\x1b[1;34m" in styles  # blue
    assert "38;5;208" in styles  # dark orange
    assert not any(code in styles for code in ("\x1b[31m", "\x1b[32m", "\x1b[1;31m", "\x1b[1;32m"))


def test_a_worker_that_ends_at_once_is_told_while_it_lives_and_one_that_leaves_is_apart() -> None:
    looping = worker(
        reason="pid 7 exited with code 2: " + "the certificate files do not fit " * 4, short_lives=3
    )
    shown = render.ps(snapshot(router=RouterInfo("a:1", "least_work", (looping,))), 80).plain.splitlines()
    assert shown[2].startswith("router worker 0: pid 7 exited with code 2: the certificate files")
    assert max(map(len, shown[:5])) <= 80
    leaving = worker(index=1, leaving=True, reason="it finishes its calls and ends")
    shown = render.ps(
        snapshot(router=RouterInfo("a:1", "least_work", (worker(), leaving)))
    ).plain.splitlines()
    assert "(1 of 1 workers, 1 more finishes its calls, " in shown[0]
    assert not any("router worker" in line for line in shown)


def test_a_dead_router_worker_is_told_above_the_tables() -> None:
    dead = worker(running=False, restarts=3, reason="exited with code 98: address in use")
    shown = render.ps(snapshot(router=RouterInfo("127.0.0.1:8001", "least_requests", (dead,)))).plain
    assert "(0 of 1 workers, 0.0 req/s)" in shown
    assert "router worker 0: exited with code 98: address in use" in shown


def test_an_empty_fleet_and_a_stopping_one() -> None:
    shown = render.ps(snapshot(replicas=(), stopping=True, pools=(pool(desired=0, ready=0),))).plain
    assert "no replicas" in shown
    assert "stopping" in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"),
        (0, "0s"),
        (0.85, "850ms"),
        (12.9, "12s"),
        (185, "3m05s"),
        (7800, "2h10m"),
        (4 * 86400 + 3 * 3600, "4d03h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00042, "0.42ms"), (0.0183, "18.3ms"), (0.25, "250ms"), (1.25, "1.25s")]
)
def test_service_times(seconds: float, text: str) -> None:
    assert render.milliseconds(seconds) == text


def test_in_flight_is_unknown_rather_than_none_when_no_router_reports() -> None:
    silent = replica(in_flight=None)
    assert "  ?  " in render.replicas(snapshot(replicas=(silent,))).plain


def test_what_is_awaited_has_its_time_left() -> None:
    failed = replica(state=ReplicaState.FAILED, reason="killed by SIGKILL", retry_at=NOW + 8)
    assert render.replica_reason(failed, NOW) == "killed by SIGKILL; next start in 8s"
    assert (
        render.replica_reason(replace(failed, retry_at=NOW - 1), NOW) == "killed by SIGKILL; next start now"
    )
    draining = replica(state=ReplicaState.DRAINING, reason="scaled down", drain_deadline=NOW + 42)
    assert render.replica_reason(draining, NOW) == "scaled down; at most 42s more"


def test_event_line() -> None:
    assert render.event_line(event(1), UTC).plain == (
        "2027-01-15 08:00:01  replica.ready         main-0        all 5 models ready after 2.1 s"
    )


def test_only_the_clock_of_an_event_is_dim() -> None:
    line = render.event_line(event(1), UTC)
    assert line.style == ""
    assert [(span.start, span.end) for span in line.spans if span.style == "dim"] == [(0, 19)]
    assert render.header(snapshot()).style == ""


def test_describe_replica_looks_as_agreed() -> None:
    fleet = busy_snapshot()
    events = [event(2, "replica.crash_loop", "image-0", reason="4 failures within 10 minutes")]
    log = ["E1124 02:03:27.123456 99 server.cc:1] failed to load"]
    shown = describe_replica(fleet, fleet.replicas[5], events, log, "/state/logs/image-0.log", 80, UTC)
    assert shown.plain + "\n" == (GOLDEN / "describe_replica_80.txt").read_text()


@pytest.mark.parametrize("columns", [80, 120])
def test_describe_shows_a_launch_one_word_a_line(columns: int) -> None:
    fleet = busy_snapshot()
    launched = Launched(
        ("/opt/tritonserver/bin/tritonserver", "--model-repository=/srv/models", "--load-model=*"),
        {"HF_TOKEN": "********", "CUDA_VISIBLE_DEVICES": "GPU-2b6a"}, "nvcr.io/nvidia/tritonserver:25.10-py3",
        (("GPUs", "GPU-2b6a"), ("Mount", "/srv/models as /models, read only")),
    )  # fmt: skip
    shown = describe_replica(fleet, fleet.replicas[0], [], [], "x.log", columns, UTC, launched).plain
    part = shown.partition("Launch\n")[2].partition("\n\n")[0]
    assert part.splitlines() == [
        "Image        nvcr.io/nvidia/tritonserver:25.10-py3",
        "GPUs         GPU-2b6a",
        "Mount        /srv/models as /models, read only",
        "Command      /opt/tritonserver/bin/tritonserver",
        "             --model-repository=/srv/models",
        "             --load-model=*",
        "Environment  CUDA_VISIBLE_DEVICES=GPU-2b6a",
        "             HF_TOKEN=********",
    ]


def test_describe_replica_shows_its_own_statistics_only() -> None:
    fleet = busy_snapshot()
    assert "18.3ms" in describe_replica(fleet, fleet.replicas[0], [], [], "x.log").plain
    assert "18.3ms" not in describe_replica(fleet, fleet.replicas[1], [], [], "x.log").plain


def test_describe_pool_shows_its_replicas_only() -> None:
    fleet = busy_snapshot()
    shown = describe_pool(fleet, fleet.pools[0], [event(1)], 120, UTC).plain
    assert "4 desired, pinned by `scale`, 1 ready; bounds 1..4" in shown
    assert "main-4" in shown
    assert "image-0" not in shown
    assert "2027-01-15 08:00:01  replica.ready" in shown


def test_describe_device_shows_who_is_there() -> None:
    fleet = snapshot()
    shown = describe_device(fleet, fleet.devices[1]).plain
    assert "main-1" in shown
    assert "main-0" not in shown
    assert "unknown" in shown  # a CPU slot's memory


def test_progress_lines_fit_their_terminal() -> None:
    picture = frame(busy_snapshot(), "main: 1 of 4 ready", 3.2, 80)
    lines = [line.plain for line in picture.renderables]  # type: ignore[union-attr] # all of them are Text
    assert lines[0] == "demo 3s  waiting for main: 1 of 4 ready"
    assert max(len(line) for line in lines) <= 79
    assert progress_line(replica(), NOW).plain == "  main-0  ● ready       all 5 models ready after 2.1 s"


def test_a_table_aligns_numbers_right_and_wraps_reasons_under_themselves() -> None:
    columns = (Column("NAME"), Column("N", right=True))
    rows = [
        Row((Cell("a"), Cell("12")), "one two three four five six seven eight nine ten"),
        Row((Cell("bb"), Cell("3"))),
    ]
    assert table(columns, rows, 40).plain.splitlines() == [
        "NAME   N  REASON",
        "a     12  one two three four five six",
        "          seven eight nine ten",
        "bb     3",
    ]
    assert table(columns, [], 40).plain == "NAME  N  REASON"


def test_fields_wrap_under_their_values() -> None:
    shown = fields([("Name", "x"), ("Reason", "one two three four five six seven eight")], 36).plain
    assert shown.splitlines() == [
        "Name    x",
        "Reason  one two three four five six",
        "        seven eight",
    ]

"""Whole commands, from words to exit code, against a scripted controller and real files."""

import json
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import yaml
from cli_runs import Cli, fleet_file
from control_server import ControlServer
from fleet_samples import HASH, NOW, autoscale_status, busy_snapshot, event, pool, replica, snapshot

from tritonfleet.config import load_fleet
from tritonfleet.config.schema import router_hash
from tritonfleet.controller.paths import FleetPaths
from tritonfleet.core.launched import Launched
from tritonfleet.core.model import ReplicaState
from tritonfleet.core.wire import ControllerInfo, Problem

# ---------------------------------------------------------------- the command line itself


@pytest.mark.parametrize("words", [("version",), ("--version",)])
def test_version_goes_to_stdout(cli: Cli, words: tuple[str, ...]) -> None:
    outcome = cli(*words)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.count(".") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bogus",), "No such command 'bogus'"),
        (("ps", "--bogus"), "No such option: --bogus"),
        (("ps", "-o", "xml"), "'xml' is not one of"),
        (("logs", "--tail", "-1"), "--tail"),
        (("scale",), "Missing argument"),
        (("--fleet", "demo", "scale", "many"), "'many' is not a number of replicas"),
        (("up", "--wait-timeout", "soon"), "--wait-timeout: 'soon' is not a duration"),
        (("events", "--since", "yesterday", "--fleet", "demo"), "--since: 'yesterday' is not a duration"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(cli: Cli, words: tuple[str, ...], message: str) -> None:
    outcome = cli(*words)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.out == ""


def test_no_fleet_file_is_exit_code_2_and_says_where_it_looked(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("ps")
    assert outcome.code == 2
    assert f"the fleet file tritonfleet.yaml does not exist in {tmp_path}" in outcome.err
    assert "--fleet NAME" in outcome.err
    assert "other.yaml does not exist" in cli("up", "-f", "other.yaml").err
    assert "is a directory" in cli("validate", "-f", str(tmp_path)).err


def test_errors_can_be_had_as_json(cli: Cli) -> None:
    outcome = cli("--fleet", "demo", "ps", "--progress", "json")
    body = json.loads(outcome.err)
    assert outcome.code == body["code"] == 4
    assert "does not answer" in body["error"]


@pytest.mark.parametrize(
    "words",
    [
        ("ps",),
        ("scale", "2"),
        ("drain", "main-0"),
        ("undrain", "main-0"),
        ("restart", "main-0"),
        ("describe", "main"),
        ("events",),
        ("events", "-f"),
    ],
)
def test_no_controller_is_exit_code_4_and_says_how_to_start(cli: Cli, words: tuple[str, ...]) -> None:
    outcome = cli("--fleet", "demo", *words)
    assert outcome.code == 4
    assert "the controller of fleet 'demo' does not answer" in outcome.err
    assert "tritonfleet up -d" in outcome.err
    assert outcome.out == ""


# ---------------------------------------------------------------- looking


def test_ps_shows_the_tables_on_stdout_only(cli: Cli, control: ControlServer) -> None:
    control.snapshots = [busy_snapshot()]
    outcome = cli("--fleet", "demo", "ps")
    assert outcome.err == ""
    assert outcome.out == (Path(__file__).parent / "golden" / "ps_pipe.txt").read_text()
    assert cli("--fleet", "demo", "status").out == outcome.out


def test_columns_sets_the_width(cli: Cli, control: ControlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    control.snapshots = [busy_snapshot()]
    monkeypatch.setenv("COLUMNS", "80")
    assert cli("--fleet", "demo", "ps").out == (Path(__file__).parent / "golden" / "ps_80.txt").read_text()


def test_ps_in_every_form(cli: Cli, control: ControlServer) -> None:
    as_json = json.loads(cli("--fleet", "demo", "ps", "--json").out)
    assert as_json["replicas"][0]["id"] == "main-0"
    assert yaml.safe_load(cli("--fleet", "demo", "ps", "-o", "yaml").out) == as_json
    assert cli("--fleet", "demo", "ps", "-o", "name").out == "main-0\nmain-1\n"
    assert "HANDLE" in cli("--fleet", "demo", "ps", "-o", "wide").out


def test_the_environment_sets_global_options(
    cli: Cli, control: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITONFLEET_FLEET", "demo")
    monkeypatch.setenv("TRITONFLEET_OUTPUT", "name")
    assert cli("ps").out == "main-0\nmain-1\n"


def test_events_by_type_number_and_tail(cli: Cli, control: ControlServer) -> None:
    control.events = [event(1, "controller.started", "controller"), event(2), event(3, "replica.exited")]
    assert cli("--fleet", "demo", "events", "-o", "name").out == "1\n2\n3\n"
    assert cli("--fleet", "demo", "events", "-o", "name", "--type", "replica").out == "2\n3\n"
    assert cli("--fleet", "demo", "events", "-o", "name", "--type", "replica.ready").out == "2\n"
    assert cli("--fleet", "demo", "events", "-o", "name", "--type", "rep").out == ""
    assert cli("--fleet", "demo", "events", "-o", "name", "--since", "2").out == "3\n"
    assert cli("--fleet", "demo", "events", "-o", "name", "--tail", "1").out == "3\n"
    assert len(cli("--fleet", "demo", "events").out.splitlines()) == 3
    lines = cli("--fleet", "demo", "events", "--json").out.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3]
    assert [e["seq"] for e in yaml.safe_load(cli("--fleet", "demo", "events", "-o", "yaml").out)] == [1, 2, 3]


def test_a_person_gets_the_last_events_and_a_program_all(cli: Cli, control: ControlServer) -> None:
    control.events = [event(number) for number in range(1, 121)]
    assert len(cli("--fleet", "demo", "events").out.splitlines()) == 50
    assert len(cli("--fleet", "demo", "events", "-o", "name").out.splitlines()) == 120
    assert len(cli("--fleet", "demo", "events", "--since", "10").out.splitlines()) == 110


def test_followed_events_end_with_the_controller(cli: Cli, control: ControlServer) -> None:
    control.events, control.later_events = [event(1)], [event(2), event(3, "router.exited", "router")]
    outcome = cli("--fleet", "demo", "events", "-f", "--json", "--type", "replica")
    assert [json.loads(line)["seq"] for line in outcome.out.splitlines()] == [1, 2]
    assert "the controller has ended" in outcome.err


def test_events_of_a_dead_controller_come_from_its_journal(cli: Cli, paths: FleetPaths) -> None:
    lines = [msgspec.json.encode(event(1)), msgspec.json.encode(event(2)), b'{"seq": 3, "ha']
    paths.journal.write_bytes(b"\n".join(lines))
    outcome = cli("--fleet", "demo", "events", "-o", "name")
    assert (outcome.code, outcome.out) == (0, "1\n2\n")
    assert "the controller does not run" in outcome.err


def test_logs_of_one_of_a_pool_and_of_all(cli: Cli, paths: FleetPaths) -> None:
    for name in ("main-0", "main-1", "router-0", "controller"):
        (paths.logs / f"{name}.log").write_text(f"first of {name}\nlast of {name}\n")
    assert cli("--fleet", "demo", "logs", "main-0").out == "first of main-0\nlast of main-0\n"
    assert cli("--fleet", "demo", "logs", "main", "--tail", "1").out == (
        "main-0 | last of main-0\nmain-1 | last of main-1\n"
    )
    assert cli("--fleet", "demo", "logs", "router", "--tail", "1").out == "last of router-0\n"
    assert cli("--fleet", "demo", "logs", "--tail", "1").out.count("last of") == 4
    assert json.loads(cli("--fleet", "demo", "logs", "controller", "--tail", "1", "--json").out) == {
        "source": "controller",
        "line": "last of controller",
    }
    missed = cli("--fleet", "demo", "logs", "main-7")
    assert missed.code == 2
    assert "no log 'main-7' in fleet 'demo'" in missed.err
    assert "did you mean 'main-" in missed.err


def test_a_router_that_logs_elsewhere(cli: Cli, paths: FleetPaths) -> None:
    (paths.logs / "controller.log").write_text("started\n")
    outcome = cli("--fleet", "demo", "logs", "router")
    assert outcome.code == 1
    assert "the router of fleet 'demo' has logged nothing" in outcome.err
    assert "router.external" in outcome.err


def test_no_logs_yet(cli: Cli) -> None:
    outcome = cli("--fleet", "demo", "logs")
    assert outcome.code == 1
    assert "no logs yet" in outcome.err


def test_describe_each_kind(cli: Cli, control: ControlServer, paths: FleetPaths) -> None:
    (paths.logs / "main-0.log").write_text("I1124 server started\n")
    control.events = [
        event(1),
        event(2, subject="main-1"),
        event(3, "pool.scaled", "main", reason="scale: 2"),
    ]
    shown = cli("--fleet", "demo", "describe", "main-0").out
    assert "I1124 server started" in shown
    assert shown.count("replica.ready") == 1
    shown = cli("--fleet", "demo", "describe", "main").out
    assert shown.count("replica.ready") == 2
    assert "scale: 2" in shown
    assert "CPU slot" in cli("--fleet", "demo", "describe", "device/cpu1").out
    assert json.loads(cli("--fleet", "demo", "describe", "main-0", "--json").out)["id"] == "main-0"
    assert json.loads(cli("--fleet", "demo", "describe", "main", "--json").out)["desired"] == 2
    assert json.loads(cli("--fleet", "demo", "describe", "device/cpu1", "--json").out)["kind"] == "cpu"


def test_describe_shows_the_launch(cli: Cli, control: ControlServer) -> None:
    """Of a controller that does not know the question yet, all the rest."""
    assert "Launch" not in cli("--fleet", "demo", "describe", "main-0").out
    assert json.loads(cli("--fleet", "demo", "describe", "main-0", "--json").out)["launch"] is None
    control.launched = Launched(("tritonserver", "--id=1"), {"HF_TOKEN": "********"}, "triton:1")
    for name, path in (("main-0", "/replicas/main-0/launch"), ("main", "/pools/main/launch")):
        shown = cli("--fleet", "demo", "describe", name).out
        assert "--id=1\n" in shown
        assert path in [asked for _, asked, _ in control.requests]
        told = json.loads(cli("--fleet", "demo", "describe", name, "--json").out)
        assert told["launch"]["image"] == "triton:1"


@pytest.mark.parametrize(
    ("name", "near"), [("main-9", "main-"), ("mian", "main"), ("device/cpu7", "cpu"), ("zzz", "there are")]
)
def test_describe_nobody(cli: Cli, control: ControlServer, name: str, near: str) -> None:
    outcome = cli("--fleet", "demo", "describe", name)
    assert outcome.code == 2
    assert f"no {'device' if '/' in name else 'replica, pool or device'}" in outcome.err
    assert near in outcome.err


# ---------------------------------------------------------------- changing


def test_scale_names_the_only_pool(cli: Cli, control: ControlServer) -> None:
    outcome = cli("--fleet", "demo", "scale", "3")
    assert (outcome.code, outcome.out) == (0, "")
    assert "accepted /scale" in outcome.err
    assert control.requests[-1] == ("POST", "/scale", pins(sizes={"main": 3}))


def pins(**more: object) -> dict[str, object]:
    """The body of a wish about sizes."""
    return {"sizes": {}, "by": "scale", "for_s": None, "pause": [], "auto": [], **more}


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (("scale", "3", "--for", "30m"), pins(sizes={"main": 3}, for_s=1800.0)),
        (("scale", "auto"), pins(auto=["main"])),
        (("scale", "main=auto"), pins(auto=["main"])),
        (("autoscale", "pause", "--for", "1h"), pins(by="autoscale pause", pause=["main"], for_s=3600.0)),
        (("autoscale", "pause", "main"), pins(by="autoscale pause", pause=["main"])),
    ],
)
def test_sizes_are_pinned_and_set_free(
    cli: Cli, control: ControlServer, words: tuple[str, ...], body: dict[str, object]
) -> None:
    control.autoscale = [autoscale_status()]
    assert cli("--fleet", "demo", *words).code == 0
    assert control.requests[-1] == ("POST", "/scale", body)


def test_resume_frees_what_is_pinned(cli: Cli, control: ControlServer) -> None:
    control.autoscale = [autoscale_status(mode="pinned"), autoscale_status(pool="off", mode="off")]
    assert cli("--fleet", "demo", "autoscale", "resume").code == 0
    assert control.requests[-1] == ("POST", "/scale", pins(by="autoscale resume", auto=["main"]))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("autoscale", "resume"), 1, "there is nothing to resume (main: on)"),
        (("autoscale", "explain", "--for", "1h"), 2, "--for goes with pause, not with explain"),
        (("autoscale", "explain", "--since", "1h"), 2, "--since goes with history, not with explain"),
        (("autoscale", "status", "mian"), 2, "did you mean 'main'?"),
        (("scale", "main=auto", "main=3"), 2, "pool 'main' is given a size and 'auto'"),
        (("scale", "3", "--for", "ever"), 2, "--for: 'ever' is not a duration"),
    ],
)
def test_what_autoscale_refuses(
    cli: Cli, control: ControlServer, words: tuple[str, ...], code: int, message: str
) -> None:
    control.autoscale = [autoscale_status()]
    outcome = cli("--fleet", "demo", *words)
    assert outcome.code == code
    assert message in outcome.err


def test_autoscale_shows_sizes_and_reasons(cli: Cli, control: ControlServer) -> None:
    control.autoscale = [autoscale_status()]
    shown = cli("--fleet", "demo", "autoscale").out
    assert "2 held: at most target_utilization asks for 2" in " ".join(shown.split())
    assert shown.split("\n")[0].split()[:4] == ["POOL", "MODE", "SIZE", "WANTED"]
    assert json.loads(cli("--fleet", "demo", "autoscale", "--json").out)[0]["pool"] == "main"


def test_history_is_of_decisions_only(cli: Cli, control: ControlServer) -> None:
    data: dict[str, object] = {
        "before": 1, "after": 3, "asked": 3, "clipped": "", "panic": True, "minimum": 1, "maximum": 8,
        "signal.rate": 41.25, "policy.utilization": 0.65,
    }  # fmt: skip
    control.events = [
        event(1, "pool.autoscaled", "main", reason="1 → 3: panic", data=data),
        event(2, "pool.scaled", "main", reason="by hand"),
        event(3, "pool.would_autoscale", "side", reason="2 → 1: idle", data={"before": 2, "after": 1}),
    ]
    header, *rows = cli("--fleet", "demo", "autoscale", "history").out.splitlines()
    assert header.split() == ["TIME", "POOL", "FROM", "TO", "ASKED", "BOUNDS", "DONE", "REASON"]
    assert rows[0].split()[-3:] == ["→", "3:", "panic"]
    assert len(rows) == 2
    wide = cli("--fleet", "demo", "autoscale", "history", "main", "-o", "wide").out
    assert "[signals: rate 41.2; policy: utilization 0.65]" in wide
    (record,) = json.loads(cli("--fleet", "demo", "autoscale", "history", "main", "--json").out)
    assert (record["before"], record["after"], record["done"]) == (1, 3, True)
    assert record["signals"] == {"rate": 41.25}
    assert record["bounds"] == {"minimum": 1, "maximum": 8}
    assert "no size was changed" in cli("--fleet", "demo", "autoscale", "history", "--since", "3").err


def test_history_of_an_unknown_pool_names_those_there_are(cli: Cli, control: ControlServer) -> None:
    gone = event(3, "pool.autoscaled", "side", reason="2 → 1: idle", data={"before": 2, "after": 1})
    control.events = [gone]
    outcome = cli("--fleet", "demo", "autoscale", "history", "mian")
    assert outcome.code == 2
    assert "no pool 'mian' in fleet 'demo'" in outcome.err
    assert "did you mean 'main'? There are: main, side" in outcome.err
    assert cli("--fleet", "demo", "autoscale", "history", "side").code == 0  # it left the file, not history


def test_history_without_a_controller_is_read_from_the_journal(cli: Cli, paths: FleetPaths) -> None:
    data: dict[str, object] = {"before": 1, "after": 2}
    kept = [event(1, "pool.autoscaled", "main", reason="1 → 2: load", data=data), event(2)]
    paths.journal.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in kept) + b'{"seq": 3, "a')
    outcome = cli("--fleet", "demo", "autoscale", "history")
    assert outcome.code == 0
    assert f"the controller does not run; from {paths.journal}" in outcome.err
    assert [line.split()[2:5] for line in outcome.out.splitlines()[1:]] == [["main", "1", "2"]]
    unknown = cli("--fleet", "demo", "autoscale", "history", "other")
    assert unknown.code == 2
    assert "there are: main" in unknown.err


def test_explain_shows_every_answer_and_every_signal_with_its_age(cli: Cli, control: ControlServer) -> None:
    control.autoscale = [autoscale_status(mode="pinned", pinned_until=NOW + 60)]
    shown = cli("--fleet", "demo", "autoscale", "explain").out
    for words in (
        "pinned, for 1m00s more", "target_utilization 2 1.20 replicas' worth", "latency.p99 ? p99 is missing",
        "utilization 60 % 70 % 1.0s", "p99_s unknown unknown - missing", "level 1.20",
        "asked 9: replicas.max is 4",
    ):  # fmt: skip
        assert words in " ".join(shown.split()), words


def test_quiet_says_nothing(cli: Cli, control: ControlServer) -> None:
    outcome = cli("--fleet", "demo", "scale", "3", "-q")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_scale_beyond_what_is_allowed_passes_the_reason_on(cli: Cli, control: ControlServer) -> None:
    problem = Problem("invalid", "pool main: 9 is above its maximum of 4", "raise replicas.max in the file")
    control.refusals["/scale"] = (422, problem)
    outcome = cli("--fleet", "demo", "scale", "9")
    assert outcome.code == 2
    assert "error: pool main: 9 is above its maximum of 4" in outcome.err
    assert "hint: raise replicas.max in the file" in outcome.err


def test_scale_waits_and_tells_what_happens(cli: Cli, control: ControlServer) -> None:
    growing = snapshot(
        pools=(pool(desired=2, ready=1),),
        replicas=(replica("main-0"), replica("main-1", ReplicaState.LOADING)),
    )
    control.snapshots = [snapshot(), growing, growing, snapshot()]
    outcome = cli("--fleet", "demo", "scale", "2", "--wait")
    assert outcome.code == 0
    lines = outcome.err.splitlines()
    assert lines[0] == "accepted /scale"
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["main-0", "●", "ready"],
        ["main-1", "◑", "loading"],
        ["main-1", "●", "ready"],
    ]
    assert lines[4] == "pool main: 2 of 2 ready"


def test_a_wait_too_long_is_exit_code_3_and_says_for_what(cli: Cli, control: ControlServer) -> None:
    control.snapshots = [
        snapshot(
            pools=(pool(ready=1),), replicas=(replica("main-0"), replica("main-1", ReplicaState.LOADING))
        )
    ]
    outcome = cli("--fleet", "demo", "scale", "2", "--wait", "--wait-timeout", "300ms", "--progress", "quiet")
    assert outcome.code == 3
    assert "still waiting after 300ms for main: 1 of 2 ready (main-1 loading)" in outcome.err


def test_a_crash_loop_ends_a_wait_with_triton_s_own_words(
    cli: Cli, control: ControlServer, paths: FleetPaths
) -> None:
    looping = replica("main-1", ReplicaState.CRASH_LOOP, reason="exited with code 1 (3 times in 10 s)")
    control.snapshots = [snapshot(replicas=(replica("main-0"), looping))]
    log = "I1124 02:03:27.1 9 a.cc:1] fine\nE1124 02:03:27.3 9 b.cc:2] failed to load 'broken'\n"
    (paths.logs / "main-1.log").write_text(log)
    outcome = cli("--fleet", "demo", "scale", "2", "--wait", "--progress", "json")
    assert outcome.code == 1
    error = json.loads(outcome.err.splitlines()[-1])
    assert error["error"] == "main-1 is in crash_loop: exited with code 1 (3 times in 10 s)"
    assert error["details"] == ["E1124 02:03:27.3 9 b.cc:2] failed to load 'broken'"]
    assert "tritonfleet logs main-1" in error["hint"]


def test_a_controller_that_dies_during_a_wait_is_exit_code_4(cli: Cli, control: ControlServer) -> None:
    control.close_after = "/scale"
    assert cli("--fleet", "demo", "scale", "2", "--wait").code == 4


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        (
            ("drain", "main-1"),
            ("/replicas/main-1/drain", {"deadline_s": None, "force": False, "by": "drain"}),
        ),
        (
            ("drain", "main-1", "--deadline", "5s", "--force"),
            ("/replicas/main-1/drain", {"deadline_s": 5.0, "force": True, "by": "drain"}),
        ),
        (("undrain", "main-1"), ("/replicas/main-1/undrain", None)),
        (
            ("drain", "device/cpu1", "--deadline", "5s"),
            ("/devices/cpu1/drain", {"deadline_s": 5.0, "force": False, "by": "hand"}),
        ),
        (("undrain", "device/cpu1"), ("/devices/cpu1/undrain", None)),
        (("restart", "main-1.1"), ("/replicas/main-1/restart", {"force": False, "by": "restart"})),
        (("restart", "main-1", "--force"), ("/replicas/main-1/restart", {"force": True, "by": "restart"})),
    ],
)
def test_changes_of_one_replica(
    cli: Cli, control: ControlServer, words: tuple[str, ...], request_: tuple[str, object]
) -> None:
    assert cli("--fleet", "demo", *words).code == 0
    assert control.requests[-1] == ("POST", *request_)


@pytest.mark.parametrize("command", ["drain", "undrain", "restart"])
def test_an_unknown_replica_is_asked_about_before_anything_is_done(
    cli: Cli, control: ControlServer, command: str
) -> None:
    outcome = cli("--fleet", "demo", command, "main-11")
    assert outcome.code == 2
    assert "no replica 'main-11' in fleet 'demo'" in outcome.err
    assert "did you mean 'main-1'?" in outcome.err
    assert [path for _, path, _ in control.requests] == ["/snapshot"]


def test_an_unknown_device_is_named(cli: Cli, control: ControlServer) -> None:
    outcome = cli("--fleet", "demo", "drain", "device/cpu11")
    assert outcome.code == 2
    assert "no device 'cpu11' in fleet 'demo'" in outcome.err
    assert [path for _, path, _ in control.requests] == ["/snapshot"]


# ---------------------------------------------------------------- up and down


def test_up_on_a_running_fleet_hands_the_file_over(cli: Cli, control: ControlServer, tmp_path: Path) -> None:
    file = fleet_file(tmp_path)
    outcome = cli("up", "-d")
    assert outcome.code == 0
    assert "the fleet is already running: accepted /apply" in outcome.err
    method, path, body = control.requests[-1]
    assert (method, path, body["path"], body["sizes"]) == ("POST", "/apply", str(file), {})
    assert body["environ"]["NO_COLOR"] == "1"


def test_up_asks_before_ready_replicas_go(cli: Cli, control: ControlServer, tmp_path: Path) -> None:
    fleet_file(tmp_path, replicas={"min": 1, "max": 1})
    refused = cli("up", "-d")
    assert refused.code == 2
    assert "This removes 1 ready replicas: main-1." in refused.err
    assert "add -y" in refused.err
    assert not any(path == "/apply" for _, path, _ in control.requests)
    assert cli("up", "-d", "-y").code == 0
    assert control.requests[-1][1] == "/apply"


def test_dry_run_says_and_does_nothing(cli: Cli, control: ControlServer, tmp_path: Path) -> None:
    fleet_file(tmp_path)
    outcome = cli("up", "--dry-run", "--scale", "main=4")
    assert "scale pool main from 2 to 4" in outcome.out
    assert [path for _, path, _ in control.requests] == ["/snapshot"]


def test_dry_run_starts_nothing(cli: Cli, tmp_path: Path, paths: FleetPaths) -> None:
    fleet_file(tmp_path)
    outcome = cli("up", "--dry-run")
    assert outcome.code == 0
    assert outcome.out.startswith("start pool main with 2 replicas, configuration ")
    assert not paths.control_socket.exists()


def test_up_with_a_pool_that_does_not_exist(cli: Cli, tmp_path: Path) -> None:
    fleet_file(tmp_path)
    outcome = cli("up", "-d", "--scale", "mian=2")
    assert outcome.code == 2
    assert "no pool 'mian' in tritonfleet.yaml" in outcome.err
    assert "its pools: main" in outcome.err


def test_up_attached_follows_events_until_the_controller_ends(
    cli: Cli, control: ControlServer, tmp_path: Path
) -> None:
    fleet_file(tmp_path)
    control.snapshots = [snapshot(pools=(pool(config_hash=HASH),))]
    control.events, control.later_events = [event(1)], [event(2, "router.exited", "router", reason="SIGKILL")]
    outcome = cli("up")
    assert "fleet demo: main 2 of 2 ready, behind 127.0.0.1:8001" in outcome.err
    assert "router.exited" in outcome.out
    assert "the controller has ended" in outcome.err


def test_down_of_a_fleet_that_does_not_run_is_fine(cli: Cli) -> None:
    outcome = cli("--fleet", "demo", "down")
    assert outcome.code == 0
    assert "fleet demo is not running" in outcome.err


def test_down_waits_until_the_controller_is_gone(cli: Cli, control: ControlServer) -> None:
    nobody = ControllerInfo(pid=(1 << 22) + 1, started_at=NOW, version="0")  # beyond what Linux can give
    control.snapshots = [snapshot(controller=nobody)]
    control.close_after = "/down"
    outcome = cli("--fleet", "demo", "down", "-t", "5s", "-y")
    assert outcome.code == 0
    assert outcome.err.splitlines()[-1] == "fleet demo is stopped"
    assert control.requests[-1] == ("POST", "/down", {"timeout_s": 5.0, "force": False, "by": "down"})


# ---------------------------------------------------------------- the file


def test_validate_says_what_the_file_describes(cli: Cli, tmp_path: Path) -> None:
    fleet_file(tmp_path)
    outcome = cli("validate")
    assert outcome.code == 0
    assert "tritonfleet.yaml is valid: fleet demo, router 127.0.0.1:18999, pools main 1..4" in outcome.err


@pytest.mark.parametrize("command", ["up", "validate", "config", "ps", "controller"])
def test_broken_yaml_is_exit_code_2_with_its_place(cli: Cli, tmp_path: Path, command: str) -> None:
    (tmp_path / "tritonfleet.yaml").write_text("version: 1\nname: [demo\n")
    outcome = cli(command)
    assert outcome.code == 2
    assert "tritonfleet.yaml:3:1" in outcome.err or "tritonfleet.yaml:2" in outcome.err
    assert "Traceback" not in outcome.err


def test_every_mistake_of_a_file_is_shown_with_its_line_and_a_did_you_mean(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "tritonfleet.yaml").write_text(
        "version: 1\nname: demo\npools:\n  main:\n    model_repositry: .\n    replicas: {min: 3, max: 1}\n"
    )
    outcome = cli("up", "-d")
    assert outcome.code == 2
    assert "tritonfleet.yaml:5:5" in outcome.err
    assert "model_repository" in outcome.err
    assert "tritonfleet.yaml:6" in outcome.err


@pytest.mark.parametrize("command", [("validate",), ("up", "-d")])
def test_a_missing_repository_is_named(cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
    fleet_file(tmp_path, model_repository="./nowhere")
    outcome = cli(*command)
    assert outcome.code == 2
    assert "model_repository" in outcome.err
    assert str(tmp_path / "nowhere") in outcome.err


def test_config_resolves_and_hashes(cli: Cli, tmp_path: Path) -> None:
    fleet_file(tmp_path)
    resolved = yaml.safe_load(cli("config").out)
    assert resolved["pools"]["main"]["drain_timeout"] == "60s"
    assert json.loads(cli("config", "--json").out) == resolved
    name, value = cli("config", "--hash").out.split()
    assert name == "main"
    assert len(value) == 12
    assert json.loads(cli("config", "--hash", "--json").out) == {"main": value}


def test_schema_is_json(cli: Cli) -> None:
    assert json.loads(cli("schema").out)["type"] == "object"


def test_plan_is_exit_code_5_when_there_is_something_to_do(cli: Cli, tmp_path: Path) -> None:
    fleet_file(tmp_path)
    outcome = cli("plan")
    assert outcome.code == 5
    assert "start pool main with 2 replicas" in outcome.out


def test_plan_is_exit_code_0_when_there_is_nothing_to_do(
    cli: Cli, tmp_path: Path, control: ControlServer
) -> None:
    fleet_file(tmp_path)
    config_hash = json.loads(cli("config", "--hash", "-o", "json").out)["main"]
    control.snapshots = [snapshot(pools=(pool(config_hash=config_hash),))]
    outcome = cli("plan")
    assert (outcome.code, outcome.out) == (0, "fleet demo already is as its file says\n")


def test_plan_sees_what_changes_of_the_router(cli: Cli, tmp_path: Path, control: ControlServer) -> None:
    file = fleet_file(tmp_path)
    config_hash = json.loads(cli("config", "--hash", "-o", "json").out)["main"]
    known = replace(snapshot().router, config_hash=router_hash(load_fleet(file, {})))
    control.snapshots = [snapshot(pools=(pool(config_hash=config_hash),), router=known)]
    assert cli("plan").code == 0
    spec = json.loads(file.read_text())
    for change in ({"queue": {"max_requests": 7}}, {"limits": {"streams": 7}}, {"retry": "off"}):
        file.write_text(json.dumps(spec | {"router": spec.get("router", {}) | change}))
        outcome = cli("plan")
        assert (outcome.code, outcome.out) == (5, "the router's settings change\n")


def test_router_is_refused_where_the_controller_runs_it(cli: Cli, tmp_path: Path) -> None:
    fleet_file(tmp_path)
    outcome = cli("router")
    assert outcome.code == 2
    assert "the controller of fleet demo runs the router itself" in outcome.err
    assert "write `external: true` under router" in outcome.err


def test_router_becomes_the_worker_of_the_file(
    cli: Cli, tmp_path: Path, paths: FleetPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda _program, words: became.append(words))
    file = fleet_file(tmp_path)
    external = {"router": {"external": True, "workers": 2, "listen": "127.0.0.1:9"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | external))
    shutil.rmtree(paths.root)  # no controller was ever there: the workers share a file in it at once
    assert cli("router", "--worker", "1").code == 0
    assert stat.S_IMODE(paths.root.stat().st_mode) == 0o700
    (words,) = became
    for name, value in (
        ("--worker", "1"),
        ("--listen", "127.0.0.1:9"),
        ("--control", str(paths.control_socket)),
    ):
        assert words[words.index(name) + 1] == value
    outcome = cli("router", "--worker", "2")
    assert (outcome.code, len(became)) == (2, 1)
    assert "there is no worker 2" in outcome.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_router_asks_no_stranger_for_its_replicas(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.execv", lambda _program, _words: pytest.fail("it would ask a stranger's socket"))
    file = fleet_file(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"router": {"external": True}}))
    anybodys = Path("/tmp") / f"tf-{os.urandom(4).hex()}"
    squatted = anybodys / "tritonfleet-0"
    squatted.mkdir(parents=True)
    anybodys.chmod(0o1777)
    monkeypatch.setenv("TRITONFLEET_STATE_DIR", str(tmp_path / ("d" * 120)))  # too long for a socket
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(squatted))
    try:
        os.chown(squatted, 65534, 65534)
        outcome = cli("router")
        assert outcome.code == 1
        assert "tritonfleet-0 belongs to another user" in outcome.err
    finally:
        squatted.rmdir()
        anybodys.rmdir()

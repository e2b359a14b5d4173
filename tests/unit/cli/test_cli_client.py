"""The typed client against scripted answers on a real unix socket."""

import socket as sockets
from pathlib import Path

import pytest
from control_server import serve
from fleet_samples import busy_snapshot, event

from tritonfleet.cli.client import ControlClient, UnreachableError
from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.core.wire import (
    ApplyRequest,
    DownRequest,
    DrainRequest,
    Problem,
    RestartRequest,
    ScaleRequest,
)


def test_a_snapshot_crosses_unharmed() -> None:
    with serve() as control, ControlClient("demo", control.socket) as client:
        control.snapshots = [busy_snapshot()]
        assert client.snapshot() == busy_snapshot()


def test_every_wish_has_its_path_and_body() -> None:
    with serve() as control, ControlClient("demo", control.socket) as client:
        assert client.scale(ScaleRequest({"main": 3}, by="scale")).message == "accepted /scale"
        client.apply(ApplyRequest("/f.yaml", {"A": "b"}, {"main": 2}, "up"))
        client.drain("main-0", DrainRequest(12.5, force=True, by="drain"))
        client.undrain("main-0")
        client.restart("a/b", RestartRequest(force=True))
        client.down(DownRequest(3.0, force=False))
    assert control.requests == [
        (
            "POST",
            "/scale",
            {"sizes": {"main": 3}, "by": "scale", "for_s": None, "pause": [], "auto": []},
        ),
        ("POST", "/apply", {"path": "/f.yaml", "environ": {"A": "b"}, "sizes": {"main": 2}, "by": "up"}),
        ("POST", "/replicas/main-0/drain", {"deadline_s": 12.5, "force": True, "by": "drain"}),
        ("POST", "/replicas/main-0/undrain", None),
        ("POST", "/replicas/a%2Fb/restart", {"force": True, "by": "user"}),
        ("POST", "/down", {"timeout_s": 3.0, "force": False, "by": "user"}),
    ]


def test_events_since_a_number_and_followed() -> None:
    with serve() as control, ControlClient("demo", control.socket) as client:
        control.events = [event(1), event(2)]
        control.later_events = [event(3)]
        assert [e.seq for e in client.events()] == [1, 2]
        assert [e.seq for e in client.events(1, follow=True)] == [2, 3]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("invalid", ExitCode.USAGE),
        ("not_found", ExitCode.USAGE),
        ("conflict", ExitCode.FAILED),
        ("internal", ExitCode.FAILED),
        ("something new", ExitCode.FAILED),
    ],
)
def test_a_refusal_keeps_its_words_and_gets_its_exit_code(kind: str, code: ExitCode) -> None:
    with serve() as control, ControlClient("demo", control.socket) as client:
        control.refusals["/scale"] = (409, Problem(kind, "9 replicas do not fit", "raise replicas.max"))
        with pytest.raises(CliError) as caught:
            client.scale(ScaleRequest({"main": 9}))
    assert (caught.value.code, str(caught.value)) == (code, "9 replicas do not fit")
    assert caught.value.hint == "raise replicas.max"


def test_an_answer_of_another_program_is_shown() -> None:
    with serve() as control, ControlClient("demo", control.socket) as client:
        control.refusals["/scale"] = (502, b"<html>bad gateway</html>")
        with pytest.raises(CliError, match="the controller answered 502: <html>bad gateway"):
            client.scale(ScaleRequest({"main": 9}))
        control.refusals["/snapshot"] = (200, b'{"fleet": 3}')
        with pytest.raises(CliError, match="is not understood") as caught:
            client.snapshot()
    assert "different versions" in caught.value.hint


def test_nobody_there_is_exit_code_4_and_says_how_to_start(tmp_path: Path) -> None:
    with ControlClient("demo", tmp_path / "none.sock") as client, pytest.raises(UnreachableError) as caught:
        client.snapshot()
    assert caught.value.code is ExitCode.UNREACHABLE
    assert "the controller of fleet 'demo' does not answer" in str(caught.value)
    assert "it is not running" in str(caught.value)
    assert "tritonfleet up -d" in caught.value.hint


def test_a_socket_left_behind_by_a_killed_controller_is_the_same() -> None:
    with serve() as control:
        left = control.socket.parent / "left.sock"
        with sockets.socket(sockets.AF_UNIX) as dead:
            dead.bind(str(left))
        with ControlClient("demo", left) as client, pytest.raises(UnreachableError, match="refused"):
            client.snapshot()
        with ControlClient("demo", left) as client, pytest.raises(UnreachableError):
            list(client.events(follow=True))

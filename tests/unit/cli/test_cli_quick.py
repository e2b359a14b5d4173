"""Only the command that was asked for is made, and options mean what they mean without the short cuts."""

import pytest
from cli_runs import Cli
from control_server import ControlServer

from tritonfleet.cli.main import app
from tritonfleet.cli.quick import narrowed


def names(words: list[str]) -> set[str]:
    found = narrowed(app, words)
    commands = {info.name or info.callback.__name__ for info in found.registered_commands if info.callback}
    return commands | {str(info.name) for info in found.registered_groups}


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["-o", "json", "ps"], {"ps"}),
        (["status"], {"status"}),
        (["models", "ls"], {"models"}),
        (["--fleet", "ps", "down"], {"down"}),
    ],
)
def test_one_command_is_left(words: list[str], left: set[str]) -> None:
    assert names(words) == left


@pytest.mark.parametrize("words", [[], ["--help"], ["nothing"], ["-o", "json"], ["--", "ps"]])
def test_else_all_are_there(words: list[str]) -> None:
    assert names(words) >= {"ps", "up", "models", "service"}
    assert narrowed(app, words) is app


def test_the_whole_command_line_is_as_it_was(cli: Cli, control: ControlServer) -> None:
    assert control.socket.exists()
    assert cli("--fleet", "demo", "ps", "-o", "name").out.split() == ["main-0", "main-1"]
    assert "Did you mean 'ps'?" in cli("pss").err
    assert "doctor" in cli("--help").out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--fleet", "demo", "logs", "--tail", "x"), 2, "--tail"),
        (("--fleet", "demo", "ps", "-o", "xml"), 2, "'xml' is not one of"),
        (("--fleet", "demo", "autoscale", "nonsense"), 2, "'nonsense' is not one of"),
        (("drain",), 2, "Missing argument"),
        (("--fleet",), 2, "--fleet"),
    ],
)
def test_what_is_wrong_is_told_in_typer_s_words(
    cli: Cli, words: tuple[str, ...], code: int, said: str
) -> None:
    outcome = cli(*words)
    assert (outcome.code, outcome.out) == (code, "")
    assert said in outcome.err


def test_the_environment_gives_options(
    cli: Cli, control: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert control.socket.exists()
    monkeypatch.setenv("TRITONFLEET_FLEET", "demo")
    monkeypatch.setenv("TRITONFLEET_OUTPUT", "name")
    assert cli("ps").out.split() == ["main-0", "main-1"]
    monkeypatch.setenv("TRITONFLEET_OUTPUT", "nonsense")
    assert cli("ps").code == 2

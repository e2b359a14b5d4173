"""Every command on the pages exists as it is written there, and is run by a test or cannot be run by one.

`tritonfleet` commands are parsed by the program's own parser. Which test runs which is said below; a new
command on a page, a renamed option, a removed test or make target is noticed here.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import ROOT, Command, named, shown
from typer.testing import CliRunner

from tritonfleet.cli.main import app
from tritonfleet.cli.options import hoist

HERE = "here"
# By what follows `tritonfleet`: the test file that runs it, in which its words and options must occur.
RUN_BY = {
    "autoscale": "unit/cli/test_cli_commands.py",
    "bench": "e2e/test_cli_fleet.py",
    "describe": "unit/cli/test_cli_commands.py",
    "doctor": "unit/cli/test_cli_doctor.py",
    "drain": "unit/cli/test_cli_commands.py",
    "events": "unit/cli/test_cli_commands.py",
    "init": "unit/cli/test_cli_init.py",
    "logs": "unit/cli/test_cli_commands.py",
    "models": "unit/cli/test_cli_models.py",
    "plan": "unit/cli/test_cli_plan.py",
    "ps": "unit/cli/test_cli_commands.py",
    "restart": "unit/cli/test_cli_commands.py",
    "rollout": "e2e/test_rollout.py",
    "scale": "unit/cli/test_cli_commands.py",
    "schema": HERE,
    "simulate": HERE,
    "undrain": "unit/cli/test_cli_commands.py",
    "up": "e2e/test_cli_lifecycle.py",
    "validate": HERE,
}
# What no test runs as it is written, and why; the beginnings of commands.
NOT_RUN = {
    "tritonfleet doctor --gpu": "a GPU; what it says without one is in unit/cli/test_cli_doctor.py",
    "docker compose": "Docker and the images; tests/docker/test_docker_compose.py starts the same files",
    "sh scripts/ci_docker.sh": "root, and hours",
    "pip install --no-deps": "a download of 84 MB; `make dev` does it",
    "git clone": "a network",
    "make up": "its steps are .ci/run's, on a machine that has nothing yet",
    "make bench-autoscale": "minutes; tests/benchmarks/test_autoscale_benchmark.py runs a short form of it",
    "python -m pytest -m docker": "Docker; it is the tests of tests/docker",
}
# Names and numbers, which a test has of its own.
VALUES = re.compile(
    r"echo|digits|text_work|poisson|json|[A-Z][A-Z/]*|[\d.]+[a-z]*|main(-\d)?|auto|device/.*|.*\.(npz|csv|png|yaml)|.*[=:].*"
)
COMMANDS = shown()
OURS = [command for command in COMMANDS if command.program == "tritonfleet"]


def command_line() -> Any:
    return typer.main.get_command(app)


def parse(words: list[str]) -> list[str]:
    """The names of the commands that the words lead to; what they are called with is parsed and not run.
    Raises what the command line itself would show as an error."""
    command, path = command_line(), []
    context = command.make_context("tritonfleet", hoist(words))
    while hasattr(command, "commands") and context._protected_args + context.args:
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        path.append(name)
        context = command.make_context(name, rest, parent=context)
    return path


def needs(command: Command) -> str:
    text = " ".join(command.words)
    return next((why for begins, why in NOT_RUN.items() if text.startswith(begins)), "")


def test_the_pages_show_commands() -> None:
    assert len(OURS) > 40
    assert {command.program for command in COMMANDS} >= {"tritonfleet", "make", "docker", "sh"}


@pytest.mark.parametrize(
    "wrong", ["ps --wide", "scale", "autoscale explian", "models list", "pss", "logs --tail x"]
)
def test_a_wrong_command_would_be_noticed(wrong: str) -> None:
    with pytest.raises(typer._click.exceptions.UsageError):
        parse(wrong.split())


@pytest.mark.parametrize("command", OURS, ids=str)
def test_our_commands_are_understood_and_run_by_a_test(command: Command) -> None:
    path = parse(list(command.words[1:]))
    assert path
    if needs(command):
        return
    by = RUN_BY[path[0]]
    if by == HERE:
        return
    text = (ROOT / "tests" / by).read_text()
    words = [word.partition("=")[0] for word in command.words[1:] if not VALUES.fullmatch(word)]
    missing = [word for word in words if f'"{word}' not in text and f" {word}" not in text]
    assert not missing, f"tests/{by} does not use {missing}"


@pytest.mark.parametrize("begins", NOT_RUN)
def test_what_is_not_run_is_on_a_page(begins: str) -> None:
    assert any(" ".join(command.words).startswith(begins) for command in COMMANDS)


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.program != "tritonfleet"], ids=str)
def test_other_commands_name_what_exists_and_say_what_they_need(command: Command) -> None:
    if command.program == "make":
        check_make(command)
    for word in command.words[1:]:
        if word.endswith((".sh", ".py")):
            assert (ROOT / word).exists(), word
        if command.program == "docker" and word.endswith(".yaml"):
            assert (ROOT / "compose" / word).exists(), word
    assert needs(command), "no test runs it: say why in NOT_RUN"
    within = list(command.words)
    if (
        command.program == "docker" and within.count("tritonfleet") == 2
    ):  # docker compose exec SERVICE COMMAND
        assert parse(within[within.index("tritonfleet") + 2 :])


def check_make(command: Command) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in command.words[1:]:
        name, sign, _ = word.partition("=")
        if sign:
            assert re.search(rf"^{name} \?=|\$\({name}\)", makefile, re.MULTILINE), word
        elif name.islower():
            assert re.search(rf"^{re.escape(name)}:", makefile, re.MULTILINE), word


@pytest.mark.parametrize("command", sorted(set(named(command_line().commands))), ids=str)
def test_what_the_text_names_exists(command: Command) -> None:
    if command.program == "make":
        check_make(Command(command.page, tuple(shlex.split(" ".join(command.words)))))
        return
    found, known = command_line(), options_of(command_line())
    for word in command.words[1:]:
        if word.startswith("-"):
            assert word.partition("=")[0] in known, word
        elif word in getattr(found, "commands", {}):
            found = found.commands[word]
            known |= options_of(found)
    assert found.name != "tritonfleet" or "--install-completion" in command.words


def options_of(command: Any) -> set[str]:
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts)}


def test_the_readme_lists_commands_with_options_that_they_have() -> None:
    table = (ROOT / "README.md").read_text().partition("## Commands")[2].partition("\n\nGlobal")[0]
    listed = set()
    for row in re.findall(r"^\| (`.*`.*?) \| ", table.replace("\\|", "¦"), re.MULTILINE):
        commands = [name for name in re.findall(r"[`\s]([a-z]+)", row) if name in command_line().commands]
        known = {option for name in commands for option in options_of(command_line().commands[name])}
        known |= options_of(command_line())
        assert not set(re.findall(r"(?<![\w-])--?[a-z-]+", row)) - known, row
        listed |= set(commands)
    hidden = {name for name, command in command_line().commands.items() if command.hidden}
    assert listed >= set(command_line().commands) - hidden - {"version"}


@pytest.mark.parametrize(
    "command", [one for one in OURS if one.words[1:2] in (("simulate",), ("schema",), ("validate",))], ids=str
)
def test_the_cheap_ones_run(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulations of two minutes instead of hours; a trace with the columns that are named."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tritonfleet.yaml").write_text((ROOT / "tritonfleet.yaml").read_text())
    (tmp_path / "model_repository").symlink_to(ROOT / "model_repository")
    (tmp_path / "trace.csv").write_text("TIMESTAMP,Prompt,Answer\n0,100,20\n1,200,10\n")
    words = list(command.words[1:])
    if words[0] == "simulate":
        words += ["--duration", "2m"]
    result = CliRunner().invoke(app, hoist(words))
    assert result.exit_code == 0, result.output
    assert result.stdout or "validate" in command.words


@pytest.mark.parametrize("words", [["--help"], ["config"], ["config", "--hash"], ["version"]])
def test_what_needs_no_fleet_runs(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert result.stdout

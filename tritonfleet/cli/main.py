"""The command line: options in, one function of another module called, an exit code out.

Everything heavy (rich, httpx, pydantic) is imported inside the command that needs it, so that help,
completion and `version` answer at once.
"""

import sys
from typing import Annotated, Literal

import typer

from tritonfleet.cli import (
    bench_commands,
    completion,
    file_commands,
    host_commands,
    model_commands,
    watch_commands,
)
from tritonfleet.cli.common import GLOBAL_HELP, Scale, seconds, settings_of
from tritonfleet.cli.options import hoist
from tritonfleet.cli.quick import QuickGroup, narrowed

WAIT_TIMEOUT = "10m"

EXIT_CODES = (
    "Exit codes: 0 ok, 1 failed, 2 usage or fleet file, 3 wait timed out, 4 controller unreachable, "
    "5 changes (plan), 130 interrupted."
)

app = typer.Typer(
    name="tritonfleet",
    cls=QuickGroup,
    help="Replicas of NVIDIA Triton behind one gRPC address: started, watched, scaled, replaced.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    """As ``version``, which is what most programs are asked by."""
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    file: Annotated[
        str,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            envvar="TRITONFLEET_FILE",
            help="The fleet file.  [default: tritonfleet.yaml]",
        ),
    ] = "",
    fleet: Annotated[
        str,
        typer.Option(
            "--fleet",
            envvar="TRITONFLEET_FLEET",
            help="A running fleet by name, without its file.",
            autocompletion=completion.fleets,
        ),
    ] = "",
    output: Annotated[
        Literal["table", "wide", "json", "yaml", "name"],
        typer.Option("--output", "-o", envvar="TRITONFLEET_OUTPUT", help="Form of data on stdout."),
    ] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="Short for -o json.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", envvar="TRITONFLEET_QUIET", help="No messages but errors.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", envvar="TRITONFLEET_VERBOSE", help="Say what is used, too.")
    ] = False,
    progress: Annotated[
        Literal["auto", "plain", "json", "quiet"],
        typer.Option("--progress", envvar="TRITONFLEET_PROGRESS", help="Form of progress on stderr."),
    ] = "auto",
    no_input: Annotated[
        bool, typer.Option("--no-input", envvar="TRITONFLEET_NO_INPUT", help="Never ask a question.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="The version of this program."),
    ] = False,
) -> None:
    context.obj = {
        "file": file,
        "fleet": fleet,
        "output": "json" if as_json else output,
        "quiet": quiet,
        "verbose": verbose,
        "progress": progress,
        "no_input": no_input,
    }


Replica = Annotated[
    str,
    typer.Argument(
        metavar="REPLICA",
        help="A replica, as `ps` names it: main-0.",
        autocompletion=completion.replicas,
    ),
]
ReplicaOrDevice = Annotated[
    str,
    typer.Argument(
        metavar="REPLICA|device/ID",
        help="A replica, as `ps` names it, or a device.",
        autocompletion=completion.drained,
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Return when every replica is ready, or say why not.")]
WaitTimeout = Annotated[
    str, typer.Option("--wait-timeout", metavar="DURATION", help="Give up waiting then, with exit code 3.")
]


@app.command(epilog=GLOBAL_HELP)
def up(
    context: typer.Context,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return; do not stay attached.")] = False,
    wait: Wait = False,
    wait_timeout: WaitTimeout = WAIT_TIMEOUT,
    scale: Scale = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before ready replicas are removed.")
    ] = False,
) -> None:
    """Start the fleet, or bring it to the file's state.

    What still runs is adopted, never started twice. Without -d the command stays attached: it shows the
    way to ready, then events. Ctrl-C lets go and never stops the fleet.
    """
    from tritonfleet.cli import up as command

    timeout_s = seconds(wait_timeout, "--wait-timeout")
    command.up(
        settings_of(context), scale or [], timeout_s, detach=detach, wait=wait, dry_run=dry_run, yes=yes
    )


@app.command(epilog=GLOBAL_HELP)
def down(
    context: typer.Context,
    timeout: Annotated[
        str,
        typer.Option("--timeout", "-t", metavar="DURATION", help="Drain for so long.  [default: the pool's]"),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Do not drain: kill at once.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Drain and stop everything: replicas, router, controller."""
    from tritonfleet.cli import up as command

    timeout_s = seconds(timeout, "--timeout") if timeout else None
    command.down(settings_of(context), timeout_s, force=force, yes=yes)


@app.command(epilog=GLOBAL_HELP)
def scale(
    context: typer.Context,
    sizes: Annotated[
        list[str],
        typer.Argument(
            metavar="N | POOL=N | auto | POOL=auto...",
            help="The size to hold.",
            autocompletion=completion.sizes,
        ),
    ],
    wait: Wait = False,
    wait_timeout: WaitTimeout = WAIT_TIMEOUT,
    duration: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="Hold it for so long only.")
    ] = "",
) -> None:
    """Pin the size of a pool; auto ends that.

    While a size is pinned, the load does not change it.
    """
    from tritonfleet.cli import change

    timeout_s = seconds(wait_timeout, "--wait-timeout")
    for_s = seconds(duration, "--for") if duration else None
    change.scale(settings_of(context), sizes, timeout_s, wait=wait, for_s=for_s)


@app.command(epilog=GLOBAL_HELP)
def autoscale(
    context: typer.Context,
    action: Annotated[
        Literal["status", "explain", "history", "pause", "resume"],
        typer.Argument(help="Sizes and reasons; all a decision rests on; past decisions; hold sizes; go on."),
    ] = "status",
    pool: Annotated[
        str, typer.Argument(metavar="[POOL]", help="Only this one.", autocompletion=completion.pools)
    ] = "",
    duration: Annotated[str, typer.Option("--for", metavar="DURATION", help="Pause for so long only.")] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="DURATION|NUMBER", help="history: that old at most.")
    ] = "",
) -> None:
    """How the load sets sizes, and why."""
    from tritonfleet.cli import autoscale as command

    for_s = seconds(duration, "--for") if duration else None
    command.autoscale(settings_of(context), action, pool, for_s, since)


@app.command(epilog=GLOBAL_HELP)
def rollout(
    context: typer.Context,
    action: Annotated[
        Literal["status", "history", "undo"],
        typer.Argument(help="How the last change of the file does; all revisions; back to one of them."),
    ] = "status",
    revision: Annotated[
        int | None, typer.Argument(metavar="[REVISION]", help="undo: to this one, not the last good one.")
    ] = None,
    wait: Wait = False,
    wait_timeout: WaitTimeout = WAIT_TIMEOUT,
) -> None:
    """Changes of the fleet file, as they are carried out.

    status exits with 1 when the last one was rolled back or fails.
    """
    from tritonfleet.cli import rollout as command

    timeout_s = seconds(wait_timeout, "--wait-timeout")
    command.rollout(settings_of(context), action, revision, timeout_s, wait=wait)


@app.command(epilog=GLOBAL_HELP)
def ps(context: typer.Context) -> None:
    """Pools, then replicas, each with its reason.

    -o wide adds ports, process, models and Triton's own statistics.
    """
    from tritonfleet.cli import ps as command

    command.ps(settings_of(context))


app.command("status", hidden=True, help="The same as ps.")(ps)
watch_commands.register(app)


@app.command(epilog="-f follows here; a fleet file is --file. " + GLOBAL_HELP)
def logs(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="[POOL|REPLICA|router|controller]",
            help="Whose; without it, all.",
            autocompletion=completion.logs,
        ),
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are added.")] = False,
    tail: Annotated[int, typer.Option("--tail", min=0, help="Lines from the end of each log.")] = 100,
) -> None:
    """The last lines of logs."""
    from tritonfleet.cli import show

    show.logs(settings_of(context), name, tail, follow=follow)


@app.command(epilog="-f follows here; a fleet file is --file. " + GLOBAL_HELP)
def events(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they happen.")] = False,
    since: Annotated[
        str, typer.Option("--since", metavar="DURATION|NUMBER", help="10m: that old at most; 120: after it.")
    ] = "",
    kind: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="replica, replica.ready, pool, router, ...")
    ] = "",
    tail: Annotated[
        int | None, typer.Option("--tail", min=0, help="The last so many.  [default: 50 as a table]")
    ] = None,
) -> None:
    """Who did what, when, and why."""
    from tritonfleet.cli import show

    show.events(settings_of(context), since, kind, tail, follow=follow)


@app.command(epilog=GLOBAL_HELP)
def describe(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="REPLICA|POOL|device/ID", autocompletion=completion.described)
    ],
) -> None:
    """One replica, pool or device in full.

    State, settings, Triton's statistics, last events, last log lines.
    """
    from tritonfleet.cli import show

    show.describe(settings_of(context), name)


@app.command(epilog=GLOBAL_HELP)
def drain(
    context: typer.Context,
    name: ReplicaOrDevice,
    deadline: Annotated[
        str,
        typer.Option("--deadline", metavar="DURATION", help="Wait for so long.  [default: the pool's]"),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Do not wait for what is in flight.")] = False,
) -> None:
    """Take a replica, or all of a device's, out of service.

    Nothing new goes there, what runs finishes, then it stops. A replica's slot stays empty until undrain; the
    replicas of a device go to others, as far as there is room.
    """
    from tritonfleet.cli import change

    deadline_s = seconds(deadline, "--deadline") if deadline else None
    change.drain(settings_of(context), name, deadline_s, force=force)


@app.command(epilog=GLOBAL_HELP)
def undrain(context: typer.Context, name: ReplicaOrDevice) -> None:
    """Put a drained replica back, or a device that was drained or set aside."""
    from tritonfleet.cli import change

    change.undrain(settings_of(context), name)


@app.command(epilog=GLOBAL_HELP)
def restart(
    context: typer.Context,
    what: Annotated[
        str, typer.Argument(metavar="REPLICA|router", help="A replica, as `ps` names it, or `router`.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Do not drain first.")] = False,
) -> None:
    """Replace a replica's server, or the router's workers, by new ones.

    A replica is drained first: what runs there finishes. `restart router` replaces the workers one by
    one, each new one accepting before an old one finishes its calls and ends: no call fails.
    """
    from tritonfleet.cli import change

    change.restart(settings_of(context), what, force=force)


file_commands.register(app)
host_commands.register(app)
app.add_typer(model_commands.app, name="models")
bench_commands.register(app)


@app.command(epilog=GLOBAL_HELP)
def version() -> None:
    """The version of this program."""
    from tritonfleet import __version__

    typer.echo(__version__)


def main() -> None:
    """The console script. Every way out is an exit code; a failure is one message on stderr."""
    try:
        words = hoist(sys.argv[1:])
        narrowed(app, words)(args=words, prog_name="tritonfleet", standalone_mode=True)
    except Exception as error:  # CliError and only that: imported late, so looked at here
        from tritonfleet.cli.exits import CliError
        from tritonfleet.cli.terminal import ProgressKind, say_error

        if not isinstance(error, CliError):
            raise
        progress = ProgressKind.JSON if "json" in _progress_words() else ProgressKind.AUTO
        say_error(error, progress)
        sys.exit(int(error.code))


def _progress_words() -> list[str]:
    """What --progress was given, for errors raised before or after parsing."""
    import os
    from itertools import pairwise

    words = hoist(sys.argv[1:])
    given = [word.partition("=")[2] for word in words if word.startswith("--progress=")]
    given += [value for word, value in pairwise(words) if word == "--progress"]
    return given or [os.environ.get("TRITONFLEET_PROGRESS", "")]


if __name__ == "__main__":
    main()

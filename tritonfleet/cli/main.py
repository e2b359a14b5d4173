"""The command line: options in, one function of another module called, an exit code out.

Everything heavy (rich, httpx, pydantic) is imported inside the command that needs it, so that help,
completion and `version` answer at once.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tritonfleet.cli.options import hoist

if TYPE_CHECKING:
    from tritonfleet.cli.terminal import Settings

WAIT_TIMEOUT = "10m"

GLOBAL_HELP = "Global options (tritonfleet --help) may also follow the command."
EXIT_CODES = (
    "Exit codes: 0 ok, 1 failed, 2 usage or fleet file, 3 wait timed out, 4 controller unreachable, "
    "130 interrupted."
)

app = typer.Typer(
    name="tritonfleet",
    help="Replicas of NVIDIA Triton behind one gRPC address: started, watched, scaled, replaced.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", envvar="TRITONFLEET_FILE", help="The fleet file.  [default: tritonfleet.yaml]"
        ),
    ] = None,
    fleet: Annotated[
        str,
        typer.Option(
            "--fleet", envvar="TRITONFLEET_FLEET", help="A running fleet by name, without its file."
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


def _settings(context: typer.Context) -> "Settings":
    from tritonfleet.cli.terminal import Output, ProgressKind, Settings

    raw = context.obj
    return Settings(**{**raw, "output": Output(raw["output"]), "progress": ProgressKind(raw["progress"])})


def _seconds(text: str, option: str) -> float:
    from tritonfleet.cli.names import parse_duration

    return parse_duration(text, option)


Replica = Annotated[str, typer.Argument(metavar="REPLICA", help="A replica, as `ps` names it: main-0.")]
Wait = Annotated[bool, typer.Option("--wait", help="Return when every replica is ready, or say why not.")]
WaitTimeout = Annotated[
    str, typer.Option("--wait-timeout", metavar="DURATION", help="Give up waiting then, with exit code 3.")
]
Scale = Annotated[
    list[str] | None,
    typer.Option("--scale", metavar="POOL=N", help="Pin a pool's size; may be repeated."),
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

    timeout_s = _seconds(wait_timeout, "--wait-timeout")
    command.up(_settings(context), scale or [], timeout_s, detach=detach, wait=wait, dry_run=dry_run, yes=yes)


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

    timeout_s = _seconds(timeout, "--timeout") if timeout else None
    command.down(_settings(context), timeout_s, force=force, yes=yes)


@app.command(epilog=GLOBAL_HELP)
def scale(
    context: typer.Context,
    sizes: Annotated[
        list[str], typer.Argument(metavar="N | POOL=N | auto | POOL=auto...", help="The size to hold.")
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

    timeout_s = _seconds(wait_timeout, "--wait-timeout")
    for_s = _seconds(duration, "--for") if duration else None
    change.scale(_settings(context), sizes, timeout_s, wait=wait, for_s=for_s)


@app.command(epilog=GLOBAL_HELP)
def autoscale(
    context: typer.Context,
    action: Annotated[
        Literal["status", "explain", "history", "pause", "resume"],
        typer.Argument(help="Sizes and reasons; all a decision rests on; past decisions; hold sizes; go on."),
    ] = "status",
    pool: Annotated[str, typer.Argument(metavar="[POOL]", help="Only this one.")] = "",
    duration: Annotated[str, typer.Option("--for", metavar="DURATION", help="Pause for so long only.")] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="DURATION|NUMBER", help="history: that old at most.")
    ] = "",
) -> None:
    """How the load sets sizes, and why."""
    from tritonfleet.cli import autoscale as command

    for_s = _seconds(duration, "--for") if duration else None
    command.autoscale(_settings(context), action, pool, for_s, since)


@app.command(epilog=GLOBAL_HELP)
def ps(context: typer.Context) -> None:
    """Pools, then replicas, each with its reason.

    -o wide adds ports, process, models and Triton's own statistics.
    """
    from tritonfleet.cli import show

    show.ps(_settings(context))


app.command("status", hidden=True, help="The same as ps.")(ps)


@app.command(epilog="-f follows here; a fleet file is --file. " + GLOBAL_HELP)
def logs(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="[POOL|REPLICA|router|controller]", help="Whose; without it, all.")
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are added.")] = False,
    tail: Annotated[int, typer.Option("--tail", min=0, help="Lines from the end of each log.")] = 100,
) -> None:
    """The last lines of logs."""
    from tritonfleet.cli import show

    show.logs(_settings(context), name, tail, follow=follow)


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

    show.events(_settings(context), since, kind, tail, follow=follow)


@app.command(epilog=GLOBAL_HELP)
def describe(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="REPLICA|POOL|device/ID")],
) -> None:
    """One replica, pool or device in full.

    State, settings, Triton's statistics, last events, last log lines.
    """
    from tritonfleet.cli import show

    show.describe(_settings(context), name)


@app.command(epilog=GLOBAL_HELP)
def drain(
    context: typer.Context,
    replica: Replica,
    deadline: Annotated[
        str,
        typer.Option("--deadline", metavar="DURATION", help="Wait for so long.  [default: the pool's]"),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Do not wait for what is in flight.")] = False,
) -> None:
    """Take a replica out of service.

    Nothing new goes there, what runs finishes, then it stops. Its slot stays empty until undrain.
    """
    from tritonfleet.cli import change

    deadline_s = _seconds(deadline, "--deadline") if deadline else None
    change.drain(_settings(context), replica, deadline_s, force=force)


@app.command(epilog=GLOBAL_HELP)
def undrain(context: typer.Context, replica: Replica) -> None:
    """Put a drained replica back."""
    from tritonfleet.cli import change

    change.undrain(_settings(context), replica)


@app.command(epilog=GLOBAL_HELP)
def restart(
    context: typer.Context,
    replica: Replica,
    force: Annotated[bool, typer.Option("--force", help="Do not drain first.")] = False,
) -> None:
    """Replace a replica's server by a new one.

    It is drained first: what runs there finishes.
    """
    from tritonfleet.cli import change

    change.restart(_settings(context), replica, force=force)


@app.command(epilog=GLOBAL_HELP)
def config(
    context: typer.Context,
    only_hash: Annotated[
        bool, typer.Option("--hash", help="Only each pool's hash: it changes when its replicas must.")
    ] = False,
) -> None:
    """The fleet file with every default and variable filled in."""
    from tritonfleet.cli import file

    file.config(_settings(context), only_hash=only_hash)


@app.command(epilog=GLOBAL_HELP)
def validate(context: typer.Context) -> None:
    """Check the fleet file; every mistake at once, with its line."""
    from tritonfleet.cli import file

    file.validate(_settings(context))


@app.command(epilog=GLOBAL_HELP)
def schema() -> None:
    """The JSON Schema of the fleet file, for editors."""
    from tritonfleet.cli import file

    file.schema()


@app.command(epilog=GLOBAL_HELP)
def compose(
    context: typer.Context,
    router_image: Annotated[
        str, typer.Option("--router-image", metavar="IMAGE", help="The image of tritonfleet itself.")
    ] = "tritonfleet:latest",
) -> None:
    """The fleet file as a compose file.

    A fleet of fixed size without a controller: replicas pinned to their devices, the router in front.
    """
    from tritonfleet.cli import compose as command

    command.compose(_settings(context), router_image=router_image)


@app.command(epilog=GLOBAL_HELP)
def controller(context: typer.Context, scale: Scale = None) -> None:
    """Be the controller, in the foreground.

    For service managers. SIGTERM stops only the controller; replicas and router go on.
    """
    from tritonfleet.cli import file

    file.controller(_settings(context), scale or [])


@app.command(epilog="Scalers: tritonfleet, static, hpa, hpa-queue, knative, ray-serve. " + GLOBAL_HELP)
def simulate(
    context: typer.Context,
    load: Annotated[
        Literal["poisson", "diurnal", "flash", "step", "ramp"], typer.Argument(help="The shape of the load.")
    ] = "step",
    rate: Annotated[float, typer.Option(help="Requests a second, where the shape is at 1.")] = 2.0,
    duration: Annotated[str, typer.Option(metavar="DURATION", help="Of the load.")] = "1h",
    service: Annotated[str, typer.Option(metavar="DURATION", help="Mean time of a request.")] = "500ms",
    sigma: Annotated[float, typer.Option(min=0, help="Spread of it (lognormal); 0: all alike.")] = 0.5,
    trace: Annotated[Path | None, typer.Option(help="A CSV file instead; its first column is when.")] = None,
    cost: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=DURATION", help="Time for each unit of a column.")
    ] = None,
    faster: Annotated[float, typer.Option(min=0.001, help="Play the trace so many times faster.")] = 1.0,
    scaler: Annotated[
        list[str] | None, typer.Option(metavar="NAME[=TARGET]", help="Who scales; repeat it to compare.")
    ] = None,
    slo: Annotated[str, typer.Option(metavar="DURATION", help="Answers are due within this.")] = "3s",
    minimum: Annotated[int, typer.Option("--min", help="Fewest replicas.")] = 1,
    maximum: Annotated[int, typer.Option("--max", help="Most replicas.")] = 32,
    initial: Annotated[int, typer.Option(help="Replicas at the start.")] = 2,
    cold_start: Annotated[str, typer.Option(metavar="DURATION", help="From launch to ready.")] = "45s",
    instances: Annotated[int, typer.Option(help="Executions at once on a replica.")] = 1,
    batch: Annotated[int, typer.Option(help="Requests in one execution at most.")] = 1,
    batch_share: Annotated[float, typer.Option(min=0, max=1, help="Cost of each further one in it.")] = 1.0,
    policy: Annotated[
        Literal["round_robin", "least_requests", "least_work"], typer.Option(help="Of the router.")
    ] = "least_work",
    mtbf: Annotated[str, typer.Option(metavar="DURATION", help="A replica dies this often on average.")] = "",
    seed: Annotated[int, typer.Option(help="The same seed, the same result.")] = 1,
) -> None:
    """What a pool would do with a load, in virtual time.

    The router's and the autoscaler's own decisions, without servers; see docs/simulator.md.
    """
    from tritonfleet.cli import simulate as command

    asked = command.Load(
        load, rate, _seconds(duration, "--duration"), _seconds(service, "--service"), sigma, trace,
        cost or [], faster,
    )  # fmt: skip
    scenario = {
        "slo_s": _seconds(slo, "--slo"), "minimum": minimum, "maximum": maximum, "initial": initial,
        "cold_start_s": _seconds(cold_start, "--cold-start"), "instances": instances, "batch": batch,
        "batch_share": batch_share, "policy": policy, "seed": seed,
        "mtbf_s": _seconds(mtbf, "--mtbf") if mtbf else None,
    }  # fmt: skip
    command.run(_settings(context), scenario, scaler or ["tritonfleet"], asked)


@app.command(epilog=GLOBAL_HELP)
def version() -> None:
    """The version of this program."""
    from tritonfleet import __version__

    typer.echo(__version__)


def main() -> None:
    """The console script. Every way out is an exit code; a failure is one message on stderr."""
    try:
        app(args=hoist(sys.argv[1:]), prog_name="tritonfleet", standalone_mode=True)
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

"""Commands about the fleet file and what can be made or foretold of it."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tritonfleet.cli.common import GLOBAL_HELP, Scale, seconds, settings_of


def config(
    context: typer.Context,
    only_hash: Annotated[
        bool, typer.Option("--hash", help="Only each pool's hash: it changes when its replicas must.")
    ] = False,
) -> None:
    """The fleet file with every default and variable filled in."""
    from tritonfleet.cli import file

    file.config(settings_of(context), only_hash=only_hash)


def validate(context: typer.Context) -> None:
    """Check the fleet file; every mistake at once, with its line."""
    from tritonfleet.cli import file

    file.validate(settings_of(context))


def schema() -> None:
    """The JSON Schema of the fleet file, for editors."""
    from tritonfleet.cli import file

    file.schema()


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

    command.compose(settings_of(context), router_image=router_image)


def controller(context: typer.Context, scale: Scale = None) -> None:
    """Be the controller, in the foreground.

    For service managers. SIGTERM stops only the controller; replicas and router go on.
    """
    from tritonfleet.cli import file

    file.controller(settings_of(context), scale or [])


def router(
    context: typer.Context,
    worker: Annotated[int, typer.Option(min=0, metavar="INDEX", help="Which of router.workers, from 0.")] = 0,
) -> None:
    """Be a router worker, in the foreground.

    For containers and service managers, where the fleet file says `router.external: true`. SIGTERM lets its
    calls end first.
    """
    from tritonfleet.cli import file

    file.router(settings_of(context), worker)


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
    max_inflight: Annotated[
        int | None, typer.Option(min=1, help="A replica is given so many.  [default: auto]")
    ] = None,
    mtbf: Annotated[str, typer.Option(metavar="DURATION", help="A replica dies this often on average.")] = "",
    kill: Annotated[
        list[str] | None, typer.Option(metavar="DURATION", help="A replica dies then; repeat it for more.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed, the same result.")] = 1,
    aggregated: Annotated[
        bool, typer.Option("--aggregated", help="By rates, not one by one: for millions of requests.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the time lines there, too.")] = None,
) -> None:
    """What a pool would do with a load, in virtual time.

    The router's and the autoscaler's own decisions, without servers; see docs/simulator.md.
    """
    from tritonfleet.cli import simulate as command

    asked = command.Load(
        load, rate, seconds(duration, "--duration"), seconds(service, "--service"), sigma, trace,
        cost or [], faster,
    )  # fmt: skip
    scenario = {
        "slo_s": seconds(slo, "--slo"), "minimum": minimum, "maximum": maximum, "initial": initial,
        "cold_start_s": seconds(cold_start, "--cold-start"), "instances": instances, "batch": batch,
        "batch_share": batch_share, "policy": policy, "max_inflight": max_inflight, "seed": seed,
        "mtbf_s": seconds(mtbf, "--mtbf") if mtbf else None,
        "kills_s": tuple(seconds(when, "--kill") for when in kill or ()),
    }  # fmt: skip
    command.run(
        settings_of(context), scenario, scaler or ["tritonfleet"], asked, aggregated=aggregated, plot=plot
    )


def plan(context: typer.Context) -> None:
    """What `up` would change, and where new replicas would go.

    Exit code 0: nothing; 5: something.
    """
    from tritonfleet.cli import preview

    preview.preview(settings_of(context))


def register(app: typer.Typer) -> None:
    app.command(epilog=GLOBAL_HELP)(config)
    app.command(epilog=GLOBAL_HELP)(validate)
    app.command(epilog=GLOBAL_HELP)(schema)
    app.command(epilog=GLOBAL_HELP)(compose)
    app.command(epilog=GLOBAL_HELP)(controller)
    app.command(epilog=GLOBAL_HELP)(router)
    app.command(epilog="Scalers: tritonfleet, static, hpa, hpa-queue, knative, ray-serve. " + GLOBAL_HELP)(
        simulate
    )
    app.command(epilog=GLOBAL_HELP)(plan)

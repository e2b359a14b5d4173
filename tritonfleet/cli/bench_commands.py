"""`bench`: its options, which are perf_analyzer's where that has one."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tritonfleet.cli.common import GLOBAL_HELP, settings_of

LOAD, INPUTS, MEASURE, CONNECT = "Load", "Inputs", "Measurement", "Connection"


def bench(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="The model; or -m MODEL.")] = "",
    model_option: Annotated[str, typer.Option("--model", "-m", help="The same as MODEL.")] = "",
    version: Annotated[str, typer.Option("--model-version", "-x", help="Its version.")] = "",
    batch: Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Items in a request.")] = 1,
    url: Annotated[
        str, typer.Option("--url", "-u", metavar="HOST:PORT", help="Any Triton.  [default: the fleet's]")
    ] = "",
    concurrency: Annotated[
        str,
        typer.Option(
            "--concurrency-range",
            metavar="N | FROM:TO[:STEP]",
            help="So many requests out at any time.  [default: 1]",
        ),
    ] = "",
    rate: Annotated[
        str,
        typer.Option(
            "--request-rate-range",
            metavar="N | FROM:TO[:STEP]",
            help="So many a second, whatever is still out.",
        ),
    ] = "",
    distribution: Annotated[
        Literal["constant", "poisson"], typer.Option("--request-distribution", help="Of such a rate.")
    ] = "constant",
    intervals: Annotated[
        Path | None,
        typer.Option(
            "--request-intervals", metavar="FILE", help="Microseconds between requests, one a line."
        ),
    ] = None,
    input_data: Annotated[
        str,
        typer.Option("--input-data", metavar="random | zero | FILE", help="JSON as perf_analyzer's, or NPZ."),
    ] = "random",
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape", metavar="NAME:SIZE,...", help="Of an input that has none, without the batch."
        ),
    ] = None,
    string_length: Annotated[int, typer.Option("--string-length", min=0, help="Of random strings.")] = 128,
    string_data: Annotated[str, typer.Option("--string-data", help="This instead of random strings.")] = "",
    sequence_length: Annotated[
        int, typer.Option("--sequence-length", min=1, help="Requests of a sequence.")
    ] = 20,
    sequences: Annotated[
        int, typer.Option("--num-of-sequences", min=1, help="At a time, with a request rate.")
    ] = 4,
    first_sequence: Annotated[
        int | None, typer.Option("--start-sequence-id", min=1, help="Of the first.  [default: by the clock]")
    ] = None,
    interval: Annotated[
        str,
        typer.Option(
            "--measurement-interval", "-p", metavar="MS", help="Of a window; 5s is understood, too."
        ),
    ] = "5000",
    mode: Annotated[
        Literal["time_windows", "count_windows"],
        typer.Option("--measurement-mode", help="Windows by time or number."),
    ] = "time_windows",
    window_count: Annotated[
        int, typer.Option("--measurement-request-count", min=1, help="Requests of a window by number.")
    ] = 50,
    stability: Annotated[
        float, typer.Option("--stability-percentage", "-s", min=0.1, help="How near three windows must be.")
    ] = 10.0,
    max_trials: Annotated[
        int, typer.Option("--max-trials", "-r", min=1, help="Windows until it is given up.")
    ] = 10,
    percentile: Annotated[
        float | None, typer.Option("--percentile", min=1, max=100, help="To be stable, instead of the mean.")
    ] = None,
    threshold: Annotated[
        str, typer.Option("--latency-threshold", "-l", metavar="MS", help="A range ends where it is passed.")
    ] = "",
    warmup: Annotated[
        str, typer.Option("--warmup-interval", metavar="MS", help="Load before the first window.")
    ] = "1000",
    warmup_requests: Annotated[
        int, typer.Option("--warmup-request-count", min=0, help="So many requests instead.")
    ] = 0,
    request_count: Annotated[
        int, typer.Option("--request-count", min=0, help="So many requests in all, no windows.")
    ] = 0,
    connections: Annotated[int, typer.Option("--connections", min=1, max=1024, help="To the address.")] = 4,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="MS", help="The deadline of each request.")
    ] = "60000",
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="NAME:VALUE", help="With every request.")
    ] = None,
    use_tls: Annotated[bool, typer.Option("--ssl-grpc-use-ssl", help="Speak TLS.")] = False,
    roots: Annotated[
        Path | None, typer.Option("--ssl-grpc-root-certifications-file", help="PEM: whom to trust.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--ssl-grpc-private-key-file", help="PEM: our key.")] = None,
    chain: Annotated[
        Path | None, typer.Option("--ssl-grpc-certificate-chain-file", help="PEM: our certificate.")
    ] = None,
    seed: Annotated[int, typer.Option("--random-seed", help="The same seed, the same load.")] = 1,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw it, too.")] = None,
) -> None:
    """Load a model and measure it, here or on any other Triton.

    A closed loop (--concurrency-range) or an open one (--request-rate-range, --request-intervals), whose
    latency counts from when a request was due. Flags and windows are perf_analyzer's; see docs/bench.md.
    """
    from tritonfleet.cli import bench as command

    asked = command.Asked(
        model=model or model_option, version=version, batch=batch, url=url, concurrency=concurrency,
        rate=rate, distribution=distribution, intervals=intervals, input_data=input_data,
        shapes=tuple(shape or ()), string_length=string_length, string_data=string_data,
        sequence_length=sequence_length, first_sequence=first_sequence, threshold=threshold,
        connections=connections, timeout=timeout, headers=tuple(header or ()), plot=plot,
        tls=command.Tls(use_tls, roots, key, chain),
    )  # fmt: skip
    settings = settings_of(context)
    plan = command.plan(
        interval=interval, window_count=window_count if mode == "count_windows" else 0,
        request_count=request_count, warmup=warmup, warmup_requests=warmup_requests, stability=stability,
        max_trials=max_trials, percentile=percentile, sequences=sequences, seed=seed,
    )  # fmt: skip
    command.bench(settings, asked, plan)


def register(app: typer.Typer) -> None:
    app.command(epilog=GLOBAL_HELP)(bench)

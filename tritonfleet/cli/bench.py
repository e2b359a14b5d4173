"""`bench`: options → a plan, loads one after the other, a report."""

import asyncio
import signal
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tritonfleet.bench.client import LoadClient
from tritonfleet.bench.inputs import InputError, Item, RandomInputs, parse_shapes, read_items, requests
from tritonfleet.bench.results import Level
from tritonfleet.bench.run import Bench, Concurrency, Intervals, Load, Plan, RequestRate
from tritonfleet.bench.schedule import read_intervals
from tritonfleet.bench.traffic import Bodies, SequenceBodies
from tritonfleet.cli.bench_address import Address, address_of, counts_of
from tritonfleet.cli.bench_view import Meter, report
from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.names import parse_duration
from tritonfleet.cli.terminal import Output, Settings, say, show, show_data, show_line, width
from tritonfleet.core.answers import status_name
from tritonfleet.triton import messages
from tritonfleet.triton.messages import ModelInfo

MOST_LEVELS = 1000


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files, as perf_analyzer takes them."""

    use: bool = False
    roots: Path | None = None
    key: Path | None = None
    chain: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Raises OSError (ssl.SSLError is one) for files that do not fit."""
        context = ssl.create_default_context(cafile=self.roots)
        context.set_alpn_protocols(["h2"])
        if self.chain is not None:
            context.load_cert_chain(self.chain, self.key)
        return context


@dataclass(frozen=True, slots=True)
class Asked:
    """The options, as they were typed."""

    model: str
    version: str
    batch: int
    url: str
    concurrency: str
    rate: str
    distribution: str
    intervals: Path | None
    input_data: str
    shapes: tuple[str, ...]
    string_length: int
    string_data: str
    sequence_length: int
    first_sequence: int | None
    threshold: str
    connections: int
    timeout: str
    headers: tuple[str, ...]
    plot: Path | None
    tls: Tls


def plan(*, interval: str, warmup: str, **rest: object) -> Plan:
    return Plan(
        window_s=milliseconds(interval, "--measurement-interval"),
        warmup_s=milliseconds(warmup, "--warmup-interval"),
        **rest,  # type: ignore[arg-type] # by the fields' names
    )


def bench(settings: Settings, asked: Asked, plan: Plan) -> None:
    """Raises CliError: usage for what cannot be asked, failed where nothing was answered."""
    if not asked.model:
        raise CliError(
            ExitCode.USAGE,
            "which model?",
            hint="tritonfleet bench MODEL; `tritonfleet ps -o wide` lists them",
        )
    loads = loads_of(asked)
    _check_plot(asked.plot)
    address = address_of(settings, asked.url)
    levels: list[Level] = []
    uvloop.run(_run(settings, asked, plan, loads, address, levels))
    if settings.output in (Output.JSON, Output.YAML):
        show_data({"model": asked.model, "address": str(address), "levels": levels}, settings.output)
    elif settings.output is Output.NAME:
        for level in levels:
            show_line(f"{level.value:g}")
    else:
        show(report(asked.model, str(address), levels, width()))
    if asked.plot is not None and any(level.requests for level in levels):
        from tritonfleet.cli.bench_png import draw

        draw(asked.plot, asked.model, levels)
        say(settings, f"drawn to {asked.plot}")
    if levels and levels[-1].interrupted:
        raise CliError(ExitCode.INTERRUPTED, "interrupted; what was measured until then is reported")
    if not any(level.requests for level in levels):
        raise CliError(ExitCode.FAILED, "no request was answered with OK", details=_failures(levels))


def _failures(levels: list[Level]) -> tuple[str, ...]:
    texts = {name: text for level in levels for name, text in level.failure_texts.items()}
    return tuple(f"{name}: {text}" for name, text in sorted(texts.items()))


def loads_of(asked: Asked) -> list[Load]:
    """Raises CliError (usage)."""
    given = [bool(asked.concurrency), bool(asked.rate), asked.intervals is not None]
    if sum(given) > 1:
        raise CliError(
            ExitCode.USAGE,
            "only one of --concurrency-range, --request-rate-range, --request-intervals can be had",
        )
    if asked.intervals is not None:
        try:
            return [Intervals(read_intervals(asked.intervals))]
        except (OSError, ValueError) as error:
            raise CliError(ExitCode.USAGE, f"--request-intervals: {error}") from None
    if asked.rate:
        return [
            RequestRate(value, asked.distribution)
            for value in parse_range(asked.rate, "--request-rate-range")
        ]
    values = parse_range(asked.concurrency or "1", "--concurrency-range")
    if any(value != int(value) or value < 1 for value in values):
        raise CliError(ExitCode.USAGE, "--concurrency-range: whole numbers from 1 on")
    return [Concurrency(int(value)) for value in values]


def parse_range(text: str, option: str) -> list[float]:
    """``8``, ``1:8`` or ``1:8:2`` → the values, both ends included."""
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    start, end, step = (
        [*numbers, *numbers[:1], 1.0][:3] if len(numbers) == 1 else [*numbers, 1.0, 1.0, 1.0][:3]
    )
    if not 1 <= len(numbers) <= 3 or not start > 0 or not step > 0 or not start <= end < float("inf"):
        raise CliError(ExitCode.USAGE, f"{option}: {text!r} is not N, FROM:TO or FROM:TO:STEP", hint="1:64:8")
    count = int((end - start) / step + 1e-9) + 1
    if count > MOST_LEVELS:
        raise CliError(ExitCode.USAGE, f"{option}: {text!r} has {count} values, {MOST_LEVELS} at most")
    return [start + index * step for index in range(count)]


def milliseconds(text: str, option: str) -> float:
    """A bare number counts milliseconds, as perf_analyzer's do; with a unit it is a duration. → seconds"""
    bare = text.strip().replace(".", "", 1).isdigit()
    return parse_duration(text.strip() + "ms" if bare else text, option)


def _check_plot(path: Path | None) -> None:
    """Before the load, not after it."""
    if path is None:
        return
    from tritonfleet.cli.bench_png import missing

    if why := missing():
        raise CliError(ExitCode.USAGE, f"--plot: {why}", hint="pip install 'tritonfleet[plot]'")
    if not path.absolute().parent.is_dir():
        raise CliError(ExitCode.USAGE, f"--plot: there is no folder {path.absolute().parent}")


async def _run(
    settings: Settings, asked: Asked, plan: Plan, loads: list[Load], address: Address, levels: list[Level]
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    client = await _connect(asked, address)
    try:
        model = await _model(client, asked)
        bodies = _bodies(asked, model)
        counts: Callable[[], Awaitable[dict[str, int]]] | None = None
        if not model.tells_replica:
            counts = counts_of(address, asked.model)
        threshold = milliseconds(asked.threshold, "--latency-threshold") if asked.threshold else None
        with Meter(settings, len(loads)) as meter:
            runner = Bench(client, model, bodies, plan, meter.update, stop, counts)
            for load in loads:
                level = await runner.measure(load)
                levels.append(level)
                meter.finished()
                if stop.is_set() or _over(level, plan, threshold):
                    break
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        await client.close()


def _over(level: Level, plan: Plan, threshold: float | None) -> bool:
    if threshold is None:
        return False
    found = level.mean_s if plan.percentile is None else level.percentiles_s.get(f"{plan.percentile:g}")
    return found is None or found > threshold


async def _connect(asked: Asked, address: Address) -> LoadClient:
    context = None
    if asked.tls.use or asked.tls.roots is not None or asked.tls.chain is not None or address.tls:
        try:
            context = asked.tls.context()
        except OSError as error:
            raise CliError(ExitCode.USAGE, f"the TLS files do not fit: {error}") from None
    headers = []
    for word in asked.headers:
        name, colon, value = word.partition(":")
        if not colon or not name.strip():
            raise CliError(ExitCode.USAGE, f"--header {word!r} is not NAME:VALUE")
        headers.append((name.strip().lower().encode(), value.strip().encode()))
    timeout_s = milliseconds(asked.timeout, "--timeout")
    client = LoadClient(address.host, address.port, asked.connections, timeout_s, context, tuple(headers))
    try:
        await client.open()
    except OSError as error:
        await client.close()
        why = str(error) or "no answer in time"
        raise CliError(
            ExitCode.FAILED, f"cannot connect to {address}: {why}", hint="-u HOST:PORT names another address"
        ) from None
    return client


async def _model(client: LoadClient, asked: Asked) -> ModelInfo:
    answer = await client.ask(messages.MODEL_CONFIG, messages.about(asked.model, asked.version))
    if answer.status != 0:
        raise CliError(
            ExitCode.FAILED,
            f"the server does not tell of model {asked.model!r}: {status_name(answer.status)}: {answer.text}",
        )
    model = messages.model_info(asked.model, asked.version, answer.message)
    if model.decoupled:
        raise CliError(
            ExitCode.USAGE,
            f"model {asked.model!r} is decoupled: it answers by streams, and bench sends single requests",
        )
    return model


def _bodies(asked: Asked, model: ModelInfo) -> Callable[[], Bodies | SequenceBodies]:
    """Makes the requests, once; what is returned starts them from the first."""
    try:
        steps = _steps(asked, model)
        head = messages.infer_head(asked.model, asked.version)
        tails = [
            [messages.infer_tail(tensors) for tensors in requests(items, model, asked.batch)]
            for items in steps
        ]
    except InputError as error:
        raise CliError(ExitCode.USAGE, str(error), hint=error.hint) from None
    if not model.sequences:
        flat = [tail for sequence in tails for tail in sequence]
        return lambda: Bodies(head, flat)
    next_id = asked.first_sequence or time.time_ns() // 1000 * 1000
    ids = iter(range(next_id, 1 << 62, 10_000_000))  # each load has its own
    return lambda: SequenceBodies(head, tails, asked.sequence_length, next(ids))


def _steps(asked: Asked, model: ModelInfo) -> list[list[Item]]:
    """Items by sequence; without sequences all are one list, so that batches may be made of any."""
    if asked.input_data in ("random", "zero"):
        made = RandomInputs(
            parse_shapes(asked.shapes), asked.string_length, asked.string_data, asked.input_data == "zero"
        ).items(model)
        return [[item] for item in made] if model.sequences else [made]
    if not Path(asked.input_data).is_file():
        raise InputError(f"--input-data: {asked.input_data} is not random, zero or a file")
    found = read_items(Path(asked.input_data), model)
    return found if model.sequences else [[item for sequence in found for item in sequence]]

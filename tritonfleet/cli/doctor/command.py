"""`doctor`: gather, judge, show; with --gpu, a server on each GPU."""

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.text import Text

from tritonfleet import __version__
from tritonfleet.cli import fleet
from tritonfleet.cli.doctor import gather
from tritonfleet.cli.doctor.checks import Check, Verdict, checks
from tritonfleet.cli.doctor.facts import Facts, FileFacts, ProbeFacts
from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.layout import wrapped
from tritonfleet.cli.render import BROKEN, GOOD
from tritonfleet.cli.terminal import Output, Settings, say, show, show_data, show_line, width
from tritonfleet.config import FleetSpec
from tritonfleet.core.model import Device, DeviceKind

_MARKS = {
    Verdict.OK: ("✓", GOOD),
    Verdict.WARNING: ("!", "bold"),
    Verdict.FAILED: ("✗", BROKEN),
    Verdict.SKIPPED: ("–", "dim"),
}


def doctor(settings: Settings, *, gpu: bool) -> None:
    """Exit code 1 if anything failed; warnings do not count."""
    found = checks(_facts(settings, gpu=gpu))
    if settings.output in (Output.JSON, Output.YAML):
        show_data({"version": __version__, "checks": found}, settings.output)
    elif settings.output is Output.NAME:
        for check in found:
            show_line(f"{check.verdict} {check.name}")
    else:
        show(report(found, width()))
    if any(check.verdict is Verdict.FAILED for check in found):
        raise typer.Exit(ExitCode.FAILED)


def _facts(settings: Settings, *, gpu: bool) -> Facts:
    environ = dict(os.environ)
    server = gather.server(environ)
    file = gather.file(settings, environ, server.backends)
    spec = fleet.load(settings) if file.there and not file.error else None
    gpus = gather.gpus()
    return Facts(
        __version__,
        gather.host(environ),
        server,
        gpus,
        file,
        gather.running(settings, spec),
        gather.docker(spec.docker_host if spec is not None else "", file, environ),
        _probes(settings, spec, file, gpus.devices) if gpu else None,
    )


def _probes(
    settings: Settings, spec: FleetSpec | None, file: FileFacts, present: Sequence[Device]
) -> tuple[ProbeFacts, ...]:
    """Of the devices that the file means, or without a file of all; one after the other."""
    chosen = file.devices if spec is not None else present
    devices = [device for device in chosen if device.kind is not DeviceKind.CPU]
    return tuple(probed(settings, spec, file.driver, device) for device in devices)


def probed(settings: Settings, spec: FleetSpec | None, driver: str, device: Device) -> ProbeFacts:
    """A server on ``device``, started as the fleet's driver starts one, in a fleet of its own."""
    from tritonfleet.drivers import container_settings, gpu_probe
    from tritonfleet.drivers.base import ContainerSettings, Driver, DriverError
    from tritonfleet.drivers.docker import DockerDriver
    from tritonfleet.drivers.process import ProcessDriver

    name = f"doctor-{os.urandom(4).hex()}"
    container = ContainerSettings()
    with tempfile.TemporaryDirectory(prefix="tritonfleet-doctor-") as text:
        folder = Path(text)
        folder.chmod(0o755)  # the container's user reads the model
        state = folder / "state"
        (state / "logs").mkdir(parents=True)
        made: Driver
        if driver == "docker" and spec is not None:
            container = container_settings(next(iter(spec.pools.values())))
            made = DockerDriver(name, state, (device,), host=spec.docker_host)
        else:
            made = ProcessDriver(name, state, (device,))

        async def ask() -> str:
            try:
                return await gpu_probe.probe(
                    made, name, device, folder / "models", container, lambda text: say(settings, text)
                )
            finally:
                await made.close()

        try:
            return ProbeFacts(device.id, asyncio.run(ask()))
        except DriverError as error:
            return ProbeFacts(device.id, error=str(error), remedy=error.remedy)
        except OSError as error:
            raise CliError(ExitCode.FAILED, f"cannot probe {device.id}: {error}") from error


def report(found: Sequence[Check], columns: int | None) -> Text:
    """One line for each check, its fix below it, a sum at the end."""
    size = max(len(check.name) for check in found)
    lines = []
    for check in found:
        mark, style = _MARKS[check.verdict]
        head = Text(" ").append(mark, style).append(" ").append(check.name.ljust(size), style).append("  ")
        said = f"skipped: {check.found}" if check.verdict is Verdict.SKIPPED else check.found
        lines += wrapped(head, said, columns, "dim" if check.verdict is Verdict.SKIPPED else "")
        if check.fix and check.verdict is not Verdict.OK:
            lines += wrapped(Text(" " * (size + 5)).append("fix: ", "bold"), check.fix, columns)
    return Text("\n").join([*lines, Text(), _sum(found)])


def _sum(found: Sequence[Check]) -> Text:
    counts = Counter(check.verdict for check in found)
    warnings = counts[Verdict.WARNING]
    parts = [
        f"{counts[Verdict.OK]} ok",
        f"{warnings} warning{'s' if warnings > 1 else ''}" if warnings else "",
    ]
    parts += [
        f"{counts[verdict]} {verdict}" for verdict in (Verdict.FAILED, Verdict.SKIPPED) if counts[verdict]
    ]
    text = Text(", ".join(filter(None, parts)), BROKEN if counts[Verdict.FAILED] else "bold")
    return text if counts[Verdict.FAILED] else text.append(". Nothing stands in the way")

"""`init`: look around and write a fleet file."""

import os
from pathlib import Path

from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.fleet import DEFAULT_FILE
from tritonfleet.cli.fleet_text import Found, best_image, fleet_name_for, fleet_text, is_repository
from tritonfleet.cli.terminal import Settings, say
from tritonfleet.config import ConfigError, load_fleet
from tritonfleet.drivers import docker_facts, gpu_facts
from tritonfleet.drivers.ports import is_free
from tritonfleet.triton.embedded import TritonNotFoundError, find_tritonserver

USUAL_FOLDERS = ("model_repository", "models", "model-repository", ".")
PORTS_TRIED = 50


def init(settings: Settings, repository: str, name: str, *, force: bool) -> None:
    """Write the file and say what is in it. Raises CliError (usage): it exists, there are no models."""
    path = Path(settings.file or DEFAULT_FILE)
    if path.exists() and not force:
        raise CliError(
            ExitCode.USAGE,
            f"{path} exists already",
            hint="look at it with `tritonfleet config`; --force writes over it",
        )
    found = look(path.absolute().parent, repository, name)
    text = fleet_text(found)
    try:
        path.write_text(text, encoding="utf-8")
        load_fleet(path, os.environ)
    except OSError as error:
        raise CliError(ExitCode.FAILED, f"{path} cannot be written: {error.strerror}") from error
    except ConfigError as error:  # a name or folder that no file can hold
        raise CliError(ExitCode.USAGE, f"{path} was written, and is not valid:\n{error}") from error
    where = f"{len(found.gpus)} GPUs" if found.gpus else "CPU slots"
    runs = f"containers of {found.image}" if found.image else "processes"
    say(settings, f"wrote {path}: fleet {found.name}, {len(found.models)} models, {where}, {runs}")
    say(settings, "next: tritonfleet doctor, then tritonfleet up -d --wait")


def look(folder: Path, repository: str, name: str) -> Found:
    """What there is on this host for a file in ``folder``."""
    named, models = _repository(folder, repository)
    gpus = gpu_facts.ask().devices
    port = _port(8001)
    image = best_image(docker_facts.images("", os.environ)) if gpus else ""
    return Found(
        name or fleet_name_for(folder.name),
        named,
        models,
        gpus,
        os.cpu_count() or 1,
        image,
        _server(),
        port,
        _port(9400),
    )


def _repository(folder: Path, given: str) -> tuple[str, tuple[str, ...]]:
    """As it is to be written, relative where that can be, and its models."""
    if given:
        absolute = Path(given).expanduser().absolute()
        if not (models := is_repository(absolute)):
            raise CliError(
                ExitCode.USAGE,
                f"{given} is no model repository",
                hint="it holds one folder for each model, with a config.pbtxt or a numbered version in it",
            )
        return (
            f"./{absolute.relative_to(folder)}" if absolute.is_relative_to(folder) else str(absolute)
        ), models
    for usual in USUAL_FOLDERS:
        if models := is_repository(folder / usual):
            return (f"./{usual}" if usual != "." else "."), models
    raise CliError(
        ExitCode.USAGE,
        f"there is no model repository in {folder}",
        hint="name it: tritonfleet init --model-repository FOLDER",
    )


def _server() -> str:
    try:
        found = find_tritonserver(os.environ)
    except (TritonNotFoundError, OSError):
        return ""
    return f"the one in nvidia-pytriton {found.version}" if found.kind == "embedded" else found.binary


def _port(wanted: int) -> int:
    """The first free one from there on."""
    return next((port for port in range(wanted, wanted + PORTS_TRIED) if is_free(port)), wanted)

"""Read, interpolate, validate: a path becomes a `FleetSpec`, or a `ConfigError` with all that is wrong."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tritonfleet.config import checks
from tritonfleet.config.errors import ConfigError, ConfigProblem
from tritonfleet.config.explain import explain
from tritonfleet.config.source import Source, read
from tritonfleet.config.spec import FleetSpec
from tritonfleet.core.managers import TOKEN

SMALLEST = "{version: 1, name: demo, pools: {main: {model_repository: FOLDER}}}"


def load_fleet(path: Path, environ: Mapping[str, str]) -> FleetSpec:
    """The fleet file at ``path``, with ``${VAR}`` taken from ``environ``.

    Relative paths in it start at the file's folder. Raises ConfigError with everything that is wrong, in the
    order of the file; nothing else.
    """
    source = read(_text(path), str(path), environ)
    problems, spec = list(source.problems), None
    if isinstance(source.value, dict):
        _resolve_paths(source.value, path.absolute().parent.resolve())
        try:
            spec = checks.fitted(FleetSpec.model_validate(source.value))
        except ValidationError as error:
            known = {problem.path for problem in problems}
            problems += [found for found in explain(error, source) if not _covered(found.path, known)]
        problems += checks.repositories(source)
        problems += checks.certificates(source)
        problems += checks.access_log(source)
        if spec is not None and not source.problems:
            problems += checks.together(spec, source)
    elif not problems:
        problems.append(_not_a_mapping(source))
    if spec is None or problems:
        raise ConfigError(problems)
    return spec


def _covered(path: str, known: Iterable[str]) -> bool:
    """Whether something in the value at ``path`` could not even be read: what it then lacks is no news."""
    return any(other == path or other.startswith((f"{path}.", f"{path}[")) for other in known)


def _text(path: Path) -> str:
    """What is in the file. Raises ConfigError when that cannot be told."""
    hint = ""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        message = "there is no such file"
        hint = f"name another with -f, or write one; the smallest is {SMALLEST}"
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}"
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
    raise ConfigError([ConfigProblem(str(path), 0, 0, "", message, hint=hint)])


def _not_a_mapping(source: Source) -> ConfigProblem:
    message = "the file is empty" if source.value is None else "a fleet file is a mapping (key: value)"
    return source.at(1, 1, "", message, f"the smallest is {SMALLEST}")


def _resolve_paths(value: dict[str, Any], folder: Path) -> None:
    pools = value.get("pools")
    for pool in pools.values() if isinstance(pools, dict) else ():
        given = pool.get("model_repository") if isinstance(pool, dict) else None
        if isinstance(given, str) and given and "://" not in given:
            pool["model_repository"] = str(folder / _at_home(given))
    for _, tls in checks.replica_tls(value):
        _resolve(tls, checks.REPLICA_TLS_FILES, folder)
    router = value.get("router")
    if not isinstance(router, dict):
        return
    managers = router.get("management")
    if isinstance(managers, list):
        router["management"] = [_token_path(one, folder) for one in managers]
    for part, keys in (("tls", checks.TLS_FILES), ("access_log", ("path",))):
        files = router.get(part)
        if isinstance(files, dict):
            _resolve(files, keys, folder)


def _resolve(files: dict[str, Any], keys: Iterable[str], folder: Path) -> None:
    for key in keys:
        if isinstance(files.get(key), str) and files[key] not in ("", checks.STDOUT):
            files[key] = str(folder / _at_home(files[key]))


def _token_path(manager: Any, folder: Path) -> Any:
    if not isinstance(manager, str) or not manager.startswith(TOKEN) or manager == TOKEN:
        return manager
    return TOKEN + str(folder / _at_home(manager.removeprefix(TOKEN)))


def _at_home(given: str) -> Path:
    try:
        return Path(given).expanduser()
    except RuntimeError:  # ~somebody who is not there: the check of the folder will say what is looked for
        return Path(given)

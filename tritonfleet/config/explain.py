"""pydantic's errors → problems in the words of the file: the place, what is wrong, what was likely meant."""

from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any, get_args

from pydantic import ValidationError

from tritonfleet.config.errors import ConfigProblem, did_you_mean, shown
from tritonfleet.config.source import Path, Source, dotted
from tritonfleet.config.spec import FleetSpec
from tritonfleet.config.spec_types import Address, Part
from tritonfleet.config.units import format_size


def explain(error: ValidationError, source: Source) -> list[ConfigProblem]:
    """One problem per place: the branches of a union all complain about the same value."""
    seen: dict[tuple[int, int, str], ConfigProblem] = {}
    for detail in error.errors(include_url=False):
        if detail["type"] == "too_short" and detail["input"]:
            continue  # of a list whose items are all wrong, each said already
        problem = _problem(source, detail)
        seen.setdefault((problem.line, problem.column, problem.path), problem)
    return list(seen.values())


def _problem(source: Source, detail: Mapping[str, Any]) -> ConfigProblem:
    path = _clean(source, detail["loc"])
    kind, given = detail["type"], source.given(path, detail["input"])
    if path[:1] == ("devices",):
        written = shown(source.given(("devices",)))
        message = f"{written} is none of: auto, a list of GPU indices or UUIDs, {{cpu: N}} with N from 1"
        return source.problem(("devices",), message)
    if kind == "extra_forbidden":
        return source.problem(path, "unknown key", hint=unknown_key_hint(path), at_key=True)
    if kind == "missing":
        return source.problem(path, "is missing", hint=_missing_hint(path), at_key=True)
    if kind == "string_pattern_mismatch":
        message, at_key = _not_a_name(path, detail["input"]), detail["loc"][-1] == "[key]"
        return source.problem(path, message, at_key=at_key)
    if kind == "literal_error":
        expected = detail["ctx"]["expected"]
        if " or " not in expected:
            return source.problem(path, f"must be {expected}, not {shown(given)}")
        hint = did_you_mean(str(given), expected.replace("'", "").replace(" or ", ", ").split(", "))
        return source.problem(path, f"{shown(given)} is none of {expected}", hint=hint)
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return source.problem(path, f"must be a mapping (key: value), not {shown(given)}")
    if kind == "tuple_type":
        return source.problem(
            path, f"must be a list, not {shown(given)}", hint=f"write [{source.words.get(path, '...')}]"
        )
    if kind == "string_type":
        hint = f'quote it: "{source.words[path]}"' if path in source.words and given is not None else ""
        return source.problem(path, f"must be text, not {shown(given)}", hint=hint)
    if kind in ("int_type", "int_parsing", "int_from_float"):
        return source.problem(path, f"must be a whole number, not {shown(given)}")
    if kind in ("too_short", "string_too_short"):
        return source.problem(path, "must not be empty")
    if kind == "value_error":  # one of our own validators, which says it all
        return source.problem(path, detail["msg"].removeprefix("Value error, "))
    if kind in ("less_than_equal", "greater_than_equal"):
        bound = "most" if kind == "less_than_equal" else "least"
        (limit,) = detail["ctx"].values()
        if path[:2] == ("router", "limits") and limit and limit % 1024 == 0:  # the bounds of sizes are such
            limit = format_size(limit)
        return source.problem(path, f"must be at {bound} {limit}, not {shown(given)}")
    message = detail["msg"].removeprefix("Input ")
    return source.problem(path, f"{message[:1].lower()}{message[1:]}, not {shown(given)}")


def _not_a_name(path: Path, given: object) -> str:
    if path[-2:-1] == ("env",):
        return f"{given!r} is not the name of an environment variable: letters, digits and _"
    return (
        f"{given!r} is not a name: lowercase letters, digits and dashes, at most 31, beginning with a letter"
    )


def _clean(source: Source, location: tuple[str | int, ...]) -> Path:
    """pydantic's location without the names of union branches and of keys, which the file does not have."""
    path: Path = ()
    for part in location:
        known = (*path, part) in source.values or (*path, part) in source.keys
        if known or (part not in ("[key]", "CpuSlots") and not _is_branch(part)):
            path = (*path, part)
    return path


def _is_branch(part: str | int) -> bool:
    return isinstance(part, str) and ("[" in part or "(" in part or part.startswith(("literal", "tuple")))


def unknown_key_hint(path: Path) -> str:
    """Where the key would be known, else the nearest spelling, else what is known there."""
    key, here = str(path[-1]), path[:-1]
    known = list(known_keys(pool=str(path[1]) if path[0] == "pools" and len(path) > 1 else ""))
    homes = [home for *home, name in known if name == key]
    if homes:
        return _belongs(here, min((tuple(home) for home in homes), key=lambda home: _steps(here, home)), key)
    siblings = [str(found[-1]) for found in known if found[:-1] == here]
    return did_you_mean(key, siblings) or (f"known here: {', '.join(siblings)}" if siblings else "")


def known_keys(model: type[Part] = FleetSpec, above: Path = (), *, pool: str = "") -> Iterator[Path]:
    """Every key a fleet file may hold, as paths, parents first. Pools are shown as one, called ``pool``; with
    no name they are left out."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        annotation: Any = field.annotation
        part: Path = (*above, name)
        if name == "pools":
            annotation, part = get_args(annotation)[1], (*part, pool)
            if not pool:
                continue
        annotation = part_of(annotation)
        if isinstance(annotation, type) and issubclass(annotation, Part) and annotation is not Address:
            yield from known_keys(annotation, part, pool=pool)  # an Address is written as one word


def part_of(annotation: Any) -> Any:
    """``Part | None`` → the part; anything else as it is."""
    parts = [one for one in get_args(annotation) if one is not NoneType]
    return parts[0] if len(parts) == 1 and parts[0] in Part.__subclasses__() else annotation


def _steps(here: Path, home: Path) -> int:
    """How many levels up and down lead from one part to another."""
    return len(here) + len(home) - 2 * _shared(here, home)


def _shared(here: Path, home: Path) -> int:
    return next(
        (n for n, (a, b) in enumerate(zip(here, home, strict=False)) if a != b), min(len(here), len(home))
    )


def _belongs(here: Path, home: Path, key: str) -> str:
    shared = _shared(here, home)
    up, down = len(here) - shared, len(home) - shared
    where = dotted((*home, key))
    if up and down:
        return f"belongs at {where}"
    levels = "one level" if up + down == 1 else f"{up + down} levels"
    return f"belongs {levels} {'up' if up else 'down'}, at {where}"


def _missing_hint(path: Path) -> str:
    if path == ("version",):
        return "add `version: 1`"
    if path == ("name",):
        return "add a name for the fleet, such as `name: demo`"
    if path == ("pools",):
        return "add `pools: {main: {model_repository: FOLDER}}`"
    if path[-1] == "model_repository":
        return "add the folder that holds the pool's models"
    return ""

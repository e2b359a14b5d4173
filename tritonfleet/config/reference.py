"""docs/configuration.md, written from the specification: ``python -m tritonfleet.config.reference``.

The text of every key is its field's description, so page, JSON Schema and code cannot tell different stories.
"""

import sys
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from tritonfleet.config.explain import known_keys, part_of
from tritonfleet.config.load import SMALLEST
from tritonfleet.config.pool_spec import OWNED_ARGUMENTS, PoolSpec
from tritonfleet.config.schema import example_text, fleet_schema
from tritonfleet.config.spec import FleetSpec
from tritonfleet.config.units import format_duration, format_size

POOL = "NAME"  # stands for any pool's name in the table

_HEAD = f"""\
<!-- Written by `python -m tritonfleet.config.reference`; change the specification, not this page. -->

# The fleet file

`tritonfleet.yaml` says what a fleet should be. `tritonfleet validate` checks it, `tritonfleet config` shows
it with every default filled in, and `tritonfleet schema` prints its JSON Schema for editors:

```
tritonfleet schema > tritonfleet.schema.json     # then, as the file's first line:
# yaml-language-server: $schema=./tritonfleet.schema.json
```

The smallest file, in one line: `{SMALLEST}`

## Values

* **Durations** are written `250ms`, `30s`, `5m`, `1h`, `1d`, or several together: `1m30s`. A plain number is
  seconds.
* **Sizes** are written `512k`, `64m`, `1g`; the units are powers of 1024. A plain number is bytes.
* **Names** (of the fleet and of pools) have lowercase letters, digits and dashes, begin with a letter, do not
  end with a dash, and are at most 31 long.
* **Paths** that are relative start at the folder of the fleet file, wherever the command runs.
* **Variables** of the environment can stand in any value (not in keys):

| written | means |
| --- | --- |
| `${{VAR}}` | its value; an error if it is not set |
| `${{VAR:-default}}` | its value, or `default` if it is not set or empty |
| `${{VAR:?message}}` | its value, or an error with this message if it is not set or empty |
| `$$` | a plain `$` |

A value that is not quoted gets its type after the variables are in: `workers: ${{N}}` is a number.

YAML anchors and aliases work; merge keys (`<<`) do not.

## Keys

Unknown keys are errors. `{POOL}` stands for a pool's name.

"""

_FOOT = """
What a replica is launched with (`model_repository`, `models`, `triton`) has a hash, which
`tritonfleet config --hash` prints. When `up` brings a file with another hash, the pool's replicas are
replaced one by one. What a running fleet cannot change is in
[operations.md](operations.md#changing-the-file).

### Arguments and variables that the fleet sets

`triton.args` may not name them, nor `triton.env` the variable `CUDA_VISIBLE_DEVICES` (use `devices`):

"""

_ERRORS = """
## Mistakes

All of a file's mistakes are reported at once, each with its file, line and column, the line itself, and what
was probably meant. The exit code is 2.

## Every key, at its default

```yaml
"""


def reference() -> str:
    """The whole page."""
    rows = "".join(_rows())
    owned = "".join(f"| `{name}` | {instead} |\n" for name, instead in OWNED_ARGUMENTS.items())
    table = f"| key | type | default | meaning |\n| --- | --- | --- | --- |\n{rows}"
    arguments = f"| argument | instead |\n| --- | --- |\n{owned}"
    return f"{_HEAD}{table}{_FOOT}{arguments}{_ERRORS}{example_text()}```\n"


def _rows() -> Iterator[str]:
    for path in known_keys(pool=POOL):
        field, schema = _field(path)
        if not field.description:
            continue  # a part: its keys follow
        meaning = field.description.replace("\n", " ").replace("|", r"\|")
        kind = _type(schema) + _bounds(field, schema)
        yield f"| `{'.'.join(map(str, path))}` | {kind} | {_default(field, schema)} | {meaning} |\n"


def _field(path: tuple[str | int, ...]) -> tuple[FieldInfo, dict[str, Any]]:
    """A key's field and its JSON Schema."""
    definitions = fleet_schema()["$defs"]
    model: Any = FleetSpec
    for part in path[:-1]:
        model = PoolSpec if part in ("pools", POOL) else part_of(model.model_fields[part].annotation)
    properties = fleet_schema() if model is FleetSpec else definitions[model.__name__]
    return model.model_fields[path[-1]], properties["properties"][path[-1]]


def _bounds(field: FieldInfo, schema: dict[str, Any]) -> str:
    """Of a size, whose schema is its spelling."""
    if _type(schema) != "size":
        return ""
    found = {type(one).__name__: one for one in field.metadata}
    if "Ge" not in found or "Le" not in found:
        return ""
    return f", {format_size(found['Ge'].ge)} to {format_size(found['Le'].le)}"


def _type(schema: dict[str, Any]) -> str:
    examples = schema.get("examples", [])
    if "250ms" in examples:
        return "duration"
    if "64m" in examples:
        return "size"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "$ref" in schema:
        return "mapping"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        names = [_type(branch) for branch in schema["anyOf"] if branch.get("type") != "null"]
        return ", ".join(dict.fromkeys(names))
    return _plain_type(schema)


def _plain_type(schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if kind == "integer":
        return f"{schema['minimum']} to {schema['maximum']}" if "minimum" in schema else "whole number"
    if kind == "number":
        return "number"
    if kind == "boolean":
        return "true or false"
    if kind == "array":
        return "list"
    if kind == "object":
        return "`{cpu: N}`" if "cpu" in schema.get("properties", {}) else "mapping"
    return {"string": "text"}.get(str(kind), str(kind))


def _default(field: FieldInfo, schema: dict[str, Any]) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value == "":
        return "–"
    kind = _type(schema)
    if kind == "duration":
        return f"`{format_duration(value)}`"
    if kind == "size":
        return f"`{format_size(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
    return f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(reference())

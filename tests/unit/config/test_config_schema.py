"""The example, the JSON Schema, the resolved file and the hash of what replicas are launched with."""

import re
from typing import Any

import pytest
import yaml
from fleet_files import SMALLEST, Folder
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.config import FleetSpec, PoolSpec, example_text, fleet_schema, pool_hash, resolved
from tritonfleet.config.explain import known_keys
from tritonfleet.config.units import parse_duration, parse_size

HASH_BEFORE_TLS = "1e654d9bf571"  # of the smallest pool, by the last version without triton.tls


def spec_with(**pool: Any) -> FleetSpec:
    return FleetSpec(
        version=1, name="demo", pools={"main": PoolSpec(**{"model_repository": "/models", **pool})}
    )


def test_the_example_is_the_defaults(folder: Folder) -> None:
    example = folder.load(example_text().replace("./model_repository ", "./models"))
    assert example == folder.load(SMALLEST)


def test_the_example_names_every_key() -> None:
    uncommented = re.sub(r"^( *)# ( *\w+:(?: +\S+)? +#)", r"\1\2", example_text(), flags=re.MULTILINE)
    example = yaml.safe_load(uncommented)
    for path in known_keys(pool="main"):
        part = example
        for key in path:
            assert key in part, path
            part = part[key]


def test_the_resolved_file_loads_as_the_same(folder: Folder) -> None:
    spec = folder.load("""\
version: 1
name: demo
devices: [0, 1, 2, 3]
router: {listen: "[::1]:9001", drain_timeout: 250ms}
pools:
  main:
    model_repository: models
    triton: {env: {A: "$${B} $$$$ $C $$$${D}"}, args: ["--x=$$$$"]}
""")
    assert spec.pools["main"].triton.env["A"] == "${B} $$ $C $${D}"
    plain = resolved(spec)
    assert plain["router"]["drain_timeout"] == "250ms"
    assert plain["logs"]["max_size"] == "64m"
    assert plain["router"]["listen"] == "[::1]:9001"
    assert folder.load(yaml.safe_dump(plain)) == spec


@given(st.text(alphabet="${}AB:-", max_size=10))
def test_any_dollars_survive_being_resolved(text: str) -> None:
    from tritonfleet.config.source import read

    written = resolved(spec_with(triton={"env": {"A": text}}))["pools"]["main"]["triton"]["env"]["A"]
    source = read(yaml.safe_dump({"key": written}), "fleet.yaml", {})
    assert not source.problems
    assert source.value["key"] == text


def test_the_hash_is_of_what_is_launched() -> None:
    base = pool_hash(spec_with(), "main")
    assert re.fullmatch(r"[0-9a-f]{12}", base)
    same: list[dict[str, Any]] = [
        {"replicas": {"max": 9}},
        {"health": {"interval": 2}},
        {"restart": {"backoff": 2}},
        {"drain_timeout": 5},
        {"startup_timeout": 5},
        {"models": ["*"]},
    ]
    other: list[dict[str, Any]] = [
        {"model_repository": "/others"},
        {"models": ["echo"]},
        {"triton": {"args": ["--log-verbose=1"]}},
        {"triton": {"env": {"A": "1"}}},
        {"triton": {"exit_timeout": 5}},
    ]
    assert {pool_hash(spec_with(**pool), "main") for pool in same} == {base}
    hashes = [pool_hash(spec_with(**pool), "main") for pool in other]
    assert len({base, *hashes}) == len(other) + 1


def test_the_order_of_models_and_variables_does_not_change_the_hash() -> None:
    one = spec_with(models=["a", "b"], triton={"env": {"A": "1", "B": "2"}})
    two = spec_with(models=["b", "a"], triton={"env": {"B": "2", "A": "1"}})
    assert pool_hash(one, "main") == pool_hash(two, "main")


def test_the_schema_knows_every_key_and_says_what_it_means() -> None:
    schema = fleet_schema()
    assert schema["required"] == ["version", "name", "pools"]
    assert schema["additionalProperties"] is False
    for path in known_keys(pool="main"):
        part = schema
        for key in path:
            if key == "main":
                part = _target(schema, _pool(part))
                continue
            part = _target(schema, part["properties"][key])
        assert "properties" in part or part.get("description"), path


def _pool(pools: dict[str, Any]) -> dict[str, Any]:
    found = pools.get("additionalProperties") or next(iter(pools["patternProperties"].values()))
    assert isinstance(found, dict)
    return found


def _target(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    optional = [branch for branch in part.get("anyOf", ()) if "$ref" in branch]
    if optional:
        part = {**part, **optional[0]}
    if "$ref" not in part:
        return part
    target = schema["$defs"][part["$ref"].rpartition("/")[2]]
    return {**target, **part}


@pytest.mark.parametrize("written", ["250ms", "30s", "5m", "1h", "1m30s", "30 s", "3x", ""])
def test_the_schemas_duration_is_the_parsers(written: str) -> None:
    schema = fleet_schema()["$defs"]["RouterSpec"]["properties"]["drain_timeout"]
    pattern = next(branch["pattern"] for branch in schema["anyOf"] if branch["type"] == "string")
    assert bool(re.search(pattern, written)) == _accepted(parse_duration, written)


@pytest.mark.parametrize("written", ["64m", "1g", "2gib", "1 g", "g", "64x", ""])
def test_the_schemas_size_is_the_parsers(written: str) -> None:
    schema = fleet_schema()["$defs"]["LogsSpec"]["properties"]["max_size"]
    pattern = next(branch["pattern"] for branch in schema["anyOf"] if branch["type"] == "string")
    assert bool(re.search(pattern, written)) == _accepted(parse_size, written)


def _accepted(parse: Any, written: str) -> bool:
    try:
        parse(written)
    except ValueError:
        return False
    return True


def test_what_a_container_is_started_with_counts_for_the_hash() -> None:
    plain = pool_hash(spec_with(), "main")
    for changed in ({"image": "triton:2"}, {"shm_size": "2g"}, {"user": "1000:1000"}, {"ulimits": {}}):
        assert pool_hash(spec_with(triton=changed), "main") != plain


def test_a_fleet_without_tls_keeps_the_hash_it_had_before_there_was_any() -> None:
    tls = {"cert": "a", "key": "b", "ca": "c"}
    assert pool_hash(spec_with(), "main") == HASH_BEFORE_TLS
    assert pool_hash(spec_with(triton={"tls": tls}), "main") != HASH_BEFORE_TLS

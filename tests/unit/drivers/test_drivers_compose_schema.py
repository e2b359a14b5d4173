"""Compose files of ours against the compose specification's JSON Schema: the exported ones, and compose/."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft201909Validator
from test_drivers_docker_compose import GPUS, exported, spec

from tritonfleet.core.model import Device, DeviceKind

SCHEMA = json.loads((Path(__file__).with_name("compose_spec") / "compose_spec.json").read_text())
COMPOSE = Path(__file__).parents[3] / "compose"
CPUS = tuple(Device(f"cpu{index}", DeviceKind.CPU) for index in range(2))
SLICES = tuple(Device(f"MIG-{index}", DeviceKind.MIG) for index in range(2))


def mistakes(file: dict[str, Any]) -> list[str]:
    # As a file holds it: no tuples, keys as text.
    found = Draft201909Validator(SCHEMA).iter_errors(json.loads(json.dumps(file)))
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


@pytest.mark.parametrize("devices", [GPUS, CPUS, SLICES], ids=["GPUs", "CPU slots", "MIG slices"])
def test_an_exported_fleet_is_as_the_specification_says(devices: tuple[Device, ...]) -> None:
    assert mistakes({"services": exported(spec(), devices)}) == []


def test_several_devices_a_user_and_limits_are_too() -> None:
    pool = spec(
        replicas={"min": 1, "max": 1, "devices_per_replica": 2},
        triton={"image": "triton:1", "user": "1000:1000", "ulimits": {"nofile": 4096}, "shm_size": "2g"},
    )
    services = exported(pool)
    reserved = services["main-0"]["deploy"]["resources"]["reservations"]["devices"]
    assert reserved[0]["device_ids"] == ["GPU-0", "GPU-1"]
    assert mistakes({"services": services}) == []


@pytest.mark.parametrize("path", sorted(COMPOSE.glob("docker-compose*.yaml")), ids=lambda path: path.name)
def test_the_files_in_compose_are_too(path: Path) -> None:
    assert mistakes(yaml.safe_load(path.read_text())) == []


def test_the_schema_finds_what_is_wrong() -> None:
    services = exported(spec())
    services["main-0"]["shm_sise"] = 1
    services["main-1"]["command"] = 7
    found = mistakes({"services": services})
    assert any("shm_sise" in mistake for mistake in found)
    assert any(mistake.startswith("services.main-1.command") for mistake in found)

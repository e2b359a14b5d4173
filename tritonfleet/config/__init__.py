"""tritonfleet.yaml → `FleetSpec`: every error at once, each with its file, line and column.

Names are looked up when they are asked for: `fleet_name` does without pydantic, which takes a while.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tritonfleet.config.errors import ConfigError, ConfigProblem
    from tritonfleet.config.load import load_fleet
    from tritonfleet.config.name import fleet_name
    from tritonfleet.config.pool_spec import PoolSpec
    from tritonfleet.config.schema import example_text, fleet_schema, pool_hash, resolved
    from tritonfleet.config.spec import FleetSpec
    from tritonfleet.config.spec_types import Address, CpuSlots

_HOMES = {
    "Address": "spec_types",
    "ConfigError": "errors",
    "ConfigProblem": "errors",
    "CpuSlots": "spec_types",
    "FleetSpec": "spec",
    "PoolSpec": "pool_spec",
    "example_text": "schema",
    "fleet_name": "name",
    "fleet_schema": "schema",
    "load_fleet": "load",
    "pool_hash": "schema",
    "resolved": "schema",
}

__all__ = [
    "Address",
    "ConfigError",
    "ConfigProblem",
    "CpuSlots",
    "FleetSpec",
    "PoolSpec",
    "example_text",
    "fleet_name",
    "fleet_schema",
    "load_fleet",
    "pool_hash",
    "resolved",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

"""tritonfleet.yaml → `FleetSpec`: every error at once, each with its file, line and column."""

from tritonfleet.config.errors import ConfigError, ConfigProblem
from tritonfleet.config.load import load_fleet
from tritonfleet.config.pool_spec import PoolSpec
from tritonfleet.config.schema import example_text, fleet_schema, pool_hash, resolved
from tritonfleet.config.spec import FleetSpec
from tritonfleet.config.spec_types import Address, CpuSlots

__all__ = [
    "Address",
    "ConfigError",
    "ConfigProblem",
    "CpuSlots",
    "FleetSpec",
    "PoolSpec",
    "example_text",
    "fleet_schema",
    "load_fleet",
    "pool_hash",
    "resolved",
]

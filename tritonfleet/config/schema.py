"""The file's format as JSON Schema, as a commented example, and a valid file written out in full."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from tritonfleet.config.spec import FleetSpec

EXAMPLE = Path(__file__).with_name("example.yaml")


def fleet_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a fleet file, for editors and for `tritonfleet schema`."""
    schema = FleetSpec.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "tritonfleet.yaml"}


def resolved(spec: FleetSpec) -> dict[str, Any]:
    """The whole file as plain data, defaults and interpolation included; loading it gives an equal spec."""
    plain: dict[str, Any] = _escaped(spec.model_dump(mode="json", by_alias=True))
    return plain


def _escaped(value: Any) -> Any:
    """Dollars that would be read as the beginning of a variable are doubled, as the file's format has it."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return re.sub(r"\$(?=[${])", "$$", value) if isinstance(value, str) else value


def example_text() -> str:
    """The shipped example: every key, commented, at its default."""
    return EXAMPLE.read_text(encoding="utf-8")


def pool_hash(spec: FleetSpec, pool: str) -> str:
    """12 hex digits over what a replica of this pool is launched with. A replica with another hash is out of
    date. Sizes, health and restart settings do not count: they act without a new process."""
    found = spec.pools[pool]
    launched: dict[str, Any] = {
        "model_repository": found.model_repository,
        "models": sorted(found.models),
        "triton": found.triton.model_dump(mode="json"),
    }
    # What has its default is absent where the key is newer than a fleet may be, so that it keeps its hash.
    if found.triton.tls is None:
        del launched["triton"]["tls"]
    if found.replicas.devices_per_replica > 1:
        launched["devices_per_replica"] = found.replicas.devices_per_replica
    return hashlib.sha256(json.dumps(launched, sort_keys=True).encode()).hexdigest()[:12]


def router_hash(spec: FleetSpec) -> str:
    """12 hex digits over all that the file says of the router."""
    return hashlib.sha256(spec.router.model_dump_json().encode()).hexdigest()[:12]

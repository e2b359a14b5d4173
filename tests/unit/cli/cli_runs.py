"""What a test of a whole command needs: its outcome, and a fleet file."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


def fleet_file(folder: Path, **pool_settings: object) -> Path:
    path = folder / "tritonfleet.yaml"
    sizes = {"min": 1, "initial": 2, "max": 4}
    content = {
        "version": 1,
        "name": "demo",
        "driver": "process",
        "devices": {"cpu": 4},
        "router": {"listen": "127.0.0.1:18999"},
        "pools": {"main": {"model_repository": str(folder), "replicas": sizes, **pool_settings}},
    }
    path.write_text(json.dumps(content))  # which is YAML
    return path

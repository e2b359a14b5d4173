"""Fleets whose replicas are containers. The command line is driven as in tests/e2e."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import docker_daemon

sys.path.append(str(Path(__file__).parents[1] / "e2e"))

from running_fleet import RunningFleet, stop  # found by the line above


class DockerFleet(RunningFleet):
    """``write`` takes the same arguments; ``triton`` may hold an image, ``devices`` a list."""

    def write(self, *, devices: Any = 4, router: dict[str, Any] | None = None, **pool: Any) -> None:
        triton = {"image": docker_daemon.IMAGE, "shm_size": "64m", "exit_timeout": "5s"}
        super().write(
            devices=4,
            router={"policy": "round_robin", **(router or {})},  # so that few calls reach every replica
            **{"models": ["echo"], **pool, "triton": {**triton, **pool.get("triton", {})}},
        )
        spec = json.loads(self.file.read_text())
        spec |= {"driver": "docker", "devices": devices if isinstance(devices, list) else {"cpu": devices}}
        self.file.write_text(json.dumps(spec, indent=2))

    def containers(self) -> dict[str, dict[str, Any]]:
        return docker_daemon.containers(self.name)

    def handles(self) -> dict[str, str]:
        return {name: replica["handle"] for name, replica in self.replicas().items()}


def free_name() -> str:
    return "t" + os.urandom(4).hex()


__all__ = ["DockerFleet", "free_name", "stop"]

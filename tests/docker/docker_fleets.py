"""Fleets whose replicas are containers. The command line is driven as in tests/e2e."""

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import docker_daemon
import numpy as np
import tritonclient.grpc as triton

sys.path.append(str(Path(__file__).parents[1] / "e2e"))

from background import Background, told  # found by the line above
from running_fleet import RunningFleet, stop


class DockerFleet(RunningFleet):
    """``write`` takes the same arguments; ``triton`` may hold an image, ``devices`` a list; ``fleet`` is more
    at the top of the file."""

    def write(
        self,
        *,
        devices: Any = 4,
        router: dict[str, Any] | None = None,
        fleet: dict[str, Any] | None = None,
        **pool: Any,
    ) -> None:
        triton = {"image": docker_daemon.IMAGE, "shm_size": "64m", "exit_timeout": "5s"}
        super().write(
            devices=4,
            router={"policy": "round_robin", **(router or {})},  # so that few calls reach every replica
            **{"models": ["echo"], **pool, "triton": {**triton, **pool.get("triton", {})}},
        )
        spec = json.loads(self.file.read_text())
        spec |= {"driver": "docker", "devices": devices if isinstance(devices, list) else {"cpu": devices}}
        self.file.write_text(json.dumps(spec | (fleet or {}), indent=2))

    def containers(self) -> dict[str, dict[str, Any]]:
        return docker_daemon.containers(self.name)

    def handles(self) -> dict[str, str]:
        return {name: replica["handle"] for name, replica in self.replicas().items()}


def echo(client: triton.InferenceServerClient) -> str:
    """One call of the echo model, its answer compared. Returns the launch that answered, ``main-0.1``."""
    values = np.frombuffer(os.urandom(64), np.uint8)
    request = triton.InferInput("INPUT0", [64], "UINT8")
    request.set_data_from_numpy(values)
    result = client.infer("echo", [request])
    assert np.array_equal(result.as_numpy("OUTPUT0"), values)
    answered: str = result.as_numpy("REPLICA").reshape(-1)[0].decode()
    return answered


def echoes(fleet: DockerFleet, calls: int = 20) -> set[str]:
    """Which replicas answered so many calls through the router; every answer is looked at."""
    with triton.InferenceServerClient(fleet.address) as client:
        return {echo(client).rpartition(".")[0] for _ in range(calls)}


class Echoing(Background):
    """Threads that call the echo model again and again; ``answered`` by launch."""

    def __init__(self, address: str, threads: int = 2) -> None:
        super().__init__(address, threads)
        self.answered: Counter[str] = Counter()

    def _run(self) -> None:
        with triton.InferenceServerClient(self.address) as client:
            while not self._stop.wait(0.02):
                try:
                    self.answered[echo(client)] += 1
                except triton.InferenceServerException as error:
                    self.failures.append(told(error))


def free_name() -> str:
    return "t" + os.urandom(4).hex()


__all__ = ["DockerFleet", "Echoing", "echoes", "free_name", "stop"]

"""Our router, with a fixed table instead of a controller."""

import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tritonfleet.core.replica_tls import ReplicaTls
from tritonfleet.core.wire import RouterTable, TableReplica

MODELS = ("digits", "echo")
SLOTS = 4  # what the controller finds for each of them, one instance and no batches


class Tritonfleet:
    """As the controller configures it by default.

    ``slots``: what each replica may hold of each model; the rest waits in the router. None: any. ``tls``: how
    replicas are spoken to."""

    def __init__(
        self,
        name: str = "tritonfleet",
        policy: str = "least_work",
        models: Sequence[str] = MODELS,
        slots: int | None = SLOTS,
        tls: ReplicaTls | None = None,
    ) -> None:
        self.name, self.tls = name, tls
        self.policy, self.models = policy, tuple(models)
        self.slots = {} if slots is None else dict.fromkeys(models, slots)

    def missing(self) -> str:
        return ""

    def version(self) -> str:
        return f"tritonfleet {importlib.metadata.version('tritonfleet')}"

    def command(self, folder: Path, port: int, upstreams: Sequence[str]) -> list[str]:
        rows = []
        for index, upstream in enumerate(upstreams):
            host, _, upstream_port = upstream.rpartition(":")
            rows.append(
                TableReplica(
                    id=f"bench-{index}",
                    instance=f"bench-{index}.1",
                    pool="bench",
                    host=host,
                    port=int(upstream_port),
                    draining=False,
                    models=self.models,
                    slots=self.slots,
                    tls=self.tls,
                )
            )
        table = RouterTable(fleet="bench", revision=1, policy=self.policy, replicas=tuple(rows))
        path = folder / "table.json"
        path.write_bytes(msgspec.json.encode(table))
        return [
            sys.executable,
            "-m",
            "tritonfleet.router",
            "--fleet=bench",
            f"--listen=127.0.0.1:{port}",
            "--worker=0",
            f"--table={path}",
        ]

"""How the controller asks one Triton about itself: model readiness and statistics, over gRPC."""

from typing import Protocol

from tritonfleet.core.model import ModelStatus
from tritonfleet.core.stats import ModelCounters


class ProbeError(Exception):
    """A replica did not answer a question. The text says what happened in words a person reads.

    ``refused`` is True when nothing listens there, which while loading is the normal state
    (Triton opens its ports only after its start-up models are loaded).
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class ReplicaClient(Protocol):
    """What the controller needs of one replica. `TritonClient` is the real one."""

    async def models(self, timeout: float) -> tuple[ModelStatus, ...]:
        """Every model of the repository index with its readiness, by name. Raises ProbeError."""

    async def statistics(self, timeout: float) -> tuple[ModelCounters, ...]:
        """The cumulative statistics of every loaded model version. Raises ProbeError."""

    async def close(self) -> None: ...

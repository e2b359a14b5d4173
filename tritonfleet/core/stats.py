"""Two cumulative Triton readings → rates and means, with reset detection."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ModelCounters:
    """One model version's ``ModelStatistics``, cumulative since it was loaded. Times in nanoseconds.

    ``success``, ``failure``, ``queue`` and ``compute_*`` count requests; ``inferences`` counts batch
    items and ``executions`` counts batches (Triton's statistics extension, ModelStatistics message).
    """

    model: str
    version: str
    inferences: int
    executions: int
    success_count: int
    success_ns: int
    failure_count: int
    queue_count: int
    queue_ns: int
    compute_input_ns: int
    compute_infer_ns: int
    compute_output_ns: int
    last_inference_ms: int
    counters: dict[str, int] = field(default_factory=dict, repr=False)  # all of them, flat (`core.ledger`)


def busy_ns(counters: Mapping[str, int]) -> int:
    """Of flat counters: the time that executions took, each counted once however many requests it served."""
    return sum(
        value for name, value in counters.items() if name.startswith("batch_stats/") and name.endswith("/ns")
    )


@dataclass(frozen=True, slots=True)
class ModelRates:
    """What happened to one model version between two readings: per second, and mean seconds per request."""

    model: str
    version: str
    window_s: float
    request_rate: float
    failure_rate: float
    inference_rate: float
    execution_rate: float
    queue_s: float
    compute_s: float
    execution_s: float = 0.0  # mean of an execution, each counted once; 0 if that is not told

    @property
    def busy(self) -> float:
        """Seconds of executions in a second: how many of the model's instances were busy on average."""
        return self.execution_rate * (self.execution_s or self.compute_s)


CUMULATIVE = (
    "success_count", "failure_count", "inferences", "executions", "queue_ns", "compute_input_ns",
    "compute_infer_ns", "compute_output_ns",
)  # fmt: skip


def rates(before: ModelCounters | None, after: ModelCounters, elapsed_s: float) -> ModelRates:
    """The difference of two cumulative readings, ``elapsed_s`` apart.

    Triton's counters start from zero when a model is loaded again (the aggregator lives on the model object).
    A counter that went backwards says so: then ``after`` alone is what happened since. Without an earlier
    reading, or when no time passed, nothing can be said: a window of 0 and zeros.
    """
    if before is None or elapsed_s <= 0:
        return ModelRates(after.model, after.version, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    was_reset = any(getattr(after, name) < getattr(before, name) for name in CUMULATIVE)

    def grown(name: str) -> int:
        now: int = getattr(after, name)
        earlier: int = 0 if was_reset else getattr(before, name)
        return now - earlier

    requests, executions = grown("success_count"), grown("executions")
    busy = busy_ns(after.counters) - (0 if was_reset else busy_ns(before.counters))
    compute_ns = grown("compute_input_ns") + grown("compute_infer_ns") + grown("compute_output_ns")
    return ModelRates(
        after.model,
        after.version,
        elapsed_s,
        requests / elapsed_s,
        grown("failure_count") / elapsed_s,
        grown("inferences") / elapsed_s,
        executions / elapsed_s,
        grown("queue_ns") / 1e9 / requests if requests else 0.0,
        compute_ns / 1e9 / requests if requests else 0.0,
        max(busy, 0) / 1e9 / executions if executions else 0.0,
    )

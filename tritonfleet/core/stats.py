"""Two cumulative Triton readings → rates and means, with reset detection."""

from dataclasses import dataclass


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

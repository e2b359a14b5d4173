"""ModelStatistics as flat counters, and back."""

from tritonclient.grpc import service_pb2

from tritonfleet.core.ledger import merged
from tritonfleet.triton.statistics import counters_of, entry_of, flat


def message(scale: int = 1) -> service_pb2.ModelStatistics:
    entry = service_pb2.ModelStatistics(
        name="digits", version="1", last_inference=100 * scale, inference_count=7 * scale, execution_count=3
    )
    for position, field in enumerate(entry.inference_stats.DESCRIPTOR.fields, 1):
        duration = getattr(entry.inference_stats, field.name)
        duration.count, duration.ns = position * scale, position * 1000 * scale
    for size in (1, 8, 16):
        batch = entry.batch_stats.add(batch_size=size)
        batch.compute_input.count = batch.compute_infer.count = batch.compute_output.count = scale
        batch.compute_infer.ns = size * scale
    entry.response_stats["a/b"].success.count = scale
    for name in ("compute_infer", "compute_output", "fail", "empty_response", "cancel"):
        getattr(entry.response_stats["a/b"], name).SetInParent()
    entry.memory_usage.add(type="GPU", id=1, byte_size=64 * scale)
    return entry


def test_there_and_back() -> None:
    assert entry_of("digits", "1", flat(message())) == message()


def test_two_servers_are_added_up_field_by_field() -> None:
    total = entry_of("digits", "1", merged(flat(message(1)), flat(message(2))))
    expected = message(3)
    expected.last_inference, expected.execution_count = 200, 6
    assert total == expected


def test_what_decisions_need_comes_from_the_same_message() -> None:
    counters = counters_of(message())
    assert (counters.model, counters.inferences, counters.success_ns) == ("digits", 7, 1000)
    assert counters.counters == flat(message())

"""A ``ModelStatistics`` message ↔ flat counters, which can be compared and added up by name.

``inference_stats/success/ns``, ``batch_stats/8/compute_infer/count``, ``response_stats/KEY/success/ns``,
``memory_usage/TYPE/ID/byte_size``: the path through the message (grpc_service.proto), with a repeated field's
key where it has one.
"""

from collections.abc import Mapping
from typing import Any

from tritonclient.grpc import service_pb2

from tritonfleet.core.stats import ModelCounters

SCALARS = ("last_inference", "inference_count", "execution_count")


def flat(entry: Any) -> dict[str, int]:
    """Every number of one ``service_pb2.ModelStatistics``."""
    found = {name: getattr(entry, name) for name in SCALARS}
    _add_durations(found, "inference_stats", entry.inference_stats)
    for batch in entry.batch_stats:
        _add_durations(found, f"batch_stats/{batch.batch_size}", batch)
    for key, response in entry.response_stats.items():
        _add_durations(found, f"response_stats/{key}", response)
    for usage in entry.memory_usage:
        name = f"memory_usage/{usage.type}/{usage.id}/byte_size"
        found[name] = found.get(name, 0) + usage.byte_size
    return found


def _add_durations(found: dict[str, int], prefix: str, message: Any) -> None:
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None:
            duration = getattr(message, field.name)
            found[f"{prefix}/{field.name}/count"] = duration.count
            found[f"{prefix}/{field.name}/ns"] = duration.ns


def entry_of(model: str, version: str, counters: Mapping[str, int]) -> Any:
    """The message again. Batch sizes are in ascending order, as Triton lists them."""
    entry = service_pb2.ModelStatistics(name=model, version=version)
    batches: dict[int, Any] = {}
    usages: dict[tuple[str, str], int] = {}
    for name in sorted(counters, key=_batches_by_size):
        part, _, rest = name.partition("/")
        if part in SCALARS:
            setattr(entry, name, counters[name])
            continue
        key, _, leaf = rest.rpartition("/")  # "success", "count"
        key, _, field = key.rpartition("/") if part != "memory_usage" else (key, "", "")
        if part == "inference_stats":
            _set(entry.inference_stats, field, leaf, counters[name])
        elif part == "batch_stats":
            size = int(key)
            if size not in batches:
                batches[size] = entry.batch_stats.add(batch_size=size)
            _set(batches[size], field, leaf, counters[name])
        elif part == "response_stats":
            _set(entry.response_stats[key], field, leaf, counters[name])
        else:
            kind, _, number = key.rpartition("/")
            usages[kind, number] = counters[name]
    for (kind, number), size in usages.items():
        entry.memory_usage.add(type=kind, id=int(number), byte_size=size)
    return entry


def _batches_by_size(name: str) -> tuple[str, int, str]:
    part, _, rest = name.partition("/")
    size = rest.partition("/")[0]
    return part, int(size) if part == "batch_stats" else 0, rest


def _set(message: Any, field: str, leaf: str, value: int) -> None:
    duration = getattr(message, field)
    duration.SetInParent()  # Triton sends durations of zero, too
    setattr(duration, leaf, value)


def counters_of(entry: Any) -> ModelCounters:
    """What decisions need of one ``service_pb2.ModelStatistics``, and all of it, flat."""
    stats = entry.inference_stats
    return ModelCounters(
        entry.name, entry.version, entry.inference_count, entry.execution_count,
        stats.success.count, stats.success.ns, stats.fail.count, stats.queue.count, stats.queue.ns,
        stats.compute_input.ns, stats.compute_infer.ns, stats.compute_output.ns, entry.last_inference,
        flat(entry),
    )  # fmt: skip

"""How many requests of a model a replica can usefully hold at once, from the model's configuration."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tritonclient.grpc import service_pb2

from tritonfleet.triton.client import SERVICE, ReplicaClient

MODEL_CONFIG = f"{SERVICE}/ModelConfig"
PIPELINE = 2  # one batch executing, the next one waiting: a cap of one lets the replica idle in between


def slots_of(config: Any) -> int:
    """``config`` is a ``model_config_pb2.ModelConfig``; 0 means no limit.

    instances × requests a batch can hold × 2. Requests are batched together only by the dynamic batcher.
    Sequences, decoupled models and ensembles have no limit: what they hold is not theirs to choose, or
    not told by the configuration.
    """
    if config.model_transaction_policy.decoupled or config.WhichOneof("scheduling_choice") in (
        "sequence_batching",
        "ensemble_scheduling",
    ):
        return 0
    batch: int = max(config.max_batch_size, 1) if config.HasField("dynamic_batching") else 1
    return instances_of(config) * batch * PIPELINE


def instances_of(config: Any) -> int:
    """How many executions of a model can go on at once."""
    instances: int = sum(max(group.count, 1) * max(len(group.gpus), 1) for group in config.instance_group)
    return max(instances, 1)


@dataclass(frozen=True, slots=True)
class Capacity:
    """By model name: ``slots`` of those that have a limit, ``instances`` of all whose configuration could be
    read."""

    slots: dict[str, int] = field(default_factory=dict)
    instances: dict[str, int] = field(default_factory=dict)


async def read_capacity(client: ReplicaClient, models: Iterable[str], timeout: float) -> Capacity:
    """A model whose configuration cannot be read has no limit."""
    found = Capacity()
    for model in models:
        request = service_pb2.ModelConfigRequest(name=model).SerializeToString()
        answer = await client.call(MODEL_CONFIG, request, timeout, {})
        if answer.status == 0:
            config = service_pb2.ModelConfigResponse.FromString(answer.message).config
            found.instances[model] = instances_of(config)
            slots = slots_of(config)
            if slots:
                found.slots[model] = slots
    return found

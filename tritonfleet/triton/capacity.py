"""How many requests of a model a replica can usefully hold at once, from the model's configuration."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tritonclient.grpc import service_pb2

from tritonfleet.core.balance import useful_slots
from tritonfleet.triton.client import SERVICE, ReplicaClient

MODEL_CONFIG = f"{SERVICE}/ModelConfig"


def slots_of(config: Any) -> int:
    """``config`` is a ``model_config_pb2.ModelConfig``; 0 means no limit.

    `core.balance.useful_slots` of what can execute at once, instances × requests a batch can hold.
    Requests are batched together only by the dynamic batcher, which with preferred sizes makes no batch
    larger than the largest of them. Sequences and decoupled models have no limit: what they hold is not
    theirs to choose, or not told by the configuration; of ensembles see `ensemble_slots`.
    """
    if config.model_transaction_policy.decoupled or config.WhichOneof("scheduling_choice") in (
        "sequence_batching",
        "ensemble_scheduling",
    ):
        return 0
    batch = 1
    if config.HasField("dynamic_batching"):
        preferred = max(config.dynamic_batching.preferred_batch_size, default=0)
        batch = max(min(preferred or config.max_batch_size, config.max_batch_size), 1)
    return useful_slots(instances_of(config) * batch)


def ensemble_slots(model: str, configs: Mapping[str, Any]) -> int:
    """A request of an ensemble is at one of its steps at a time: with as many as all steps' models can hold
    together none of them runs dry. 0, no limit, if one of the steps has none, or is not known."""
    total = 0
    for step in set(steps_of(configs[model])):
        config = configs.get(step)
        if config is None or step == model:
            return 0
        slots = ensemble_slots(step, configs) if steps_of(config) else slots_of(config)
        if not slots:
            return 0
        total += slots
    return total


def instances_of(config: Any) -> int:
    """How many executions of a model can go on at once."""
    instances: int = sum(max(group.count, 1) * max(len(group.gpus), 1) for group in config.instance_group)
    return max(instances, 1)


def steps_of(config: Any) -> tuple[str, ...]:
    """The models of an ensemble's steps; of what is none, ()."""
    return tuple(step.model_name for step in config.ensemble_scheduling.step)


def ensemble_instances(model: str, configs: Mapping[str, Any]) -> int:
    """An ensemble has none of its own: it executes as many requests at once as its steps' models do."""
    found, open_ = {model}, [model]
    while open_:
        steps = {step for step in steps_of(configs[open_.pop()]) if step in configs} - found
        found |= steps
        open_ += steps
    return max(sum(instances_of(configs[one]) for one in found if not steps_of(configs[one])), 1)


@dataclass(frozen=True, slots=True)
class Capacity:
    """By model name: ``slots`` of those that have a limit, ``instances`` of all whose configuration could be
    read; the names of those that are ``decoupled``; of ensembles the models of their ``steps``."""

    slots: dict[str, int] = field(default_factory=dict)
    instances: dict[str, int] = field(default_factory=dict)
    decoupled: tuple[str, ...] = ()
    steps: dict[str, tuple[str, ...]] = field(default_factory=dict)


async def read_capacity(client: ReplicaClient, models: Iterable[str], timeout: float) -> Capacity:
    """A model whose configuration cannot be read has no limit."""
    slots, instances, steps, configs = {}, {}, {}, {}
    for model in models:
        request = service_pb2.ModelConfigRequest(name=model).SerializeToString()
        answer = await client.call(MODEL_CONFIG, request, timeout, {})
        if answer.status == 0:
            config = service_pb2.ModelConfigResponse.FromString(answer.message).config
            configs[model] = config
    for model, config in configs.items():
        if names := steps_of(config):
            steps[model] = names
            instances[model], limit = ensemble_instances(model, configs), ensemble_slots(model, configs)
        else:
            instances[model], limit = instances_of(config), slots_of(config)
        if limit:
            slots[model] = limit
    decoupled = tuple(name for name in configs if configs[name].model_transaction_policy.decoupled)
    return Capacity(slots, instances, decoupled, steps)

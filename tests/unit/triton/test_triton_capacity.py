"""How much a replica can usefully hold, from model configurations as Triton completes them."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2

from tritonfleet.triton.capacity import MODEL_CONFIG, Capacity, ensemble_slots, read_capacity, slots_of
from tritonfleet.triton.client import RawAnswer

CASES = {
    "one instance": ("instance_group [{count: 1}]", 4),
    "no group at all": ("", 4),
    "two instances": ("instance_group [{count: 2}]", 5),
    "two on each of two GPUs": ("instance_group [{count: 2, gpus: [0, 1]}]", 8),
    "several groups": ("instance_group [{count: 1}, {count: 3}]", 8),
    "batches of the model's own making": ("max_batch_size: 8 instance_group [{count: 1}]", 4),
    "dynamic batching": ("max_batch_size: 8 dynamic_batching {} instance_group [{count: 1}]", 16),
    "dynamic batching, two instances": (
        "max_batch_size: 8 dynamic_batching {} instance_group [{count: 2}]",
        32,
    ),
    "preferred sizes": (
        "max_batch_size: 8 dynamic_batching {preferred_batch_size: [2, 4]} instance_group [{count: 1}]",
        8,
    ),
    "preferred sizes that cannot be": (
        "max_batch_size: 8 dynamic_batching {preferred_batch_size: [16]} instance_group [{count: 1}]",
        16,
    ),
    "dynamic batching without batches": ("dynamic_batching {} instance_group [{count: 1}]", 4),
    "sequences": ("max_batch_size: 8 sequence_batching {}", 0),
    "decoupled": ("model_transaction_policy {decoupled: true}", 0),
    "an ensemble": ("ensemble_scheduling {}", 0),
}


@pytest.mark.parametrize("case", CASES)
def test_slots(case: str) -> None:
    text, slots = CASES[case]
    assert slots_of(text_format.Parse(text, model_config_pb2.ModelConfig())) == slots


def ensemble(*steps: str) -> str:
    listed = ", ".join(f'{{model_name: "{step}"}}' for step in steps)
    return f"ensemble_scheduling {{step: [{listed}]}}"


@pytest.mark.parametrize(
    ("steps", "slots"),
    [
        (("one", "batched"), 20),
        (("one", "one"), 4),  # the same model twice holds no more
        (("one", "inner"), 24),
        (("one", "streaming"), 0),
        (("one", "unknown"), 0),
        (("outer",), 0),  # Triton refuses it; here it must only end
    ],
)
def test_an_ensemble_holds_what_its_steps_hold_together(steps: tuple[str, ...], slots: int) -> None:
    texts = {
        "one": "instance_group [{count: 1}]",
        "batched": "max_batch_size: 8 dynamic_batching {} instance_group [{count: 1}]",
        "streaming": "model_transaction_policy {decoupled: true}",
        "inner": ensemble("one", "batched"),
        "outer": ensemble(*steps),
    }
    configs = {name: text_format.Parse(text, model_config_pb2.ModelConfig()) for name, text in texts.items()}
    assert ensemble_slots("outer", configs) == slots


@pytest.mark.parametrize(
    ("steps", "instances"),
    [
        (("three",), 3),
        (("three", "two"), 5),
        (("two", "two"), 2),
        (("three", "inner"), 5),  # what is in both is there once
        (("unknown",), 1),
        (("outer",), 1),  # Triton refuses it; here it must only end
    ],
)
async def test_an_ensemble_executes_what_its_steps_execute_together(
    steps: tuple[str, ...], instances: int
) -> None:
    found = await read_capacity(
        Configured(
            three="instance_group [{count: 3}]", two="instance_group [{count: 2}]",
            inner=ensemble("three", "two"), outer=ensemble(*steps),
        ),
        ["inner", "outer", "three", "two"], 3.0,
    )  # fmt: skip
    assert found.instances["outer"] == instances
    assert found.steps["outer"] == steps
    assert (found.instances["three"], found.instances["inner"]) == (3, 5)


class Configured:
    def __init__(self, **configs: str) -> None:
        self._configs = configs

    async def call(self, path: str, message: bytes, _timeout: float, _metadata: dict[str, str]) -> RawAnswer:
        assert path == MODEL_CONFIG
        text = self._configs[service_pb2.ModelConfigRequest.FromString(message).name]
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        return RawAnswer(0, "", service_pb2.ModelConfigResponse(config=config).SerializeToString())


class Answering:
    async def call(self, path: str, message: bytes, timeout: float, metadata: dict[str, str]) -> RawAnswer:
        assert (path, timeout, metadata) == (MODEL_CONFIG, 3.0, {})
        name = service_pb2.ModelConfigRequest.FromString(message).name
        if name == "gone":
            return RawAnswer(3, "unknown model")
        answer = service_pb2.ModelConfigResponse()
        if name == "free":
            answer.config.model_transaction_policy.decoupled = True
        return RawAnswer(0, "", answer.SerializeToString())


async def test_what_cannot_be_read_or_has_no_limit_is_left_out() -> None:
    found = await read_capacity(Answering(), ["plain", "gone", "free"], 3.0)
    assert found == Capacity({"plain": 4}, {"plain": 1, "free": 1}, ("free",))

"""Tensors by metadata and from files, and what is said of those that do not fit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritonfleet.bench.inputs import InputError, RandomInputs, parse_shapes, read_items, requests
from tritonfleet.triton.messages import ModelInfo, TensorInfo

IMAGE, TEXT, OPEN = (
    TensorInfo("IMAGE", "FP32", (2, 2)), TensorInfo("TEXT", "BYTES", (1,)), TensorInfo("X", "INT32", (-1,)),
)  # fmt: skip


def model(*inputs: TensorInfo, max_batch: int = 8) -> ModelInfo:
    return ModelInfo("m", "", inputs, max_batch, sequences=False, decoupled=False, tells_replica=False)


def written(folder: Path, data: Any) -> Path:
    path = folder / "data.json"
    path.write_text(json.dumps({"data": data}))
    return path


def values(raw: bytes, kind: str) -> list[Any]:
    return list(np.frombuffer(raw, kind))


def test_random_by_metadata() -> None:
    items = RandomInputs({}, string_length=5).items(model(IMAGE, TEXT))
    assert len({item["IMAGE"].raw for item in items}) == len(items) > 1
    assert all(0 <= value < 1 for value in values(items[0]["IMAGE"].raw, "<f4"))
    assert len(items[0]["TEXT"].raw) == 4 + 5
    again = RandomInputs({}, string_length=5).items(model(IMAGE, TEXT))
    assert [item["IMAGE"].raw for item in again] == [item["IMAGE"].raw for item in items]


@pytest.mark.parametrize("kind", ["BOOL", "UINT8", "INT8", "INT16", "INT64", "FP16", "FP64", "BF16"])
def test_every_type_has_its_size(kind: str) -> None:
    size = {"BOOL": 1, "UINT8": 1, "INT8": 1, "INT16": 2, "INT64": 8, "FP16": 2, "FP64": 8, "BF16": 2}[kind]
    for zero in (False, True):
        [item, *_] = RandomInputs({}, zero=zero).items(model(TensorInfo("X", kind, (3,))))
        assert len(item["X"].raw) == 3 * size


def test_an_open_shape_must_be_given() -> None:
    with pytest.raises(InputError, match="X has no fixed shape") as caught:
        RandomInputs({}).items(model(OPEN))
    assert "--shape X:100" in caught.value.hint
    assert RandomInputs({"X": (7,)}).items(model(OPEN))[0]["X"].shape == (7,)
    with pytest.raises(InputError, match=r"shape \[7, 1\] does not fit \[-1\]"):
        RandomInputs({"X": (7, 1)}).items(model(OPEN))
    with pytest.raises(InputError, match="no such input"):
        RandomInputs({"Y": (7,), "X": (1,)}).items(model(OPEN))


def test_optional_inputs_are_left_out() -> None:
    optional = TensorInfo("Y", "FP32", (1,), optional=True)
    assert set(RandomInputs({}).items(model(IMAGE, optional))[0]) == {"IMAGE"}


def test_json(tmp_path: Path) -> None:
    data = [
        {"X": [1, 2, 3], "TEXT": ["hé"]},
        {"X": {"content": [4], "shape": [1]}, "TEXT": {"b64": "AQAAAGE="}},
    ]
    [[first], [second]] = read_items(written(tmp_path, data), model(OPEN, TEXT))
    assert (values(first["X"].raw, "<i4"), first["X"].shape) == ([1, 2, 3], (3,))
    assert first["TEXT"].raw == b"\3\0\0\0h\xc3\xa9"
    assert second["TEXT"].raw == b"\1\0\0\0a"


def test_json_with_sequences(tmp_path: Path) -> None:
    found = read_items(written(tmp_path, [[{"X": [1]}, {"X": [2]}], [{"X": [3]}]]), model(OPEN))
    assert [[values(step["X"].raw, "<i4") for step in sequence] for sequence in found] == [[[1], [2]], [[3]]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"Y": [1]}], "no input 'Y'"),
        ([{}], "lacks the input 'IMAGE'"),
        ([{"IMAGE": [1, 2, 3]}], r"3 values, its shape \[2, 2\] 4"),
        ([{"IMAGE": ["a", 2, 3, 4]}], "IMAGE is no FP32"),
        ([], "at least one entry"),
        ([3], "not an object"),
    ],
)
def test_json_that_does_not_fit(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_items(written(tmp_path, data), model(IMAGE))


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(
        path, IMAGE=np.arange(12, dtype=np.float64).reshape(3, 2, 2), TEXT=np.array([["a"], ["bc"], ["d"]])
    )
    items = [item for [item] in read_items(path, model(IMAGE, TEXT))]
    assert values(items[1]["IMAGE"].raw, "<f4") == [4, 5, 6, 7]
    assert items[1]["TEXT"].raw == b"\2\0\0\0bc"
    with pytest.raises(InputError, match="lacks an array for the input 'X'"):
        read_items(path, model(IMAGE, TEXT, OPEN))


def test_batches() -> None:
    items = RandomInputs({}).items(model(IMAGE))[:5]
    [first, second] = requests(items, model(IMAGE), 2)
    assert (first[0].shape, second[0].shape) == ((2, 2, 2), (2, 2, 2))
    assert first[0].raw == items[0]["IMAGE"].raw + items[1]["IMAGE"].raw
    assert requests(items[:1], model(IMAGE), 3)[0][0].raw == items[0]["IMAGE"].raw * 3
    assert requests(items, model(IMAGE, max_batch=0), 1)[0][0].shape == (2, 2)
    with pytest.raises(InputError, match="at most 8"):
        requests(items, model(IMAGE), 9)
    with pytest.raises(InputError, match="does not batch"):
        requests(items, model(IMAGE, max_batch=0), 2)


def test_items_of_a_batch_must_agree() -> None:
    items = [RandomInputs({"X": (size,)}).items(model(OPEN))[0] for size in (1, 2)]
    with pytest.raises(InputError, match="differ in shape"):
        requests(items, model(OPEN), 2)


def test_shapes() -> None:
    assert parse_shapes(["A:3,224", "b:c:1"]) == {"A": (3, 224), "b:c": (1,)}
    with pytest.raises(InputError, match="not NAME:SIZE"):
        parse_shapes(["A"])

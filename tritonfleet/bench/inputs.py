"""What requests carry: tensors made at random by the model's metadata, or read from a JSON or NPZ file.

All of it becomes bytes before the load begins. The JSON format is perf_analyzer's:
``{"data": [{"INPUT": [1, 2]}, {"INPUT": {"content": [1, 2], "shape": [2]}}, {"INPUT": {"b64": "..."}}]}``;
each entry is one item, and a list of entries among them is one sequence.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tritonfleet.triton.messages import ModelInfo, Tensor, TensorInfo

DTYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1",
    "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
RANDOM_ITEMS = 16  # different ones; fewer where they are large
RANDOM_BYTES = 64 << 20  # of them all
LETTERS = b"abcdefghijklmnopqrstuvwxyz0123456789 "
LARGEST_INTEGER = 100  # random integers lie below: they often are indices of something


class InputError(ValueError):
    """The inputs do not fit the model. The message says which and how; ``hint`` what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Value:
    """One input of one item: little-endian bytes, and its shape without the batch's dimension."""

    raw: bytes
    shape: tuple[int, ...]


Item = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class RandomInputs:
    """``shapes`` by input, for those whose shape the model leaves open; ``zero``: zeros instead."""

    shapes: Mapping[str, tuple[int, ...]]
    string_length: int = 128
    string_data: str = ""
    zero: bool = False
    seed: int = 1

    def items(self, model: ModelInfo) -> list[Item]:
        """Raises InputError where a shape is missing or does not fit."""
        wanted = {tensor.name: tensor for tensor in model.inputs}
        for name in self.shapes.keys() - wanted.keys():
            raise InputError(f"--shape {name}: the model has no such input", _there_are(wanted))
        tensors = [tensor for tensor in model.inputs if not tensor.optional or tensor.name in self.shapes]
        shapes = {tensor.name: self._shape(tensor) for tensor in tensors}
        size = sum(prod(shapes[t.name]) * self._element_bytes(t.datatype) for t in tensors)
        draw = np.random.default_rng(self.seed)
        count = 1 if self.zero else max(1, min(RANDOM_ITEMS, RANDOM_BYTES // max(size, 1)))
        return [
            {t.name: Value(self._raw(t, prod(shapes[t.name]), draw), shapes[t.name]) for t in tensors}
            for _ in range(count)
        ]

    def _shape(self, tensor: TensorInfo) -> tuple[int, ...]:
        given = self.shapes.get(tensor.name)
        if given is None:
            if -1 in tensor.shape:
                example = ",".join(str(size) if size > 0 else "100" for size in tensor.shape)
                raise InputError(
                    f"input {tensor.name} has no fixed shape: {list(tensor.shape)}",
                    f"say one, such as --shape {tensor.name}:{example}, or give --input-data FILE",
                )
            return tensor.shape
        _check_shape(tensor, given)
        return given

    def _element_bytes(self, datatype: str) -> int:
        if datatype == "BYTES":
            return 4 + (len(self.string_data.encode()) or self.string_length)
        return 2 if datatype == "BF16" else np.dtype(_dtype(datatype)).itemsize

    def _raw(self, tensor: TensorInfo, count: int, draw: np.random.Generator) -> bytes:
        kind = tensor.datatype
        if kind == "BYTES":
            texts = [self.string_data.encode() or self._text(draw) for _ in range(count)]
            return byte_strings(texts)
        if self.zero:
            return bytes(count * self._element_bytes(kind))
        if kind == "BF16":  # the upper half of an FP32
            return bytes((draw.random(count, np.float32).view("<u4") >> 16).astype("<u2").tobytes())
        dtype = np.dtype(_dtype(kind))
        if dtype.kind == "f":
            return bytes(draw.random(count).astype(dtype).tobytes())
        top = 2 if dtype.kind == "b" else LARGEST_INTEGER
        return bytes(draw.integers(0, top, count).astype(dtype).tobytes())

    def _text(self, draw: np.random.Generator) -> bytes:
        if self.zero:
            return b""
        letters = np.frombuffer(LETTERS, np.uint8)
        return bytes(letters[draw.integers(0, len(letters), self.string_length)].tobytes())


def read_items(path: Path, model: ModelInfo) -> list[list[Item]]:
    """The items of a file by sequence; each item outside of one is a list of its own. Raises InputError."""
    if path.suffix == ".npz":
        return [[item] for item in _from_npz(path, model)]
    try:
        data = json.loads(path.read_text())["data"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise InputError(
            f'{path} is not JSON of the form {{"data": [{{"INPUT": [...]}}]}}: {error!r}',
            "the format is perf_analyzer's; a file that ends in .npz is read as NumPy's",
        ) from None
    if not isinstance(data, list) or not data:
        raise InputError(f'{path}: "data" is not a list with at least one entry')
    steps = [entry if isinstance(entry, list) else [entry] for entry in data]
    return [[_from_json(step, model, path) for step in sequence] for sequence in steps]


def _from_json(step: Any, model: ModelInfo, path: Path) -> Item:
    if not isinstance(step, dict):
        raise InputError(f'{path}: an entry of "data" is not an object with one key for each input')
    wanted = {tensor.name: tensor for tensor in model.inputs}
    for name in step.keys() - wanted.keys():
        raise InputError(f"{path}: the model has no input {name!r}", _there_are(wanted))
    for name in wanted.keys() - step.keys():
        if not wanted[name].optional:
            raise InputError(f"{path}: an entry lacks the input {name!r}")
    return {name: _json_value(wanted[name], given, path) for name, given in step.items()}


def _json_value(tensor: TensorInfo, given: Any, path: Path) -> Value:
    shape, content = None, given
    if isinstance(given, dict):
        shape, content = given.get("shape"), given.get("content")
        if "b64" in given:
            try:
                raw = base64.b64decode(given["b64"], validate=True)
            except (binascii.Error, TypeError) as error:
                raise InputError(f"{path}: input {tensor.name}: b64: {error}") from None
            return Value(raw, _json_shape(tensor, shape, None, path))
    flat = _flat(content)
    found = _json_shape(tensor, shape, len(flat), path)
    try:
        if tensor.datatype == "BYTES":
            return Value(byte_strings([str(text).encode() for text in flat]), found)
        return Value(np.array(flat, _dtype(tensor.datatype)).tobytes(), found)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: input {tensor.name} is no {tensor.datatype}: {error}") from None


def _flat(content: Any) -> list[Any]:
    if not isinstance(content, list):
        return [content]
    return [value for part in content for value in _flat(part)] if content else []


def _json_shape(tensor: TensorInfo, shape: Any, count: int | None, path: Path) -> tuple[int, ...]:
    """The shape that is given, or that follows from ``count`` values where one dimension is open."""
    if isinstance(shape, list):
        found = tuple(int(size) for size in shape)
        _check_shape(tensor, found)
    elif count is not None and tensor.shape.count(-1) == 1:
        rest = prod(size for size in tensor.shape if size > 0)
        found = tuple(count // rest if size < 0 else size for size in tensor.shape)
    else:
        found = tensor.shape
    if -1 in found:
        raise InputError(
            f"{path}: input {tensor.name} needs its shape", '{"content": [...], "shape": [2, 3]}'
        )
    if count is not None and prod(found) != count:
        raise InputError(
            f"{path}: input {tensor.name} has {count} values, its shape {list(found)} {prod(found)}"
        )
    return found


def _from_npz(path: Path, model: ModelInfo) -> list[Item]:
    """One array for each input; its first axis goes over the items."""
    try:
        arrays = dict(np.load(path, allow_pickle=False))
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is no NPZ file: {error}") from None
    wanted = {tensor.name: tensor for tensor in model.inputs}
    for name in arrays.keys() - wanted.keys():
        raise InputError(f"{path}: the model has no input {name!r}", _there_are(wanted))
    for name in wanted.keys() - arrays.keys():
        if not wanted[name].optional:
            raise InputError(f"{path} lacks an array for the input {name!r}")
    counts = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1 or counts == {0}:
        raise InputError(f"{path}: all arrays need the same number of items, their first axis, not {counts}")
    for name, array in arrays.items():
        _check_shape(wanted[name], array.shape[1:])
    return [
        {name: _npz_value(wanted[name], array[index]) for name, array in arrays.items()}
        for index in range(counts.pop())
    ]


def _npz_value(tensor: TensorInfo, array: Any) -> Value:
    found = np.asarray(array)
    if tensor.datatype == "BYTES":
        texts = [value if isinstance(value, bytes) else str(value).encode() for value in found.ravel()]
        return Value(byte_strings(texts), found.shape)
    return Value(found.astype(_dtype(tensor.datatype)).tobytes(), found.shape)


def requests(items: Sequence[Item], model: ModelInfo, batch: int) -> list[list[Tensor]]:
    """The tensors of each request, ``batch`` items in each; too few items are used again from the first."""
    if model.max_batch == 0 and batch > 1:
        raise InputError(f"model {model.name} does not batch: -b must be 1")
    if model.max_batch and batch > model.max_batch:
        raise InputError(f"model {model.name} takes batches of at most {model.max_batch}")
    count = max(1, len(items) // batch)
    return [
        _tensors([items[(index * batch + at) % len(items)] for at in range(batch)], model)
        for index in range(count)
    ]


def _tensors(items: Sequence[Item], model: ModelInfo) -> list[Tensor]:
    found = []
    for tensor in model.inputs:
        values = [item[tensor.name] for item in items if tensor.name in item]
        if not values:
            continue
        shapes = {value.shape for value in values}
        if len(values) != len(items) or len(shapes) > 1:
            raise InputError(f"input {tensor.name}: the items of a batch differ in shape: {sorted(shapes)}")
        shape = (len(values), *values[0].shape) if model.max_batch else values[0].shape
        found.append(Tensor(tensor.name, tensor.datatype, shape, b"".join(value.raw for value in values)))
    return found


def parse_shapes(words: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """``INPUT0:3,224,224`` → the shape by name. Raises InputError."""
    found = {}
    for word in words:
        name, _, sizes = word.rpartition(":")
        if not name or not all(size.isascii() and size.isdigit() for size in sizes.split(",")):
            raise InputError(f"--shape {word!r} is not NAME:SIZE,SIZE,...", "--shape INPUT0:3,224,224")
        found[name] = tuple(int(size) for size in sizes.split(","))
    return found


def byte_strings(texts: Sequence[bytes]) -> bytes:
    """Triton's raw form of BYTES: each with its length before it."""
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _check_shape(tensor: TensorInfo, given: Sequence[int]) -> None:
    fits = len(given) == len(tensor.shape) and all(
        want in (-1, size) for want, size in zip(tensor.shape, given, strict=True)
    )
    if not fits:
        raise InputError(
            f"input {tensor.name}: shape {list(given)} does not fit {list(tensor.shape)}",
            "shapes are of one item, without the batch's dimension",
        )


def _dtype(datatype: str) -> str:
    if datatype not in DTYPES:
        raise InputError(
            f"tensors of type {datatype} cannot be made here", "give the bytes as b64 in a JSON file"
        )
    return DTYPES[datatype]


def _there_are(wanted: Mapping[str, TensorInfo]) -> str:
    return "there are: " + ", ".join(sorted(wanted))

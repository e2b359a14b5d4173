"""A BERT encoder with mean pooling, in numpy, or in torch on CUDA where there is one."""

import json
import mmap
import struct
from pathlib import Path

import numpy as np

LAYERS, HEADS = 6, 12
EPSILON = 1e-12  # config.json: layer_norm_eps


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The FP32 tensors of the file, mapped: replicas on one host share their memory."""
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    (size,) = struct.unpack_from("<Q", data, 0)
    found = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            tensor = np.frombuffer(data, np.float32, (end - begin) // 4, 8 + size + begin)
            found[name] = tensor.reshape(entry["shape"])
    return found


class Numpy:
    """What differs between the two libraries."""

    name = "numpy"

    @staticmethod
    def array(values):
        return values

    @staticmethod
    def numpy(values):
        return values

    @staticmethod
    def softmax(x):
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    @staticmethod
    def gelu(x):
        return x * (0.5 + 0.5 * erf(x / np.sqrt(np.float32(2))))


class Torch:
    """The same on CUDA. Raises ImportError, or RuntimeError without a CUDA device."""

    name = "torch"

    def __init__(self):
        import torch

        if not torch.cuda.is_available():
            raise RuntimeError("no CUDA device")
        self.torch = torch

    def array(self, values):
        return self.torch.from_numpy(np.array(values)).cuda()

    @staticmethod
    def numpy(values):
        return values.cpu().numpy()

    def softmax(self, x):
        return self.torch.softmax(x, -1)

    def gelu(self, x):
        return self.torch.nn.functional.gelu(x)


def erf(x):
    """Within 1.5e-7 (Abramowitz and Stegun 7.1.26); numpy has none."""
    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    tail = np.float32(1.061405429) * t - np.float32(1.453152027)
    for factor in (1.421413741, -0.284496736, 0.254829592):
        tail = tail * t + np.float32(factor)
    return np.sign(x) * (1 - tail * t * np.exp(-x * x))


class Bert:
    """``embed``: token ids and their mask, [texts, tokens] → embeddings of length 1, [texts, 384]."""

    def __init__(self, weights: dict[str, np.ndarray], library):
        self.library = library
        self.weights = {name: library.array(tensor) for name, tensor in weights.items()}

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / ((x * x).mean(-1, keepdims=True) + EPSILON) ** 0.5
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def embed(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        tokens = ids.shape[1]
        mask = self.library.array(mask.astype(np.float32))
        x = self.weights["embeddings.word_embeddings.weight"][self.library.array(ids)]
        x = x + self.weights["embeddings.position_embeddings.weight"][:tokens]
        x = self.norm(x + self.weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(LAYERS):
            x = self.layer(x, (1 - mask)[:, None, None, :] * -1e9, f"encoder.layer.{layer}")
        pooled = (x * mask[:, :, None]).sum(1) / mask.sum(1)[:, None]
        pooled = pooled / ((pooled * pooled).sum(-1) ** 0.5)[:, None]
        return self.library.numpy(pooled)

    def layer(self, x, bias, name):
        texts, tokens, width = x.shape

        def heads(part):
            split = self.linear(x, f"{name}.attention.self.{part}").reshape(
                texts, tokens, HEADS, width // HEADS
            )
            return split.swapaxes(1, 2)

        scores = heads("query") @ heads("key").swapaxes(2, 3) / (width // HEADS) ** 0.5
        mixed = (self.library.softmax(scores + bias) @ heads("value")).swapaxes(1, 2)
        attended = self.linear(mixed.reshape(texts, tokens, width), f"{name}.attention.output.dense")
        x = self.norm(x + attended, f"{name}.attention.output.LayerNorm")
        inner = self.library.gelu(self.linear(x, f"{name}.intermediate.dense"))
        return self.norm(x + self.linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

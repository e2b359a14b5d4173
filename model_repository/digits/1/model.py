"""Pixels in, probabilities of the ten digits out; see ../config.pbtxt."""

from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

PIXEL_MAX = 16.0  # of scikit-learn's digits


class TritonPythonModel:
    def initialize(self, args):
        path = Path(args["model_repository"]) / args["model_version"] / "weights.npz"
        with np.load(path) as weights:  # stored as float16 to keep the file small
            self.w1, self.b1, self.w2, self.b2 = (
                weights[name].astype(np.float32) for name in ("w1", "b1", "w2", "b2")
            )

    def execute(self, requests):
        images = [pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy() for request in requests]
        scores = self.forward(np.concatenate(images))
        ends = np.cumsum([len(image) for image in images])
        return [self.respond(part) for part in np.split(scores, ends[:-1])]

    def forward(self, images):
        """Images [n, 64] → probabilities [n, 10]."""
        hidden = np.maximum(images / PIXEL_MAX @ self.w1 + self.b1, 0)
        logits = hidden @ self.w2 + self.b2
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    @staticmethod
    def respond(scores):
        labels = scores.argmax(axis=1).astype(np.int64).reshape(-1, 1)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("SCORES", scores.astype(np.float32)), pb_utils.Tensor("LABEL", labels)]
        )

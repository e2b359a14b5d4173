"""Counts tokens and takes a device's time for it; see ../config.pbtxt."""

import json
import os
import re
import time

import numpy as np
import triton_python_backend_utils as pb_utils

TOKEN = re.compile(rb"\w+|[^\w\s]")


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.base_s = self.parameter(parameters, "base_ms") / 1e3
        self.per_token_s = self.parameter(parameters, "per_token_us") / 1e6
        self.replica = os.environ.get("TRITONFLEET_INSTANCE", "unknown").encode()

    @staticmethod
    def parameter(parameters, name):
        text = parameters.get(name, {}).get("string_value", "")
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise pb_utils.TritonModelException(
                f"text_work/config.pbtxt: parameters.{name} must be a number >= 0, not {text!r}"
            )
        return value

    def execute(self, requests):
        began = time.perf_counter()
        counts = [self.count(request) for request in requests]
        tokens = sum(int(count.sum()) for count in counts)
        until = began + self.base_s + self.per_token_s * tokens
        time.sleep(max(0.0, until - time.perf_counter()))
        took_ms = (time.perf_counter() - began) * 1e3
        return [self.respond(count, took_ms) for count in counts]

    @staticmethod
    def count(request):
        """Tokens of every text of a request, [n, 1]."""
        texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
        return np.array([[len(TOKEN.findall(text))] for text in texts.ravel()], np.int32)

    def respond(self, counts, took_ms):
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("TOKENS", counts),
                pb_utils.Tensor("REPLICA", np.full(counts.shape, self.replica, np.object_)),
                pb_utils.Tensor("COMPUTE_MS", np.full(counts.shape, took_ms, np.float32)),
            ]
        )

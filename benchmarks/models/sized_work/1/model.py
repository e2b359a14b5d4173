"""Sleeps for as long as its inputs are large; see ../config.pbtxt."""

import json
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        slowness = float(os.environ.get("SLOWNESS", "1"))
        self.base_s = slowness * float(parameters["base_ms"]["string_value"]) / 1e3
        self.per_byte_s = slowness * float(parameters["per_byte_us"]["string_value"]) / 1e6
        time.sleep(float(os.environ.get("LOAD_S", "0")))

    def execute(self, requests):
        began = time.perf_counter()
        sizes = [self.size(request) for request in requests]
        until = began + self.base_s + self.per_byte_s * sum(int(size.sum()) for size in sizes)
        time.sleep(max(0.0, until - time.perf_counter()))
        return [pb_utils.InferenceResponse([pb_utils.Tensor("SIZE", size)]) for size in sizes]

    @staticmethod
    def size(request):
        """Bytes of every element of a request, in its shape."""
        payload = pb_utils.get_input_tensor_by_name(request, "PAYLOAD").as_numpy()
        return np.array([len(element) for element in payload.ravel()], np.int32).reshape(payload.shape)

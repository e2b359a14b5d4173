"""A sum per sequence; see ../config.pbtxt.

One instance holds the sums of all sequences, by correlation id. A sequence that the client abandons
ends in the scheduler, when its idle time is over, without a word to the model: the sums of such
sequences are dropped when others start.
"""

import json
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        batching = json.loads(args["model_config"])["sequence_batching"]
        self.idle_s = int(batching["max_sequence_idle_microseconds"]) / 1e6
        self.sums = {}  # correlation id → (sum so far, when it was last added to), oldest first
        replica = os.environ.get("TRITONFLEET_INSTANCE", "unknown").encode()
        self.replica = np.array([[replica]], np.object_)

    def execute(self, requests):
        now = time.monotonic()
        return [self.add(request, now) for request in requests]

    def add(self, request, now):
        key, number = request.correlation_id(), self.first(request, "INPUT")
        if self.first(request, "START"):
            self.forget_abandoned(now)
            before = 0
        else:
            before = self.sums[key][0]
        total = np.array([before], np.int32) + np.int32(number)  # an array wraps around without a warning
        self.sums.pop(key, None)
        if not self.first(request, "END"):
            self.sums[key] = (total[0], now)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("SUM", total.reshape(1, 1)), pb_utils.Tensor("REPLICA", self.replica)]
        )

    @staticmethod
    def first(request, name):
        return pb_utils.get_input_tensor_by_name(request, name).as_numpy().ravel()[0]

    def forget_abandoned(self, now):
        """The scheduler ended these at ``idle_s``; twice that leaves no doubt."""
        for key, (_, last) in list(self.sums.items()):
            if now - last <= 2 * self.idle_s:
                break
            del self.sums[key]

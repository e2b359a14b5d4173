"""Bytes in, the same bytes out; see ../config.pbtxt."""

import os

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, _args):
        replica = os.environ.get("TRITONFLEET_INSTANCE", "unknown").encode()
        self.replica = np.array([replica], np.object_)

    def execute(self, requests):
        return [self.respond(pb_utils.get_input_tensor_by_name(request, "INPUT0")) for request in requests]

    def respond(self, given):
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("OUTPUT0", given.as_numpy()), pb_utils.Tensor("REPLICA", self.replica)]
        )

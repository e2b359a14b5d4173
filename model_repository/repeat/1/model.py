"""One request, many responses; see ../config.pbtxt.

Each request is answered on a thread, so that slow ones run side by side, up to ``CONCURRENT``.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils

CONCURRENT = 32
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
CANCEL_POLL_S = 0.02  # how soon a cancelled request stops waiting


class TritonPythonModel:
    def initialize(self, _args):
        self.threads = ThreadPoolExecutor(CONCURRENT, thread_name_prefix="repeat")

    def execute(self, requests):
        for request in requests:
            values = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy().copy()
            delays = pb_utils.get_input_tensor_by_name(request, "DELAY_MS")
            delays_s = [0.0] if delays is None else (delays.as_numpy() / 1e3).tolist() or [0.0]
            self.threads.submit(self.answer, request.get_response_sender(), values, delays_s)

    def answer(self, sender, values, delays_s):
        try:
            for index, value in enumerate(values):
                self.wait(sender, delays_s[min(index, len(delays_s) - 1)])
                if sender.is_cancelled():
                    break
                sender.send(
                    pb_utils.InferenceResponse(
                        [
                            pb_utils.Tensor("OUT", np.array([value], np.int32)),
                            pb_utils.Tensor("IDX", np.array([index], np.uint32)),
                        ]
                    )
                )
        finally:
            sender.send(flags=FINAL)

    @staticmethod
    def wait(sender, delay_s):
        until = time.monotonic() + delay_s
        while (left := until - time.monotonic()) > 0 and not sender.is_cancelled():
            time.sleep(min(left, CANCEL_POLL_S))

    def finalize(self):
        self.threads.shutdown(wait=True)

"""A steady load of requests that take their time, from threads; every failure is kept."""

import numpy as np
import tritonclient.grpc as triton
from background import Background, told

WORDS = 400  # of which each costs 0.1 ms: a request takes 44 ms


class Work(Background):
    """Threads that each keep one request of the slow model under way."""

    def __init__(self, address: str, threads: int, words: int = WORDS, pause_s: float = 0.0) -> None:
        super().__init__(address, threads)
        self.words = words
        self.pause_s = pause_s  # of each thread between two requests

    def _run(self) -> None:
        text = triton.InferInput("TEXT", [1, 1], "BYTES")
        text.set_data_from_numpy(np.array([[b"word " * self.words]], dtype=np.object_))
        with triton.InferenceServerClient(self.address) as client:
            while not self._stop.wait(self.pause_s):
                try:
                    client.infer("text_work", [text])
                    self.done += 1
                except triton.InferenceServerException as error:
                    self.failures.append(told(error))

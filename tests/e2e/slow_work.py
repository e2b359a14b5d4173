"""A steady load of requests that take their time, from threads; every failure is kept."""

import threading
from typing import Self

import numpy as np
import tritonclient.grpc as triton

WORDS = 400  # of which each costs 0.1 ms: a request takes 44 ms


class Work:
    """Threads that each keep one request of the slow model under way."""

    def __init__(self, address: str, threads: int, words: int = WORDS, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s  # of each thread between two requests
        self.failures: list[str] = []
        self.done = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(address, words)) for _ in range(threads)]

    def _run(self, address: str, words: int) -> None:
        text = triton.InferInput("TEXT", [1, 1], "BYTES")
        text.set_data_from_numpy(np.array([[b"word " * words]], dtype=np.object_))
        with triton.InferenceServerClient(address) as client:
            while not self._stop.wait(self.pause_s):
                try:
                    client.infer("text_work", [text])
                    self.done += 1
                except triton.InferenceServerException as error:
                    self.failures.append(f"{error.status()}: {error.message()}")

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

"""Clients in threads beside a test: what they did, and every failure in its own words."""

import threading
from typing import Self

import tritonclient.grpc as triton


def told(error: triton.InferenceServerException) -> str:
    return f"{error.status()}: {error.message()}"


class Background:
    """Threads that run ``_run`` from entering to leaving; it returns soon after ``_stop`` is set."""

    def __init__(self, address: str, threads: int) -> None:
        self.address = address
        self.done, self.failures = 0, list[str]()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def _run(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(70)

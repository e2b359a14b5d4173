"""Router workers that somebody else runs (`router.external`), before a real Triton."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from running_fleet import RunningFleet, stop
from test_fleet_traffic import tensor

pytestmark = [pytest.mark.triton]


class ExternalFleet(RunningFleet):
    """Its router workers are this test's processes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            models=["repeat"],
            router={"external": True, "drain_timeout": "40s"},
            triton={"exit_timeout": "1s"},
        )
        self.routers: list[subprocess.Popen[bytes]] = []

    def router(self, *arguments: str) -> "subprocess.Popen[bytes]":
        log = (self.state / f"router-of-test-{len(self.routers)}.log").open("wb")
        program = [sys.executable, "-m", "tritonfleet.cli.main", "-f", str(self.file), "router", *arguments]
        with log:
            started = subprocess.Popen(program, env=self.environ, stdout=log, stderr=log)
        self.routers.append(started)
        return started

    def workers(self) -> dict[int, dict[str, Any]]:
        """By pid."""
        return {worker["pid"]: worker for worker in self.snapshot()["router"]["workers"]}

    def end(self) -> None:
        try:
            stop(self)
        finally:
            for router in self.routers:
                router.kill()
                router.wait(10)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ExternalFleet]:
    made = ExternalFleet(tmp_path)
    made.state.mkdir()
    try:
        yield made
    finally:
        made.end()


def test_a_drain_waits_for_the_router_that_another_has_taken_over_from(fleet: ExternalFleet) -> None:
    """A new router is started beside the old one, which finishes its calls: what it has in flight counts."""
    first = fleet.router()
    fleet.cli("up", "-d", "--wait", "--scale", "main=1")
    answers: Queue[tuple[Any, Any]] = Queue()
    values = np.arange(120, dtype=np.int32)
    with triton.InferenceServerClient(fleet.address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        delay = tensor("DELAY_MS", np.array([100], np.uint32), "UINT32")
        client.async_stream_infer("repeat", [tensor("IN", values, "INT32"), delay])
        got = [answers.get(timeout=30)]
        second = fleet.router()
        fleet.until(lambda f: second.pid in f.workers(), "the second is known")
        first.terminate()
        fleet.cli("restart", "main-0")
        while len(got) < len(values) and got[-1][1] is None:
            got.append(answers.get(timeout=60))
        client.stop_stream()
    assert [str(error) for _, error in got if error is not None] == []
    assert [int(result.as_numpy("OUT")[0]) for result, _ in got] == values.tolist()
    first.wait(30)
    fleet.until(lambda f: f.workers().keys() == {second.pid}, "only the second is left", timeout=30)
    joined = [event["reason"] for event in fleet.events("router.joined")]
    assert len(joined) == 2, joined

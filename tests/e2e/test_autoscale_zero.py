"""A real fleet that nobody uses goes to sleep, and the next request wakes it and is answered."""

import queue

import numpy as np
import pytest
import tritonclient.grpc as triton
from running_fleet import running_fleet

pytestmark = [pytest.mark.triton, pytest.mark.timeout(240), pytest.mark.xdist_group("fleet_autoscale")]


def test_to_zero_and_back_by_a_request(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = triton.InferInput("TEXT", [1, 1], "BYTES")
    text.set_data_from_numpy(np.array([[b"word " * 10]], dtype=np.object_))
    with running_fleet(
        tmp_path_factory.mktemp("zero"),
        models=["text_work"],
        replicas={"min": 0, "initial": 1, "max": 2},
        autoscale={
            "scale_up": {"window": "4s", "panic_window": "2s"},
            "scale_down": {"stabilization": "6s", "step": "2s"},
        },
    ) as fleet:
        fleet.ready(1)
        with triton.InferenceServerClient(fleet.address) as client:
            client.infer("text_work", [text], client_timeout=30)
            fleet.until(lambda f: not f.replicas(), "idle, it goes to sleep", 90)
            assert client.is_server_ready()
            assert client.is_model_ready("text_work")
            with pytest.raises(triton.InferenceServerException, match="UNAVAILABLE"):
                client.infer("no_such_model", [text], client_timeout=30)
            assert not fleet.replicas()  # an unknown model wakes nobody
            answers: queue.SimpleQueue[object] = queue.SimpleQueue()
            client.start_stream(lambda result, error: answers.put(error or result))
            client.async_stream_infer("text_work", [text])
            fleet.until(lambda f: f.replicas(), "the stream's first request has woken it")
            client.infer("text_work", [text], client_timeout=90)  # while the replica loads
            assert isinstance(answers.get(timeout=90), triton.InferResult)
            client.stop_stream()
        reasons = [event["reason"] for event in fleet.events("pool.autoscaled")]
        assert "0 → 1: woken by a request for model text_work" in reasons

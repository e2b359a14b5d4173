"""A replica that answers every request with INTERNAL, quickly, while its health probes pass, is replaced."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from running_fleet import REPOSITORY, running_fleet

pytestmark = [
    pytest.mark.triton,
    pytest.mark.chaos,
    pytest.mark.timeout(240),
    pytest.mark.xdist_group("fleet_poisoned"),
]

# Added to the model: the server whose name stands in the file is the one that is broken.
POISON = """

def execute_poisoned(self, requests, _execute=TritonPythonModel.execute):
    if os.environ.get("TRITONFLEET_INSTANCE") in open({path!r}).read().split():
        error = pb_utils.TritonError("CUDA error", pb_utils.TritonError.INTERNAL)
        return [pb_utils.InferenceResponse([], error) for _ in requests]
    return _execute(self, requests)


TritonPythonModel.execute = execute_poisoned
"""


def test_it_is_left_out_tried_again_and_replaced(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "echo", tmp_path / "models" / "echo")
    victims = tmp_path / "victims"
    victims.write_text("")
    with (tmp_path / "models" / "echo" / "1" / "model.py").open("a") as model:
        model.write(POISON.format(path=str(victims)))
    tensor = triton.InferInput("INPUT0", [8], "UINT8")
    tensor.set_data_from_numpy(np.zeros(8, np.uint8))
    with running_fleet(
        tmp_path, model_repository=str(tmp_path / "models"), replicas={"min": 1, "initial": 2, "max": 4}
    ) as fleet:
        victims.write_text("main-0.1")
        failures: list[str] = []
        deadline = time.monotonic() + 120  # the routers try it again after 30 s
        with triton.InferenceServerClient(fleet.address) as client:
            while not (found := fleet.events("replica.unhealthy")):
                assert time.monotonic() < deadline, f"not replaced; {len(failures)} calls failed"
                for _ in range(20):
                    try:
                        client.infer("echo", [tensor])
                    except triton.InferenceServerException as error:
                        failures.append(str(error))
            assert found[0]["subject"] == "main-0"
            # While the other one is away the broken one is asked all the same: then the numbers mean nothing.
            others = [event for event in fleet.events("replica.") if event["subject"] == "main-1"]
            stayed = [event["type"] for event in others] == ["replica.starting", "replica.ready"]
            assert stayed, f"{others}\n{fleet.last_words()}"
            reason = found[0]["reason"]
            assert "the routers left it out 2 times (5 failures in a row" in reason, fleet.last_words()
            # Five until it was left out, five when it was tried again.
            assert len(failures) == 10, fleet.last_words()
            assert all("CUDA error" in text for text in failures)
            fleet.until(
                lambda f: (
                    f.replicas()["main-0"]["generation"] == 2 and f.replicas()["main-0"]["state"] == "ready"
                ),
                "it is launched again",
            )
            assert "cpu0" not in fleet.replicas()["main-0"]["devices"], "where it went bad"
            for _ in range(50):
                client.infer("echo", [tensor])

"""`models`: states by replica, and what is asked of the controller."""

import json
from dataclasses import replace

import pytest
from cli_runs import Cli
from control_server import ControlServer
from fleet_samples import replica, snapshot
from tritonclient.grpc import service_pb2

from tritonfleet.cli.model_states import fleet_models, shown
from tritonfleet.core.model import ModelStatus, ReplicaState
from tritonfleet.core.wire import FleetSnapshot, RpcAnswer, RpcRequest
from tritonfleet.triton.model_control import load_request, unload_request

DIGITS = ModelStatus("digits", True, ("1",))


def fleet(*second: ModelStatus) -> FleetSnapshot:
    return snapshot(
        replicas=(
            replica("main-0", models=(DIGITS, ModelStatus("echo", True, ("2", "10")))),
            replica("main-1", models=(DIGITS, *second)),
            replica("main-2", ReplicaState.LOADING, models=(ModelStatus("echo", False),)),
        )
    )


def test_where_all_have_the_same_there_is_no_reason() -> None:
    table = shown(fleet_models(fleet(ModelStatus("echo", True, ("2", "10")))), 80, wide=False).plain
    assert table.splitlines()[1:] == ["digits  main    2/2  1", "echo    main    2/2  2,10"]


@pytest.mark.parametrize(
    ("second", "line"),
    [
        (ModelStatus("echo", False, (), "unloaded"), "echo   main    1/2  2,10      main-1: unloaded"),
        (ModelStatus("echo", False), "echo   main    1/2  2,10      main-1: not loaded"),
        (ModelStatus("echo", True, ("2",)), "echo   main    2/2  2,10      main-1 has version 2 only"),
    ],
)
def test_what_differs_is_told_by_replica(second: ModelStatus, line: str) -> None:
    assert shown(fleet_models(fleet(second), "echo"), 90, wide=False).plain.splitlines()[1] == line


def test_wide_has_a_line_for_each_replica() -> None:
    table = shown(fleet_models(fleet(ModelStatus("echo", False, (), "no such file"))), 90, wide=True).plain
    assert "echo    main-1   ○ not ready  -         no such file" in table.splitlines()


def test_nowhere() -> None:
    (echo,) = fleet_models(
        snapshot(replicas=(replica(models=(ModelStatus("echo", False, (), "unloaded"),)),))
    )
    assert "on no replica: unloaded" in shown([echo], None, wide=False).plain
    assert "no replica serves" in shown(fleet_models(snapshot(replicas=())), 80, wide=False).plain


def test_ls_as_data_and_by_name(cli: Cli, control: ControlServer) -> None:
    control.snapshots = [fleet(ModelStatus("echo", False, (), "unloaded"))]
    found = json.loads(cli("--fleet", "demo", "models", "ls", "-o", "json").out)
    assert [(model["model"], model["ready"], model["versions"]) for model in found] == [
        ("digits", 2, ["1"]),
        ("echo", 1, ["2", "10"]),
    ]
    assert found[1]["replicas"]["main-1"] == {
        "name": "echo",
        "ready": False,
        "versions": [],
        "reason": "unloaded",
    }
    assert cli("--fleet", "demo", "models", "ls", "-o", "name").out.split() == ["digits", "echo"]
    assert cli("--fleet", "demo", "-o", "name", "models").out.split() == ["digits", "echo"]
    assert "digits" not in cli("--fleet", "demo", "models", "ls", "echo").out
    missed = cli("--fleet", "demo", "models", "ls", "ecko")
    assert missed.code == 2
    assert "did you mean 'echo'?" in missed.err


def asked(control: ControlServer) -> list[dict[str, object]]:
    return [body for _, path, body in control.requests if path == "/router/rpc"]


def test_load_and_unload_ask_as_a_client_would(cli: Cli, control: ControlServer) -> None:
    control.snapshots = [fleet(ModelStatus("echo", True, ("2", "10")))]
    control.rpc = RpcAnswer(0)
    outcome = cli("--fleet", "demo", "models", "load", "echo")
    assert outcome.code == 0
    assert "echo loaded on 2 replicas" in outcome.err
    assert cli("--fleet", "demo", "models", "unload", "echo", "--dependents").code == 0
    assert [body["path"] for body in asked(control)] == [
        "/inference.GRPCInferenceService/RepositoryModelLoad",
        "/inference.GRPCInferenceService/RepositoryModelUnload",
    ]


def test_the_requests_are_triton_s() -> None:
    def told(request: RpcRequest, kind: type) -> object:
        return kind.FromString(request.message)

    assert told(load_request("a"), service_pb2.RepositoryModelLoadRequest).model_name == "a"
    unload = told(unload_request("a", dependents=True), service_pb2.RepositoryModelUnloadRequest)
    assert unload.parameters["unload_dependents"].bool_param


def test_a_partial_failure_is_shown_and_is_exit_code_1(cli: Cli, control: ControlServer) -> None:
    control.snapshots = [fleet(ModelStatus("echo", False, (), "no space"))]
    control.rpc = RpcAnswer(13, "tritonfleet: done on 1 of 2 replicas (main-0), not on the others: main-1: …")
    outcome = cli("--fleet", "demo", "models", "load", "echo")
    assert outcome.code == 1
    assert "1/2" in outcome.out
    assert "main-1: no space" in outcome.out
    assert "model 'echo' is not loaded: tritonfleet: done on 1 of 2 replicas (main-0)" in outcome.err


def test_an_unknown_model_is_not_unloaded(cli: Cli, control: ControlServer) -> None:
    control.snapshots = [replace(fleet(), fleet="demo")]
    outcome = cli("--fleet", "demo", "models", "unload", "digit")
    assert outcome.code == 2
    assert "did you mean 'digits'?" in outcome.err
    assert asked(control) == []

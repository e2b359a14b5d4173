"""Launch specification → container, and labels and states → instance, without a daemon."""

from dataclasses import replace

import pytest

from tritonfleet.core.launched import HIDDEN
from tritonfleet.core.model import Device, DeviceKind
from tritonfleet.core.replica_tls import ReplicaTls, ServerTls
from tritonfleet.drivers import docker_container as container
from tritonfleet.drivers.base import ContainerSettings, DriverError, LaunchSpec
from tritonfleet.drivers.devices import cpu_slots
from tritonfleet.triton.launch import Ports

SPEC = LaunchSpec(
    "demo", "main", "main-0", 3, "abc", cpu_slots(1), "/models", ("echo",), ("--log-verbose=1",),
    {"A": "b"}, 30, ContainerSettings("triton:1"),
)  # fmt: skip
AT = container.Publication(Ports(20001, 20000, 20002))


def body(spec: LaunchSpec = SPEC) -> dict[str, object]:
    return container.creation(spec, AT, {}, log_max_bytes=1, log_keep=2)


def test_labels_tell_all_there_is_of_an_instance() -> None:
    told = container.labels(SPEC, AT, state_dir="/state/demo", now=12.5)
    found = container.instance_of("0123456789abcdef", told)
    assert (found.instance, found.fleet, found.pool, found.config_hash) == ("main-0.3", "demo", "main", "abc")
    assert (found.grpc_port, found.http_port, found.metrics_port) == (20001, 20000, 20002)
    assert (found.host, found.devices, found.exit_timeout_s) == ("127.0.0.1", ("cpu0",), 30)
    assert (found.handle, found.started_at, found.exit) == ("container 0123456789ab", 12.5, None)
    assert container.identity_of(found) == "0123456789ab"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tritonfleet.schema": "2"}, "schema 2, known is 1"),
        ({"tritonfleet.grpc-port": "x"}, "invalid literal"),
    ],
)
def test_labels_that_make_no_sense_are_refused(changed: dict[str, str], words: str) -> None:
    told = container.labels(SPEC, AT, state_dir="/s", now=0.0) | changed
    with pytest.raises(DriverError, match=words) as refused:
        container.instance_of("0123456789abcdef", told)
    assert not refused.value.transient


def test_a_launch_is_told_from_the_inspection_without_what_the_image_sets() -> None:
    asked = body(replace(SPEC, devices=(Device("GPU-1", DeviceKind.GPU),), env={"HF_TOKEN": "x"}))
    env = ["PATH=/usr/bin", "NVIDIA_VISIBLE_DEVICES=all", *asked["Env"]]  # type: ignore[misc] # its values are objects, and this one is a list
    inspected = {"Config": {**asked, "Env": env}, "HostConfig": asked["HostConfig"]}
    found = container.launched_of(inspected, "triton:1", env[:2])
    assert (found.image, found.command[0], found.command[-1]) == (
        "triton:1",
        "tritonserver",
        "--log-verbose=1",
    )
    assert found.env["HF_TOKEN"] == HIDDEN
    assert found.env["TRITONFLEET_INSTANCE"] == "main-0.3"
    assert not {"PATH", "NVIDIA_VISIBLE_DEVICES"} & set(found.env)
    assert dict(found.container) == {
        "GPUs": "GPU-1", "Mount": "/models as /models, read only", "Shared memory": "1024 MiB",
    }  # fmt: skip


def test_docker_itself_waits_longer_than_triton() -> None:
    assert body()["StopTimeout"] == 35


def test_limits_are_recommended_with_a_gpu_and_as_written_otherwise() -> None:
    gpu = replace(SPEC, devices=(Device("GPU-1", DeviceKind.GPU),))
    assert container.ulimits(SPEC) == []
    assert {limit["Name"] for limit in container.ulimits(gpu)} == {"memlock", "stack"}
    written = replace(gpu, container=ContainerSettings("triton:1", ulimits=(("nofile", 9),)))
    assert container.ulimits(written) == [{"Name": "nofile", "Soft": 9, "Hard": 9}]


def test_what_the_file_says_wins_over_our_environment() -> None:
    env = container.environment(replace(SPEC, env={"PYTHONDONTWRITEBYTECODE": ""}))
    assert env["PYTHONDONTWRITEBYTECODE"] == ""


def test_a_remote_daemon_publishes_where_we_can_reach_it() -> None:
    at = container.published_where("gpubox", "192.0.2.7", Ports(1, 2, 3))
    assert (at.host, at.bind) == ("gpubox", "192.0.2.7")
    assert container.published_where("", "", Ports(1, 2, 3)) == container.Publication(Ports(1, 2, 3))


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ({"ExitCode": 0}, "exited with code 0"),
        ({"ExitCode": 1, "Error": "oops"}, "exited with code 1: oops"),
        ({"ExitCode": 137}, "killed by SIGKILL"),
        ({"ExitCode": 137, "OOMKilled": True}, "killed by SIGKILL: out of memory: the kernel ended it"),
        ({"ExitCode": 143}, "killed by SIGTERM"),
        ({"ExitCode": 127}, "exited with code 127: the image holds no tritonserver that can be run; is "
         "triton.image a Triton image?"),
    ],
)  # fmt: skip
def test_how_a_container_ended(state: dict[str, object], status: str) -> None:
    whole = {"Status": "exited", "FinishedAt": "2026-01-31T10:00:00.123456789Z", **state}
    found = container.exit_of(whole, 7.0)
    assert str(found) == status
    assert found.at == pytest.approx(1769853600.123456, abs=1e-3)


def test_a_container_that_was_never_started_has_ended() -> None:
    assert container.has_ended("created")
    assert not container.has_ended("running")
    assert not container.has_ended("paused")
    status = container.exit_of({"Status": "created"}, 7.0)
    assert (status.at, status.detail) == (7.0, "the controller ended before it was launched")


def test_the_files_of_tls_are_mounted_and_told_of() -> None:
    client = ReplicaTls("/pki/ca.pem", "triton", "/pki/router.pem", "/pki/router.key")
    spec = replace(SPEC, tls=ServerTls("/pki/a.pem", "/pki/a.key", "/pki/ca.pem", client))
    asked = body(spec)
    mounted = {one["Source"]: one["Target"] for one in asked["HostConfig"]["Mounts"]}  # type: ignore[index] # its values are objects, and this one a dict
    assert mounted == {
        "/models": "/models",
        "/pki/a.pem": "/tritonfleet-tls/cert.pem",
        "/pki/a.key": "/tritonfleet-tls/key.pem",
        "/pki/ca.pem": "/tritonfleet-tls/ca.pem",
    }
    assert all(one["ReadOnly"] for one in asked["HostConfig"]["Mounts"])  # type: ignore[index] # its values are objects, and this one a dict
    assert "--grpc-root-cert=/tritonfleet-tls/ca.pem" in container.command(spec)
    told = container.labels(spec, AT, state_dir="/state/demo", now=12.5)
    assert container.instance_of("0123456789abcdef", told).tls == client
    assert container.instance_of("0", container.labels(SPEC, AT, state_dir="/s", now=1.0)).tls is None

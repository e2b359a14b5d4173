"""The command line and environment of one replica, as a whole."""

import pytest

from tritonfleet.core.model import Device, DeviceKind
from tritonfleet.core.replica_tls import ReplicaTls, ServerTls
from tritonfleet.triton.embedded import TritonInstallation
from tritonfleet.triton.launch import Ports, arguments, environment

ON_PATH = TritonInstallation("/opt/tritonserver/bin/tritonserver", "path")
EMBEDDED = TritonInstallation(
    "/wheel/tritonserver",
    "embedded",
    "/cache/backends",
    {"PATH": "/venv/bin:/usr/bin", "LD_LIBRARY_PATH": "/wheel/libs"},
    "0.7.0",
)
CPU = (Device("cpu0", DeviceKind.CPU),)
GPUS = (Device("GPU-a", DeviceKind.GPU), Device("MIG-b", DeviceKind.MIG))


def command(
    installation: TritonInstallation = ON_PATH,
    *,
    devices: tuple[Device, ...] = CPU,
    models: tuple[str, ...] = ("*",),
    exit_timeout_s: float = 30,
    extra: tuple[str, ...] = (),
    tls: ServerTls | None = None,
) -> list[str]:
    return arguments(
        installation,
        model_repository="/models",
        models=models,
        ports=Ports(grpc=20_001, http=20_002, metrics=20_003),
        shm_prefix="tf-demo-1-",
        exit_timeout_s=exit_timeout_s,
        devices=devices,
        extra=extra,
        tls=tls,
    )


def test_the_whole_command_of_a_cpu_slot_on_the_embedded_server() -> None:
    assert command(EMBEDDED, models=("echo", "digits"), extra=("--log-verbose=1",)) == [
        "/wheel/tritonserver",
        "--model-repository=/models",
        "--model-control-mode=explicit",
        "--load-model=echo",
        "--load-model=digits",
        "--grpc-address=127.0.0.1",
        "--http-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
        "--grpc-port=20001",
        "--http-port=20002",
        "--metrics-port=20003",
        "--exit-timeout-secs=30",
        "--backend-config=python,shm-region-prefix-name=tf-demo-1-",
        "--backend-directory=/cache/backends",
        "--allow-gpu-metrics=false",
        "--log-verbose=1",
    ]


def test_a_server_on_path_keeps_its_own_backends_and_a_gpu_its_metrics() -> None:
    found = command(devices=GPUS)
    assert not [part for part in found if part.startswith(("--backend-directory", "--allow-gpu-metrics"))]
    assert "--load-model=*" in found


@pytest.mark.parametrize(("asked", "given"), [(0, 1), (0.2, 1), (1.5, 2), (30, 30)])
def test_the_exit_timeout_is_whole_seconds_and_never_none(asked: float, given: int) -> None:
    assert f"--exit-timeout-secs={given}" in command(exit_timeout_s=asked)


def env(devices: tuple[Device, ...], **extra: str) -> dict[str, str]:
    inherited = {"HOME": "/home/x", "PATH": "/usr/bin", "CUDA_VISIBLE_DEVICES": "7"}
    return environment(
        EMBEDDED, inherited, devices=devices, markers={"TRITONFLEET_INSTANCE": "main-0.1"}, extra=extra
    )


def test_the_whole_environment_of_a_cpu_slot() -> None:
    assert env(CPU, OMP_NUM_THREADS="1") == {
        "HOME": "/home/x",
        "PATH": "/venv/bin:/usr/bin",
        "LD_LIBRARY_PATH": "/wheel/libs",
        "CUDA_VISIBLE_DEVICES": "",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "TRITONFLEET_INSTANCE": "main-0.1",
    }


def test_a_replica_sees_its_devices_and_no_others() -> None:
    assert env(GPUS)["CUDA_VISIBLE_DEVICES"] == "GPU-a,MIG-b"


def test_the_fleet_file_wins_but_not_over_the_markers() -> None:
    found = env(GPUS, CUDA_DEVICE_ORDER="FASTEST_FIRST", TRITONFLEET_INSTANCE="forged")
    assert found["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"
    assert found["TRITONFLEET_INSTANCE"] == "main-0.1"


def test_tls_leaves_no_way_around_it() -> None:
    one_way = command(
        tls=ServerTls("a.pem", "a.key", "ca.pem", ReplicaTls("ca.pem", "localhost")), extra=("--x",)
    )
    assert one_way[-5:] == [
        "--grpc-use-ssl=true", "--grpc-server-cert=a.pem", "--grpc-server-key=a.key", "--allow-http=false",
        "--x",
    ]  # fmt: skip
    client = ReplicaTls("ca.pem", "localhost", "b.pem", "b.key")
    mutual = command(tls=ServerTls("a.pem", "a.key", "ca.pem", client))
    assert "--grpc-use-ssl-mutual=true" in mutual
    assert "--grpc-root-cert=ca.pem" in mutual
    assert not any("b.pem" in argument or "b.key" in argument for argument in mutual)

"""One replica's launch specification → tritonserver's arguments and environment. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from tritonfleet.core.model import Device, DeviceKind
from tritonfleet.core.replica_tls import ServerTls
from tritonfleet.triton.embedded import TritonInstallation

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    grpc: int
    http: int
    metrics: int


def arguments(
    installation: TritonInstallation,
    *,
    model_repository: str,
    models: Iterable[str],
    ports: Ports,
    shm_prefix: str,
    exit_timeout_s: float,
    devices: Sequence[Device],
    extra: Iterable[str] = (),
    address: str = LOOPBACK,
    tls: ServerTls | None = None,
) -> list[str]:
    """The whole command line. ``extra`` comes last, so it wins over everything but what it may not name.

    Models are loaded by name in explicit mode, so that a file that appears in the repository changes nothing
    by itself. Every replica has its own shared-memory prefix: two Python backends with the same one on
    one host hang or crash.
    """
    command = [
        installation.binary,
        f"--model-repository={model_repository}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in models),
        f"--grpc-address={address}",
        f"--http-address={address}",
        f"--metrics-address={address}",
        f"--grpc-port={ports.grpc}",
        f"--http-port={ports.http}",
        f"--metrics-port={ports.metrics}",
        f"--exit-timeout-secs={max(1, ceil(exit_timeout_s))}",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
    ]
    if installation.backends is not None:
        command.append(f"--backend-directory={installation.backends}")
    if all(device.kind is DeviceKind.CPU for device in devices):
        command.append("--allow-gpu-metrics=false")
    return [*command, *_tls(tls), *extra]


def _tls(tls: ServerTls | None) -> list[str]:
    if tls is None:
        return []
    use = (
        ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={tls.ca}"]
        if tls.mutual
        else ["--grpc-use-ssl=true"]
    )
    # Triton has no TLS for HTTP: left open, it would be the way around. `extra` may allow it again.
    return [*use, f"--grpc-server-cert={tls.cert}", f"--grpc-server-key={tls.key}", "--allow-http=false"]


def environment(
    installation: TritonInstallation,
    inherited: Mapping[str, str],
    *,
    devices: Sequence[Device],
    markers: Mapping[str, str],
    extra: Mapping[str, str],
) -> dict[str, str]:
    """The server's environment: what is inherited, what the installation needs, the device it is pinned to,
    the fleet's markers, and last what the fleet file asks for."""
    gpus = [device.id for device in devices if device.kind is not DeviceKind.CPU]
    return {
        **inherited,
        **installation.env,
        "CUDA_VISIBLE_DEVICES": ",".join(gpus),  # "" hides every GPU from a replica of a CPU slot
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # index 0 means what nvidia-smi calls 0
        "PYTHONDONTWRITEBYTECODE": "1",  # Python models leave nothing in the repository
        **extra,
        **markers,
    }

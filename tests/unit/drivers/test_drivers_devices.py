"""Devices as NVML shows them, by a module that answers like it."""

import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from tritonfleet.config.spec_types import CpuSlots
from tritonfleet.core.model import Device, DeviceKind
from tritonfleet.drivers.base import DriverError
from tritonfleet.drivers.devices import cpu_slots, discover
from tritonfleet.drivers.docker_engine import other_host

GIB = 1 << 30


class NVMLError(Exception):
    pass


class FakeNvml:
    """GPU 0 has two MIG slices in places 0 and 2, GPU 1 is whole, GPU 2 knows no MIG and no memory."""

    NVMLError = NVMLError

    def __init__(self, count: int = 3) -> None:
        self.count = count
        self.running = False
        self.lost = False

    def nvmlInit(self) -> None:  # noqa: N802 # NVML's names
        self.running = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.running = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        if self.lost:
            raise NVMLError("GPU is lost")
        return f"gpu{index}"

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        return {"gpu0": "H100", "gpu1": "H100", "gpu2": "Thor"}[handle]

    def nvmlDeviceGetMigMode(self, handle: str) -> tuple[int, int]:  # noqa: N802
        if handle == "gpu2":
            raise NVMLError("Not Supported")
        return (1, 1) if handle == "gpu0" else (0, 0)

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:  # noqa: N802
        return 3

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, index: int) -> str:  # noqa: N802
        if index == 1:
            raise NVMLError("Not Found")
        return f"slice{index}"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:  # noqa: N802
        if handle == "gpu2":
            raise NVMLError("Not Supported")
        return SimpleNamespace(total=10 * GIB if handle.startswith("slice") else 80 * GIB)

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return f"MIG-{handle}" if handle.startswith("slice") else f"GPU-{handle}"


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)  # type: ignore[arg-type] # it answers like the module
    return fake


ALL = (
    Device("MIG-slice0", DeviceKind.MIG, "H100", 10 * GIB),
    Device("MIG-slice2", DeviceKind.MIG, "H100", 10 * GIB),
    Device("GPU-gpu1", DeviceKind.GPU, "H100", 80 * GIB),
    Device("GPU-gpu2", DeviceKind.GPU, "Thor", 0),
)


def test_auto_is_every_gpu_and_slice(nvml: FakeNvml) -> None:
    assert discover("auto") == ALL
    assert not nvml.running


@pytest.mark.parametrize(
    ("name", "found"),
    [("1", ALL[2]), ("GPU-gpu1", ALL[2]), ("MIG-slice2", ALL[1]), ("0:2", ALL[1]), ("2", ALL[3])],
)
def test_a_device_is_named_by_nvidia_smi_s_index_or_its_uuid(
    nvml: FakeNvml, name: str, found: Device
) -> None:
    assert discover((name,)) == (found,)


def test_listed_devices_keep_their_order(nvml: FakeNvml) -> None:
    assert discover(("2", "1")) == (ALL[3], ALL[2])


@pytest.mark.parametrize("name", ["0", "3", "GPU-nope", "0:1"])
def test_what_is_not_there_is_refused_with_what_is(nvml: FakeNvml, name: str) -> None:
    with pytest.raises(DriverError) as refused:
        discover((name,))
    assert str(refused.value) == f"there is no device {name}"
    assert refused.value.remedy == (
        "there are: 0:0 (MIG-slice0), 0:2 (MIG-slice2), 1 (GPU-gpu1), 2 (GPU-gpu2)"
    )
    assert not refused.value.transient


def _no_driver(nvml: FakeNvml) -> None:
    def fail() -> None:
        raise NVMLError("Driver Not Loaded")

    nvml.nvmlInit = fail  # type: ignore[method-assign] # the one call that differs


def _no_gpu(nvml: FakeNvml) -> None:
    nvml.count = 0


@pytest.mark.parametrize("without", [_no_driver, _no_gpu])
def test_without_a_gpu_auto_is_cpu_slots(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, without: Callable[[FakeNvml], None]
) -> None:
    without(nvml)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert discover("auto") == cpu_slots(4)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert [device.id for device in discover("auto")] == ["cpu0", "cpu1", "cpu2", "cpu3", "cpu4", "cpu5"]
    with pytest.raises(DriverError, match="lists devices 0, 1, but this host shows no NVIDIA GPU") as refused:
        discover(("0", "1"))
    assert "devices: {cpu: 4}" in refused.value.remedy


def test_a_gpu_that_does_not_answer_is_an_error_of_the_driver(nvml: FakeNvml) -> None:
    nvml.lost = True
    with pytest.raises(DriverError, match="NVML cannot list the GPUs: GPU is lost"):
        discover("auto")
    assert not nvml.running


def test_cpu_slots_ask_nothing_of_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it would fail
    assert discover(CpuSlots(cpu=2)) == (
        Device("cpu0", DeviceKind.CPU, "CPU slot"),
        Device("cpu1", DeviceKind.CPU, "CPU slot"),
    )


def test_the_gpus_of_this_host_are_not_those_of_another(nvml: FakeNvml) -> None:
    assert discover(("1", "GPU-far"), trusting=True, elsewhere="box") == (
        Device("1", DeviceKind.GPU), Device("GPU-far", DeviceKind.GPU),
    )  # fmt: skip
    assert discover(CpuSlots(cpu=1), elsewhere="box") == cpu_slots(1)
    with pytest.raises(DriverError, match="the devices of box cannot be seen from this host") as refused:
        discover("auto", trusting=True, elsewhere="box")
    assert "nvidia-smi -L" in refused.value.remedy


@pytest.mark.parametrize(
    ("host", "environ", "other"),
    [
        ("ssh://me@box", {}, "box"),
        ("tcp://box:2376", {}, "box"),
        ("", {"DOCKER_HOST": "ssh://box"}, "box"),
        ("unix:///x.sock", {"DOCKER_HOST": "ssh://box"}, ""),
        ("tcp://localhost:2376", {}, ""),
        ("tcp://[::1]:2376", {}, ""),
        ("", {}, ""),
    ],
)
def test_which_host_a_daemon_is_on(host: str, environ: dict[str, str], other: str) -> None:
    assert other_host(host, environ) == other

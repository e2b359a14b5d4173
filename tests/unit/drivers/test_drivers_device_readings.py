"""What NVML says of devices at work, by a module that answers like it."""

from types import SimpleNamespace
from typing import Any

from tritonfleet.core.model import Device, DeviceKind
from tritonfleet.drivers.device_readings import NvmlReader
from tritonfleet.drivers.devices import cpu_slots

GIB = 1 << 30
NOW = 1000.0
GPU, SLICE = Device("GPU-a", DeviceKind.GPU), Device("MIG-b", DeviceKind.MIG)


class NVMLError(Exception):
    pass


class FakeNvml:
    """A whole GPU ``GPU-a``, and a slice ``MIG-b`` of ``GPU-whole``, as NVML answers for each kind."""

    NVMLError = NVMLError

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.asked: list[str] = []
        self.no_driver = False
        self.lost = ""

    def nvmlInit(self) -> None:  # noqa: N802 # NVML's names
        if self.no_driver:
            raise NVMLError("Driver Not Loaded")
        self.begun += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.ended += 1

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:  # noqa: N802
        self.asked.append(name)
        if self.lost in (name, "all"):
            raise NVMLError("GPU is lost")
        return name

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: str) -> str:  # noqa: N802
        assert handle == "MIG-b"
        return "GPU-whole"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        return SimpleNamespace(total=80 * GIB, used=30 * GIB)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:  # noqa: N802
        if handle == "MIG-b":
            raise NVMLError("Not Supported")
        return SimpleNamespace(gpu=37, memory=12)

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        return {"GPU-a": 41, "GPU-whole": 55}[handle]

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        return 250_500

    def nvmlDeviceGetTotalEccErrors(self, handle: str, kind: int, counter: int) -> int:  # noqa: N802
        assert (kind, counter) == (1, 0)  # uncorrected, volatile
        return {"GPU-a": 0, "GPU-whole": 2}[handle]


def test_a_gpu_and_a_slice_say_what_they_know() -> None:
    nvml = FakeNvml()
    found = NvmlReader(nvml).read([GPU, SLICE], NOW)
    gpu, part = found["GPU-a"], found["MIG-b"]
    assert (gpu.at, gpu.memory_bytes, gpu.memory_used_bytes, gpu.free_bytes) == (
        NOW, 80 * GIB, 30 * GIB, 50 * GIB,
    )  # fmt: skip
    assert (gpu.utilization, gpu.temperature_c, gpu.power_w, gpu.ecc_errors) == (0.37, 41.0, 250.5, 0)
    assert (part.utilization, part.temperature_c, part.ecc_errors) == (None, 55.0, 2)
    assert part.free_bytes == 50 * GIB


def test_nvml_is_opened_once_for_many_readings_and_each_device_is_asked_once() -> None:
    nvml = FakeNvml()
    reader = NvmlReader(nvml)
    for _ in range(3):
        reader.read([GPU, SLICE], NOW)
    assert (nvml.begun, nvml.asked) == (1, ["GPU-a", "MIG-b"] * 3)
    reader.close()
    assert nvml.ended == 1


def test_a_lost_gpu_has_trouble_and_the_others_go_on() -> None:
    nvml = FakeNvml()
    nvml.lost = "GPU-a"
    found = NvmlReader(nvml).read([GPU, SLICE], NOW)
    assert (found["GPU-a"].trouble, found["GPU-a"].free_bytes) == ("GPU is lost", None)
    assert found["MIG-b"].trouble == ""
    assert nvml.ended == 0


def test_when_nothing_answers_nvml_is_opened_anew() -> None:
    nvml = FakeNvml()
    nvml.lost = "all"
    reader = NvmlReader(nvml)
    reader.read([GPU, SLICE], NOW)
    nvml.lost = ""
    assert reader.read([GPU], NOW)["GPU-a"].trouble == ""
    assert (nvml.begun, nvml.ended) == (2, 1)


def test_without_a_driver_there_are_no_readings_until_there_is_one() -> None:
    nvml = FakeNvml()
    nvml.no_driver = True
    reader = NvmlReader(nvml)
    assert reader.read([GPU], NOW) == {}
    nvml.no_driver = False
    assert list(reader.read([GPU], NOW)) == ["GPU-a"]


def test_cpu_slots_and_indices_of_another_host_are_not_asked_for() -> None:
    nvml = FakeNvml()
    assert NvmlReader(nvml).read([*cpu_slots(2), Device("0", DeviceKind.GPU)], NOW) == {}
    assert nvml.begun == 0

"""What NVML says of the host's GPUs, for `doctor` and `init`: driver, devices, their state. Blocks."""

from dataclasses import dataclass, field
from time import time

from tritonfleet.core.model import Device, DeviceReading
from tritonfleet.drivers.base import DriverError
from tritonfleet.drivers.device_readings import NvmlReader
from tritonfleet.drivers.devices import gpus


@dataclass(frozen=True, slots=True)
class NvmlFacts:
    """``driver`` "": NVML does not answer, ``trouble`` says why."""

    driver: str = ""
    trouble: str = ""
    devices: tuple[Device, ...] = ()
    readings: dict[str, DeviceReading] = field(default_factory=dict)


def ask() -> NvmlFacts:
    import pynvml  # from nvidia-ml-py; imported here because hosts without a GPU never need it

    try:
        pynvml.nvmlInit()
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return NvmlFacts(trouble=str(error))
    try:
        devices = tuple(gpus().values())
    except DriverError as error:
        return NvmlFacts(driver, str(error))
    reader = NvmlReader(pynvml)
    try:
        return NvmlFacts(driver, "", devices, reader.read(devices, time()))
    finally:
        reader.close()

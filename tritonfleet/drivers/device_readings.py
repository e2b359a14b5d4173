"""What NVML says of devices while they work: memory, utilization, temperature, power, ECC errors. Blocks.

One reader for all replicas of a host asks each device once; Triton's own GPU metrics would ask every device
once for each replica that sees it.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from tritonfleet.core.model import Device, DeviceKind, DeviceReading


class NvmlReader:
    """Keeps NVML open between readings, since opening takes longer than reading. ``nvml`` is the pynvml
    module or what stands for it; None imports it."""

    def __init__(self, nvml: Any = None) -> None:
        self._nvml = nvml
        self._open = False

    def read(self, devices: Iterable[Device], now: float) -> dict[str, DeviceReading]:
        """By device id, those that NVML can know: GPUs and slices by UUID. Empty where there is no driver."""
        wanted = [device.id for device in devices if is_read(device)]
        if not wanted or not self._opened():
            return {}
        readings = {name: self._reading(name, now) for name in wanted}
        if all(reading.trouble for reading in readings.values()):
            self.close()  # the driver may have been updated beneath us: begin anew next time
        return readings

    def _opened(self) -> bool:
        if not self._open:
            if self._nvml is None:
                import pynvml  # from nvidia-ml-py; imported here because hosts without a GPU never need it

                self._nvml = pynvml
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlInit()
                self._open = True
        return self._open

    def _reading(self, name: str, now: float) -> DeviceReading:
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(name)
            whole = handle
            if name.startswith("MIG-"):  # it has memory of its own; the rest is known of its GPU
                whole = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        except nvml.NVMLError as error:
            return DeviceReading(now, trouble=str(error))
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        rates = self._ask("nvmlDeviceGetUtilizationRates", handle)
        temperature = self._ask("nvmlDeviceGetTemperature", whole, getattr(nvml, "NVML_TEMPERATURE_GPU", 0))
        power = self._ask("nvmlDeviceGetPowerUsage", whole)
        uncorrected = getattr(nvml, "NVML_MEMORY_ERROR_TYPE_UNCORRECTED", 1)
        volatile = getattr(nvml, "NVML_VOLATILE_ECC", 0)
        errors = self._ask("nvmlDeviceGetTotalEccErrors", whole, uncorrected, volatile)
        return DeviceReading(
            now,
            memory_bytes=None if memory is None else int(memory.total),
            memory_used_bytes=None if memory is None else int(memory.used),
            utilization=None if rates is None else rates.gpu / 100,
            temperature_c=None if temperature is None else float(temperature),
            power_w=None if power is None else power / 1000,
            ecc_errors=None if errors is None else int(errors),
        )

    def _ask(self, function: str, *arguments: Any) -> Any:
        """None for what this kind of device does not have."""
        try:
            return getattr(self._nvml, function)(*arguments)
        except self._nvml.NVMLError:
            return None

    def close(self) -> None:
        if self._open:
            self._open = False
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()


def is_read(device: Device) -> bool:
    """Whether NVML can tell of it. An index is only known of where this host shows no GPU: then the replicas
    run elsewhere, and what is called so here would be another one."""
    return device.kind is not DeviceKind.CPU and device.id.startswith(("GPU-", "MIG-"))

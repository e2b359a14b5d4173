"""What replicas can be pinned to: GPUs and MIG slices by NVML, or CPU slots."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from tritonfleet.config.spec_types import CpuSlots
from tritonfleet.core.model import Device, DeviceKind
from tritonfleet.drivers.base import DriverError

FEWEST_CPU_SLOTS = 4


def discover(
    wanted: Literal["auto"] | CpuSlots | tuple[str, ...], *, trusting: bool = False, elsewhere: str = ""
) -> tuple[Device, ...]:
    """The devices a fleet file means. ``auto``: every GPU (a GPU cut into MIG slices counts as its slices),
    or without one as many CPU slots as cores, at least 4. Raises DriverError for what is not there.

    ``trusting``: where this host shows no GPU at all, those that are listed are taken as they are. The
    replicas may run elsewhere, or we ourselves in a container that was given none. ``elsewhere``: the other
    host that replicas run on; then GPUs of this host are not looked at, for theirs they are not."""
    if isinstance(wanted, CpuSlots):
        return cpu_slots(wanted.cpu)
    if wanted == "auto" and elsewhere:
        raise DriverError(
            f"the devices of {elsewhere} cannot be seen from this host",
            remedy="list them: `devices: [GPU-UUID, …]`, as `nvidia-smi -L` there shows them, or {cpu: N}",
            transient=False,
        )
    present = {} if elsewhere else gpus()
    if wanted == "auto":
        return tuple(present.values()) or cpu_slots(max(FEWEST_CPU_SLOTS, os.cpu_count() or 1))
    if not present and trusting:
        return tuple(_unseen(name) for name in wanted)
    if not present:
        raise DriverError(
            f"the fleet file lists devices {', '.join(wanted)}, but this host shows no NVIDIA GPU",
            remedy="check nvidia-smi; without a GPU write `devices: {cpu: 4}`",
            transient=False,
        )
    return tuple(_find(name, present) for name in wanted)


def cpu_slots(count: int) -> tuple[Device, ...]:
    return tuple(Device(f"cpu{index}", DeviceKind.CPU, "CPU slot") for index in range(count))


def _unseen(name: str) -> Device:
    """As it is written: a UUID, or an index, which the container engine understands as well."""
    return Device(name, DeviceKind.MIG if name.startswith("MIG-") else DeviceKind.GPU)


def _find(name: str, present: Mapping[str, Device]) -> Device:
    for index, device in present.items():
        if name in (device.id, index):
            return device
    there = ", ".join(f"{index} ({device.id})" for index, device in present.items())
    raise DriverError(f"there is no device {name}", remedy=f"there are: {there}", transient=False)


def gpus() -> dict[str, Device]:
    """Every GPU and MIG slice that NVML shows, by index as nvidia-smi writes it: ``0``, and ``0:1`` for the
    slice in place 1 of GPU 0. None where there is no driver. Raises DriverError when a GPU does not
    answer."""
    with _nvml() as nvml:
        if nvml is None:
            return {}
        try:
            return dict(
                pair
                for index in range(nvml.nvmlDeviceGetCount())
                for pair in _devices_of(nvml, index, nvml.nvmlDeviceGetHandleByIndex(index))
            )
        except nvml.NVMLError as error:  # a GPU fell off the bus, a driver was updated under its library
            raise DriverError(f"NVML cannot list the GPUs: {error}", remedy="check nvidia-smi") from error


@contextmanager
def _nvml() -> Iterator[Any]:
    import pynvml  # from nvidia-ml-py; imported here because hosts without a GPU never need it

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _devices_of(nvml: Any, gpu: int, handle: Any) -> Iterator[tuple[str, Device]]:
    name, slices = nvml.nvmlDeviceGetName(handle), []
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:  # this model of GPU has no MIG
        current = 0
    if current:
        for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            try:
                part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            except nvml.NVMLError:  # this place holds no slice
                continue
            slices.append((f"{gpu}:{index}", part, DeviceKind.MIG))
    for number, found, kind in slices or [(str(gpu), handle, DeviceKind.GPU)]:
        yield number, Device(nvml.nvmlDeviceGetUUID(found), kind, str(name), _memory(nvml, found))


def _memory(nvml: Any, handle: Any) -> int:
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError:  # a GPU that shares the host's memory has none to report
        return 0

"""A model for Triton's Python backend that proves that its server has the devices it was given, no others.

`gpu_probe` copies this file into a repository of its own; Triton loads it as a replica's models are loaded.
It asks CUDA itself, by ctypes: nothing else need be installed where it runs.
"""

import ctypes
import os
import uuid

WANTED = "TRITONFLEET_PROBE_DEVICES"  # UUIDs or indices, with commas; empty: none, CUDA is not asked
SIZE = 1 << 20  # bytes that make the way to the device's memory and back


class ProbeError(Exception):
    """What is not as it should be."""


def unexpected(wanted: str, seen: list[str]) -> str:
    """ "" if CUDA shows what was given, else both. Of a device given by index only the number is known."""
    given = wanted.split(",")
    plain = [name.partition("-")[2] if "-" in name else "" for name in given]
    same = len(given) == len(seen) and all(
        name in ("", there) for name, there in zip(plain, seen, strict=True)
    )
    return "" if same else f"given {wanted}; CUDA shows {', '.join(seen) or 'none'}"


def _called(cuda: ctypes.CDLL, function: str, *arguments: object) -> None:
    code = getattr(cuda, function)(*arguments)
    if code:
        raise ProbeError(f"{function} failed with CUDA error {code}")


def seen_by_cuda(cuda: ctypes.CDLL) -> list[str]:
    """The UUIDs, without GPU- or MIG-, of the devices this process can use."""
    count, found = ctypes.c_int(), []
    _called(cuda, "cuInit", 0)
    _called(cuda, "cuDeviceGetCount", ctypes.byref(count))
    for index in range(count.value):
        device, identity = ctypes.c_int(), ctypes.create_string_buffer(16)
        _called(cuda, "cuDeviceGet", ctypes.byref(device), index)
        _called(cuda, "cuDeviceGetUuid_v2", identity, device)
        found.append(str(uuid.UUID(bytes=identity.raw)))
    return found


def copied_there_and_back(cuda: ctypes.CDLL) -> None:
    """Raises ProbeError if the first device's memory does not give back what was put there."""
    context, pointer = ctypes.c_void_p(), ctypes.c_uint64()
    data = os.urandom(SIZE)
    back = ctypes.create_string_buffer(SIZE)
    _called(cuda, "cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    _called(cuda, "cuCtxSetCurrent", context)
    _called(cuda, "cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(SIZE))
    _called(cuda, "cuMemcpyHtoD_v2", pointer, data, ctypes.c_size_t(SIZE))
    _called(cuda, "cuMemcpyDtoH_v2", back, pointer, ctypes.c_size_t(SIZE))
    _called(cuda, "cuMemFree_v2", pointer)
    if back.raw != data:
        raise ProbeError("the device's memory does not give back what was put there")


class TritonPythonModel:
    """Loads if all is well; else the server's log, and with it `doctor`, says what is not."""

    def initialize(self, _arguments: dict[str, str]) -> None:
        wanted = os.environ.get(WANTED, "")
        if not wanted:
            return
        cuda = ctypes.CDLL("libcuda.so.1")
        if wrong := unexpected(wanted, seen_by_cuda(cuda)):
            raise ProbeError(wrong)
        copied_there_and_back(cuda)

    def execute(self, requests: list[object]) -> list[object]:
        raise NotImplementedError(f"a probe answers none of {len(requests)} requests")

"""tritonfleet: a fleet controller for NVIDIA Triton Inference Server."""

from importlib.metadata import version

__version__ = version("tritonfleet")

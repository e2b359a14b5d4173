"""tritonfleet: a fleet controller for NVIDIA Triton Inference Server."""


def __getattr__(name: str) -> str:
    """``__version__``, looked up when asked for: reading package metadata takes a while."""
    if name == "__version__":
        from importlib.metadata import version

        return version("tritonfleet")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

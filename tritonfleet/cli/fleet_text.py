"""What was found on a host → a commented fleet file. Pure; what comes out is a valid file for that host."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonfleet.core.model import Device


@dataclass(frozen=True, slots=True)
class Found:
    """``repository`` as it is to be written, ``models`` in it. ``image`` "": none, so replicas are processes.
    ``server``: the tritonserver of this host in words, "" if there is none."""

    name: str
    repository: str
    models: tuple[str, ...]
    gpus: tuple[Device, ...] = ()
    cores: int = 4
    image: str = ""
    server: str = ""
    port: int = 8001
    metrics_port: int = 9400


def fleet_name_for(folder: str) -> str:
    """The folder's name as a fleet may be called: lowercase letters, digits and dashes, at most 31."""
    plain = re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-")
    plain = re.sub(r"^[^a-z]+", "", plain)[:31].strip("-")
    return plain or "demo"


def fleet_text(found: Found) -> str:
    return "\n".join([*_head(found), *_devices(found), *_router(found), *_pool(found), *_metrics(found), ""])


def _head(found: Found) -> list[str]:
    where = (
        "# As containers of this image. `process` would run the tritonserver of this host instead."
        if found.image
        else f"# As processes of this host: {found.server or 'no tritonserver yet, see tritonfleet doctor'}."
    )
    return [
        "# A fleet of Triton servers. Every key is explained in docs/configuration.md.",
        "# `tritonfleet doctor` checks this file and this host, `tritonfleet up -d --wait` starts the fleet.",
        "version: 1",
        f"name: {found.name}",
        "",
        where,
        f"driver: {'docker' if found.image else 'process'}",
        "",
    ]


def _devices(found: Found) -> list[str]:
    if not found.gpus:
        return [
            "# No GPU was found, so replicas go to CPU slots. `auto` is all GPUs.",
            f"devices: {{cpu: {_slots(found)}}}",
            "",
        ]
    seen = [f"#   {index}: {_described(device)}" for index, device in enumerate(found.gpus)]
    return [
        "# All GPUs of this host; a list such as [0, 1] or [GPU-UUID] takes some of them. Found were:",
        *seen,
        "devices: auto",
        "",
    ]


def _slots(found: Found) -> int:
    """As many as cores, within reason: they are only a number of replicas."""
    return max(4, min(found.cores, 8))


def _described(device: Device) -> str:
    memory = f", {device.memory_bytes / 2**30:.0f} GiB" if device.memory_bytes else ""
    return f"{device.name or device.kind.value}{memory}, {device.id}"


def _router(found: Found) -> list[str]:
    return [
        "router:",
        f"  listen: 127.0.0.1:{found.port}          # for clients of this host; 0.0.0.0 for others, too",
        "  # policy: least_work            # or round_robin, least_requests",
        "  # queue: {max_requests: 1024, max_wait: 30s}",
        "",
    ]


def _pool(found: Found) -> list[str]:
    count = len(found.gpus) or _slots(found)
    names = ", ".join(found.models)
    lines = [
        "pools:",
        "  main:",
        f"    model_repository: {_scalar(found.repository)}",
        f'    # models: ["*"]               # all of it: {_comment(names)}',
        f"    replicas: {{min: 1, initial: {min(2, count)}, max: {count}}}",
        "    # With this, the load sets the size between min and max (docs/autoscaling.md):",
        "    # autoscale:",
        "    #   target_utilization: 0.65",
    ]
    if found.image:
        lines += ["    triton:", f"      image: {_scalar(found.image)}", "      shm_size: 1g"]
    return [*lines, ""]


def _metrics(found: Found) -> list[str]:
    return [
        "# Where Prometheus scrapes (docs/metrics.md):",
        f"# metrics: {{listen: 127.0.0.1:{found.metrics_port}}}",
    ]


def _scalar(text: str) -> str:
    """As YAML reads it back, whatever is in it; $ is doubled, for the file's variables begin with it."""
    plain = text.replace("$", "$$")
    return (
        plain
        if re.fullmatch(r"[A-Za-z0-9./_][A-Za-z0-9./_:@-]*", plain) and not plain.endswith(":")
        else json.dumps(plain)
    )


def _comment(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 2] + " …"


def is_repository(folder: Path) -> tuple[str, ...]:
    """The models of a folder that looks like a model repository, () if it does not: a model has a
    configuration or a numbered version."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] not in "._")
        return tuple(entry.name for entry in entries if _is_model(entry))
    except OSError:
        return ()


def _is_model(folder: Path) -> bool:
    if (folder / "config.pbtxt").is_file():
        return True
    return any(entry.is_dir() and entry.name.isdigit() for entry in folder.iterdir())


def best_image(tags: Sequence[str]) -> str:
    """Of the images a daemon has, a Triton server's: the highest tag, and no SDK (it holds clients only)."""
    servers = [
        tag
        for tag in tags
        if re.search(r"tritonserver|triton-server|tritonfleet-triton", tag) and "sdk" not in tag
    ]
    return max(
        servers,
        key=lambda tag: [int(part) for part in re.findall(r"\d+", tag.rpartition(":")[2])],
        default="",
    )

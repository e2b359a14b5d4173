"""What a Docker daemon says of itself, for `doctor`: version, runtimes, which images it has, whether a
fleet's containers have their GPUs. Blocks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from tritonfleet.core.device_access import DeviceLook
from tritonfleet.drivers.base import DriverError
from tritonfleet.drivers.docker_container import LABEL
from tritonfleet.drivers.docker_engine import DockerEngine
from tritonfleet.drivers.docker_image import LOOK_S, is_present

SMI_S = 20.0  # how long nvidia-smi may take; where the driver is loaded it takes a second


@dataclass(frozen=True, slots=True)
class DockerFacts:
    """``error`` "": it answers. ``images``: name → whether it is there. ``looks``: container → what
    nvidia-smi in it says, of those that run on GPUs; None where it could not be asked."""

    host: str
    error: str = ""
    remedy: str = ""
    version: str = ""
    runtimes: tuple[str, ...] = ()
    images: dict[str, bool] = field(default_factory=dict)
    cgroup_driver: str = ""
    looks: dict[str, DeviceLook | None] = field(default_factory=dict)


def ask(images: Iterable[str], host: str, environ: Mapping[str, str], fleet: str = "") -> DockerFacts:
    """``fleet``: whose containers are looked into; "": nobody's."""
    engine = DockerEngine(host, environ, timeout_s=LOOK_S)
    try:
        version, info, there = engine.now("it does not answer", lambda client: _told(client, tuple(images)))
        looks = _looks(engine, fleet) if fleet else {}
    except DriverError as error:
        return DockerFacts(engine.host, str(error), error.remedy)
    finally:
        engine.close()
    runtimes, cgroups = tuple(sorted(info.get("Runtimes") or {})), str(info.get("CgroupDriver", ""))
    return DockerFacts(engine.host, "", "", version, runtimes, there, cgroups, looks)


def _looks(engine: DockerEngine, fleet: str) -> dict[str, DeviceLook | None]:
    wanted = {"label": f"{LABEL}fleet={fleet}", "status": "running"}
    rows = engine.now("cannot list containers", lambda client: client.containers(filters=wanted))
    looks = {row["Names"][0].lstrip("/"): _look(engine, row["Id"]) for row in rows}
    return {name: look[0] for name, look in sorted(looks.items()) if look}


def _look(engine: DockerEngine, container: str) -> tuple[DeviceLook | None] | None:
    """None for one without GPUs."""
    try:
        found = engine.now("cannot look", lambda client: client.inspect_container(container))
        if not found["HostConfig"]["DeviceRequests"]:
            return None
        return (engine.now("cannot look", lambda client: listed_gpus(client, container)),)
    except DriverError:
        return (None,)


def listed_gpus(client: Any, container: str) -> DeviceLook:
    """What ``nvidia-smi -L`` says there: a new process, which opens the devices anew, where a server keeps
    open what it had. Blocks."""
    code, said = run_inside(client, container, "nvidia-smi", "-L")
    return DeviceLook(code, said)


def run_inside(client: Any, container: str, *command: str) -> tuple[int | None, str]:
    """Exit code and output of a command. Blocks, at most `SMI_S`; raises TimeoutError."""
    run = client.exec_create(container, list(command), tty=True)["Id"]  # else what it says comes in frames
    stream = client.exec_start(run, tty=True, socket=True)
    connection = getattr(stream, "_sock", stream)
    response = stream._response  # noqa: SLF001 - the SDK offers no public way to its response
    try:
        # Not from the socket, as the SDK itself does: what came with the headers is in the buffer they were
        # read through, and on a busy host that is all of it.
        said = _read(response.raw._fp.fp, connection)  # noqa: SLF001 - the SDK reads past this buffer
    finally:  # all three, or a socket is left to the garbage collector
        response.close()
        stream.close()
        connection.close()
    return client.exec_inspect(run)["ExitCode"], said.decode(errors="replace")


def _read(output: Any, connection: Any) -> bytes:
    """All that it says. Raises TimeoutError: where a GPU hangs nvidia-smi does, too, and the SDK would wait
    for it for ever."""
    deadline, said = monotonic() + SMI_S, b""
    while (left := deadline - monotonic()) > 0:
        connection.settimeout(left)
        chunk = output.read1(1 << 16)
        if not chunk:
            return said
        said += chunk
    raise TimeoutError


def _told(client: Any, images: tuple[str, ...]) -> tuple[str, dict[str, Any], dict[str, bool]]:
    there = {image: is_present(client, image) for image in images}
    return str(client.version()["Version"]), client.info(), there


def images(host: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The tags of all images that the daemon has; none where it does not answer."""
    engine = DockerEngine(host, environ, timeout_s=LOOK_S)
    try:
        found = engine.now("it does not answer", lambda client: client.images())
    except DriverError:
        return ()
    finally:
        engine.close()
    return tuple(tag for image in found for tag in image.get("RepoTags") or ())

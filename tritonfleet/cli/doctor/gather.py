"""What this host, the fleet file, the Docker daemon and the running fleet say. Changes nothing."""

import asyncio
import ctypes
import os
import platform
import resource
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from tritonfleet.cli import fleet
from tritonfleet.cli.client import UnreachableError
from tritonfleet.cli.doctor.facts import (
    AddressFacts,
    FileFacts,
    FleetFacts,
    GpuFacts,
    HostFacts,
    PoolFacts,
    ServerFacts,
)
from tritonfleet.cli.exits import CliError
from tritonfleet.cli.terminal import Settings
from tritonfleet.cli.up import left_behind
from tritonfleet.config.certificates import read_certificates
from tritonfleet.controller.paths import FleetPaths, state_home
from tritonfleet.core.model import Device
from tritonfleet.core.placement import lacking
from tritonfleet.drivers import choose, docker_facts, gpu_facts
from tritonfleet.drivers.base import DriverError
from tritonfleet.drivers.devices import discover
from tritonfleet.drivers.docker_engine import other_host
from tritonfleet.triton.client import SERVICE, TritonClient
from tritonfleet.triton.embedded import TritonNotFoundError, find_tritonserver
from tritonfleet.triton.repository import inspect

if TYPE_CHECKING:
    from tritonfleet.config import Address, FleetSpec, PoolSpec
    from tritonfleet.config.router_spec import TlsSpec

SHM = Path("/dev/shm")  # noqa: S108 # where POSIX shared memory is on Linux
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized
BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
RUN_S, ANSWER_S = 20.0, 3.0


def host(environ: Mapping[str, str]) -> HostFacts:
    folder = state_home(environ)
    error, free = _writable(folder)
    shm = os.statvfs(SHM) if SHM.is_dir() else None
    total, left = (shm.f_blocks * shm.f_frsize, shm.f_bavail * shm.f_frsize) if shm else (None, None)
    glibc = platform.libc_ver()[1]
    return HostFacts(
        sys.version_info[:3], platform.machine(), glibc, _synchronized(), total, left,
        resource.getrlimit(resource.RLIMIT_NOFILE), str(folder), error, free,
    )  # fmt: skip


def _synchronized() -> bool | None:
    """What the kernel thinks of its clock, whoever keeps it right."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # struct timex, asking only
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != TIME_ERROR


def _writable(folder: Path) -> tuple[str, int]:
    """Why nothing can be made there ("" if it can), and bytes free. The nearest that exists decides."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        return f"{there} is no folder", 0
    disk = os.statvfs(there)
    error = "" if os.access(there, os.W_OK | os.X_OK) else f"{there} is not writable for this user"
    return error, disk.f_bavail * disk.f_frsize


def server(environ: Mapping[str, str]) -> ServerFacts:
    """The tritonserver of this host; it is run once, for its usage, to see that its libraries are there."""
    try:
        found = find_tritonserver(environ)
    except TritonNotFoundError as error:
        return ServerFacts(error=str(error), remedy=error.remedy)
    except OSError as error:
        return ServerFacts(error=str(error), remedy="set XDG_CACHE_HOME to a folder that is writable")
    said = ""
    try:
        ran = subprocess.run(
            [found.binary, "--help"], env={**environ, **found.env}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=RUN_S, check=False,
        )  # fmt: skip
        if "--model-repository" not in ran.stdout + ran.stderr:
            lines = (ran.stderr or ran.stdout).strip().splitlines()
            said = lines[-1] if lines else f"exit code {ran.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    return ServerFacts(
        found.binary, found.kind, found.version, _backends(found.binary, found.backends), said=said
    )


def _backends(binary: str, named: str | None) -> frozenset[str] | None:
    folder = Path(named) if named else Path(binary).resolve().parent.parent / "backends"
    return frozenset(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else None


def gpus() -> GpuFacts:
    nodes = Path("/dev/nvidia0").exists() or Path("/dev/nvidiactl").exists()
    found = gpu_facts.ask()
    missing = unlinked(Path("/dev").glob("nvidia*"))
    return GpuFacts(found.driver, found.trouble, nodes, found.devices, found.readings, missing)


def unlinked(nodes: Iterable[Path], links: Path = Path("/dev/char")) -> tuple[str, ...]:
    """The device nodes that have no link by their numbers, by which systemd finds them."""
    missing = []
    for node in sorted(nodes):
        if node.is_char_device():
            number = node.stat().st_rdev
            if not (links / f"{os.major(number)}:{os.minor(number)}").exists():
                missing.append(str(node))
    return tuple(missing)


def file(settings: Settings, environ: Mapping[str, str], backends: frozenset[str] | None) -> FileFacts:
    path = Path(settings.file or fleet.DEFAULT_FILE)
    if not path.exists():
        return FileFacts(str(path), there=False)
    try:
        spec = fleet.load(settings)
    except CliError as error:
        return FileFacts(str(path), error=str(error))
    driver = choose(spec, FleetPaths.of(spec.name, environ).root, environ)
    containers = driver == "docker"
    devices: tuple[Device, ...] = ()
    trouble = remedy = missing = ""
    try:
        elsewhere = other_host(spec.docker_host, environ) if containers else ""
        devices = discover(spec.devices, trusting=containers, elsewhere=elsewhere)
        pools = spec.pools.items()
        missing = lacking(
            {name: pool.replicas.first_size for name, pool in pools},
            {name: pool.replicas.per_device for name, pool in pools},
            devices,
            {name: pool.replicas.devices_per_replica for name, pool in pools},
        )
    except DriverError as error:
        trouble, remedy = str(error), error.remedy
    listens: dict[str, Address | None] = {
        "router.listen": spec.router.listen,
        "metrics.listen": spec.metrics.listen,
    }
    return FileFacts(
        str(path),
        fleet=spec.name,
        driver="docker" if containers else "process",
        devices=devices,
        device_error=trouble,
        device_remedy=remedy,
        lacking=missing,
        pools=tuple(_pool(name, pool, None if containers else backends) for name, pool in spec.pools.items()),
        addresses=tuple(_address(key, address) for key, address in listens.items() if address is not None),
        certificates=read_certificates(spec),
        at=time(),
    )


def _pool(name: str, pool: "PoolSpec", backends: frozenset[str] | None) -> PoolFacts:
    folder, image = pool.model_repository, pool.triton.image
    try:
        return PoolFacts(name, folder, inspect(Path(folder), pool.models, backends), "", image)
    except OSError as error:
        return PoolFacts(name, folder, None, error.strerror or str(error), image)


def _address(key: str, address: "Address") -> AddressFacts:
    """Whether it can be listened on now."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address.host, address.port))
    except OSError as error:
        return AddressFacts(key, str(address), error.strerror or str(error))
    return AddressFacts(key, str(address))


def _host(address: "Address") -> str:
    """Where to connect to what listens there."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 # every interface, so this one, too


def _shown(address: "Address", tls: "TlsSpec") -> str:
    """What a client gets by TLS, of whom no certificate is wanted: "" if that is the one of the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # who has signed it is clients' matter
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((_host(address), address.port), ANSWER_S) as plain,
            context.wrap_socket(plain) as secured,
        ):
            shown = secured.getpeercert(binary_form=True)
        text = Path(tls.cert).read_text(errors="replace")
        same = shown == ssl.PEM_cert_to_DER_cert(text[text.index(BEGIN) : text.index(END) + len(END)])
    except (OSError, ValueError) as error:
        return str(error)
    return "" if same else f"it shows another certificate than {tls.cert}, an older one perhaps"


def images(found: FileFacts) -> tuple[str, ...]:
    return tuple(sorted({pool.image for pool in found.pools if pool.image}))


def docker(spec_host: str, found: FileFacts, environ: Mapping[str, str]) -> docker_facts.DockerFacts | None:
    """None where no container is meant: neither by the driver nor by an image."""
    wanted = images(found)
    if found.driver != "docker" and not wanted:
        return None
    return docker_facts.ask(wanted, spec_host, environ, found.fleet if found.driver == "docker" else "")


def running(settings: Settings, spec: "FleetSpec | None") -> FleetFacts:
    try:
        target = fleet.locate(settings)
    except CliError:
        return FleetFacts()
    try:
        with target.client() as client:
            snapshot = client.snapshot()
    except UnreachableError as error:
        return FleetFacts(target.name, None, str(error), left_behind(target))
    except CliError as error:
        return FleetFacts(target.name, None, str(error), left_behind=True)
    if spec is None:
        return FleetFacts(target.name, snapshot)
    tls = spec.router.tls
    if tls is not None and tls.client_ca is not None:
        why = "router.tls.client_ca wants a certificate, and doctor has none"
        return FleetFacts(target.name, snapshot, unasked=why)
    answer = _answer(spec.router.listen) if tls is None else _shown(spec.router.listen, tls)
    return FleetFacts(target.name, snapshot, answer=answer, by_tls=tls is not None)


def _answer(address: "Address") -> str:
    """What a client who asks for readiness gets: "" if that is well."""
    host = _host(address)

    async def ask() -> str:
        client = TritonClient(f"[{host}]" if ":" in host else host, address.port)
        try:
            answer = await client.call(f"{SERVICE}/ServerReady", b"", ANSWER_S, {})
        finally:
            await client.close()
        if answer.status:
            return answer.text
        return "" if answer.message else "the fleet says that it is not ready"  # proto3: true is two bytes

    return asyncio.run(ask())

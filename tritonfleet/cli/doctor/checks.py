"""Facts → verdicts, each with what was found and, where it is not as it should be, what to type. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tritonfleet.cli.doctor.facts import (
    Facts,
    FileFacts,
    FleetFacts,
    GpuFacts,
    HostFacts,
    PoolFacts,
    ServerFacts,
)
from tritonfleet.cli.waiting import is_amiss
from tritonfleet.core.certificates import Validity, described, validity
from tritonfleet.core.device_access import seen
from tritonfleet.core.model import DeviceKind
from tritonfleet.core.reconcile import BROKEN
from tritonfleet.core.wire import ControllerInfo, FleetSnapshot, PoolSnapshot
from tritonfleet.drivers.docker_facts import DockerFacts

OLDEST_PYTHON = (3, 11)
EMBEDDED_PYTHONS = ((3, 11), (3, 12))  # for which the wheel's Triton has a Python backend, with numpy 1
SHM_EACH = 64 << 20  # bytes a Python model instance may take of /dev/shm before its tensors
FEW_FILES = 4096
LITTLE_DISK = 512 << 20
SHM = "/dev/shm"  # noqa: S108 # where POSIX shared memory is on Linux
NO_CONTAINER = "no container of this fleet runs on a GPU"
TOOLKIT = (
    "install nvidia-container-toolkit, `sudo nvidia-ctk runtime configure --runtime=docker`, "
    "`sudo systemctl restart docker`"
)


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    verdict: Verdict
    found: str
    fix: str = ""


def ok(name: str, found: str) -> Check:
    return Check(name, Verdict.OK, found)


def skipped(name: str, why: str) -> Check:
    return Check(name, Verdict.SKIPPED, why)


def warning(name: str, found: str, fix: str) -> Check:
    return Check(name, Verdict.WARNING, found, fix)


def failed(name: str, found: str, fix: str) -> Check:
    return Check(name, Verdict.FAILED, found, fix)


def checks(facts: Facts) -> list[Check]:
    """In the order to mend them: host, file, servers, devices, and what runs."""
    file, containers = facts.file, facts.file.driver == "docker"
    return [
        *_host(facts.host, containers=containers),
        *_file(file),
        *_pools(file),
        _server(facts.server, facts.host, needed=file.there and not file.error and not containers),
        *_docker(facts.docker, file, facts.gpu, needed=containers),
        *_gpus(facts.gpu),
        _devices(file),
        *_probes(facts),
        *_addresses(facts),
        *_certificates(file),
        *_fleet(facts.fleet, facts.version),
    ]


def _host(host: HostFacts, *, containers: bool) -> Iterator[Check]:
    python = ".".join(map(str, host.python))
    if host.python[:2] < OLDEST_PYTHON:
        yield failed("python", python, "make the virtual environment with Python 3.11 or 3.12")
    else:
        yield ok("python", f"{python} on {host.machine}" + (f", glibc {host.glibc}" if host.glibc else ""))
    if host.clock_synchronized is None:
        yield skipped("clock", "the kernel does not say whether it is synchronized")
    elif host.clock_synchronized:
        yield ok("clock", "synchronized")
    else:
        fix = "sudo apt-get install chrony (Debian, Ubuntu), or sudo timedatectl set-ntp true"
        yield warning("clock", "nothing keeps it right: certificates and schedules go by it", fix)
    yield _shared_memory(host, containers=containers)
    soft, hard = host.open_files
    if soft < FEW_FILES:
        fix = f"ulimit -n {hard} before `tritonfleet up`; in a systemd unit LimitNOFILE={max(hard, 65536)}"
        yield warning("open files", f"at most {soft}: so many clients and replicas a router can hold", fix)
    else:
        yield ok("open files", f"at most {soft}")
    if host.state_error:
        fix = "make it writable, or set TRITONFLEET_STATE_DIR to a folder that is"
        yield failed("state folder", f"{host.state_dir}: {host.state_error}", fix)
    elif host.state_free < LITTLE_DISK:
        yield warning(
            "state folder", f"{size(host.state_free)} free at {host.state_dir}", "make room: logs grow there"
        )
    else:
        yield ok("state folder", f"{host.state_dir}, {size(host.state_free)} free")


def _shared_memory(host: HostFacts, *, containers: bool) -> Check:
    if containers:
        return skipped("shared memory", "each container has its own: triton.shm_size")
    if host.shm_free is None or host.shm_bytes is None:
        return failed(
            "shared memory", "there is no /dev/shm", "sudo mount -t tmpfs -o size=1g tmpfs /dev/shm"
        )
    found = f"{SHM} has {size(host.shm_free)} free of {size(host.shm_bytes)}"
    if host.shm_free < SHM_EACH:
        fix = "sudo mount -o remount,size=1g /dev/shm; in a container start it with --shm-size=1g"
        return failed("shared memory", found, fix)
    return ok("shared memory", found)


def _file(file: FileFacts) -> Iterator[Check]:
    if not file.there:
        yield warning(
            "fleet file",
            f"there is no {file.path}",
            "tritonfleet init, or name one: tritonfleet -f FILE doctor",
        )
    elif file.error:
        yield failed("fleet file", file.error, "correct it; `tritonfleet validate` checks it again")
    else:
        yield ok("fleet file", f"{file.path}: fleet {file.fleet}, driver {file.driver}")


def _pools(file: FileFacts) -> Iterator[Check]:
    for pool in file.pools:
        yield from _pool(pool)


def _pool(pool: PoolFacts) -> Iterator[Check]:
    name = f"models of {pool.name}"
    if pool.repository is None:
        yield failed(name, f"{pool.folder}: {pool.error}", f"chmod -R a+rX {pool.folder}")
        return
    for trouble in pool.repository.troubles:
        yield failed(name, f"{trouble.model}: {trouble.what}", trouble.fix)
    if not pool.repository.troubles:
        yield ok(name, f"{', '.join(pool.repository.models)} in {pool.folder}")


def _server(server: ServerFacts, host: HostFacts, *, needed: bool) -> Check:
    if server.error:
        if not needed:
            return skipped("tritonserver", f"{server.error}; not needed here")
        fix = server.remedy
        if host.python[:2] not in EMBEDDED_PYTHONS:
            fix += "; the wheel's needs Python 3.11 or 3.12"
        return failed("tritonserver", server.error, fix)
    if server.said:
        return failed(
            "tritonserver", f"{server.binary} does not run: {server.said}", _library_fix(server.said)
        )
    what = f"embedded, from nvidia-pytriton {server.version}" if server.kind == "embedded" else server.binary
    backends = (
        "" if server.backends is None else f"; backends: {', '.join(sorted(server.backends)) or 'none'}"
    )
    return ok("tritonserver", what + backends)


def _library_fix(said: str) -> str:
    if "error while loading shared libraries" in said:
        library = said.partition("libraries: ")[2].partition(":")[0]
        package = f"install the package that has {library} (apt-file search {library})"
        return f"{package}, or pip install 'tritonfleet[embedded]'"
    return "run it by hand; or unset TRITONFLEET_TRITONSERVER, and pip install 'tritonfleet[embedded]'"


def _docker(docker: DockerFacts | None, file: FileFacts, gpu: GpuFacts, *, needed: bool) -> Iterator[Check]:
    if docker is None:
        yield skipped(
            "docker", "no pool runs in a container" if file.there else "no fleet file that asks for it"
        )
        return
    if docker.error:
        yield (failed if needed else warning)("docker", docker.error, docker.remedy)
        return
    yield ok("docker", f"{docker.version} at {docker.host}")
    for image, there in sorted(docker.images.items()):
        if there:
            yield ok("image", image)
        else:
            yield warning("image", f"{image} is not there: the first start pulls it", f"docker pull {image}")
    if not any(device.kind is not DeviceKind.CPU for device in file.devices) and not gpu.devices:
        yield skipped("gpu runtime", "no GPU")
    elif "nvidia" in docker.runtimes:
        yield ok("gpu runtime", "the daemon has NVIDIA's")
    else:
        yield failed("gpu runtime", f"the daemon has only {', '.join(docker.runtimes)}", TOOLKIT)
    if needed:
        yield from _gpu_access(docker, gpu)


def _gpu_access(docker: DockerFacts, gpu: GpuFacts) -> Iterator[Check]:
    """Whether containers have their GPUs still, and whether they can lose them here."""
    found = {container: look and seen(look) for container, look in docker.looks.items()}
    for container, look in docker.looks.items():
        said = " ".join(look.said.split()) if look else "nvidia-smi cannot be run there"
        if found[container] == "gone":
            fix = "tritonfleet restart its replica, if the controller has not within some minutes"
            yield failed("gpu access", f"{container} has lost its GPUs: {said}", fix)
        elif found[container] != "there":
            yield warning("gpu access", f"{container}: {said}", f"docker exec {container} nvidia-smi -L")
    if docker.cgroup_driver == "systemd" and gpu.unlinked:
        told = f"`systemctl daemon-reload` takes GPUs from containers: /dev/char has no {gpu.unlinked[0]}"
        yield warning("gpu access", told, "sudo nvidia-ctk system create-dev-char-symlinks --create-all")
    elif all(one == "there" for one in found.values()):
        there = ok("gpu access", f"{len(found)} container{'s' * (len(found) != 1)} of this fleet with theirs")
        yield there if found else skipped("gpu access", NO_CONTAINER)


def _gpus(gpu: GpuFacts) -> Iterator[Check]:
    if not gpu.driver:
        if gpu.nodes:
            fix = (
                "nvidia-smi says more; reinstall the driver (apt-get install nvidia-driver), restart the host"
            )
            yield failed("nvidia driver", f"/dev/nvidia0 is there, and NVML says: {gpu.trouble}", fix)
        else:
            yield skipped("nvidia driver", "no GPU")
        return
    if gpu.trouble:
        yield failed(
            "nvidia driver", f"{gpu.driver}: {gpu.trouble}", "nvidia-smi; restart the host if it hangs, too"
        )
        return
    yield ok("nvidia driver", gpu.driver)
    for device in gpu.devices:
        reading = gpu.readings.get(device.id)
        found = f"{device.id} {device.name}".strip()
        if reading is None:
            yield ok(device.kind.value, found)
        elif reading.trouble:
            yield failed(device.kind.value, f"{found}: {reading.trouble}", f"nvidia-smi -q -i {device.id}")
        elif reading.ecc_errors:
            fix = f"nvidia-smi -q -d ECC,ROW_REMAPPER -i {device.id}; drain it, reset it or have it replaced"
            yield warning(device.kind.value, f"{found}: {reading.ecc_errors} uncorrected memory errors", fix)
        else:
            free = "" if reading.free_bytes is None else f", {size(reading.free_bytes)} free"
            yield ok(device.kind.value, found + free)


def _devices(file: FileFacts) -> Check:
    if not file.there or file.error:
        return skipped("devices", "no fleet file that says which")
    if file.device_error:
        return failed("devices", file.device_error, file.device_remedy or "nvidia-smi -L shows what there is")
    names = ", ".join(device.id for device in file.devices)
    if file.lacking:
        return failed("devices", file.lacking, "fewer initial replicas, a larger per_device, or more devices")
    return ok("devices", names)


def _probes(facts: Facts) -> Iterator[Check]:
    if facts.probes is None:
        yield skipped("gpu probe", "doctor --gpu starts a server on each GPU")
    elif not facts.probes:
        yield skipped("gpu probe", "no GPU")
    for probe in facts.probes or ():
        if probe.error:
            yield failed("gpu probe", f"{probe.device}: {probe.error}", probe.remedy or "see docs/docker.md")
        else:
            yield ok("gpu probe", probe.proved)


def _addresses(facts: Facts) -> Iterator[Check]:
    for one in facts.file.addresses:
        if not one.error:
            yield ok(one.key, f"{one.address} is free")
        elif facts.fleet.snapshot is not None:
            yield ok(one.key, f"{one.address}: the fleet runs")
        elif "in use" in one.error and facts.fleet.left_behind:
            yield ok(one.key, f"{one.address} is in use, as it seems by this fleet's router")
        elif "in use" in one.error:
            port = one.address.rpartition(":")[2]
            fix = f"ss -ltnp 'sport = :{port}' shows who; end it, or change {one.key}"
            yield failed(one.key, f"{one.address} is taken by another program", fix)
        else:
            yield failed(one.key, f"{one.address}: {one.error}", f"an address of this host: change {one.key}")


def _certificates(file: FileFacts) -> Iterator[Check]:
    for one in file.certificates:
        found, state = described(one, file.at), validity(one, file.at)
        if state is Validity.GOOD:
            yield ok("certificate", found)
            continue
        used = "new connections use it"
        if one.use.endswith(".triton.tls.cert"):
            used += ", replicas from their next launch (tritonfleet restart REPLICA)"
        fix = f"put a new one there: {used}"
        yield (warning if state is Validity.ENDING else failed)("certificate", found, fix)


def _fleet(fleet: FleetFacts, version: str) -> Iterator[Check]:
    if not fleet.name:
        yield skipped("running fleet", "no fleet file that names it")
        return
    snapshot = fleet.snapshot
    if snapshot is None:
        if fleet.left_behind:
            fix = "tritonfleet up -d adopts what still runs; tritonfleet down removes it"
            yield failed("controller", f"it has gone without `down`: {fleet.error}", fix)
        else:
            yield skipped("running fleet", f"{fleet.name} is not running")
        return
    yield _controller(snapshot.controller, version)
    external = snapshot.router.external
    router_log = "its log, where it was started" if external else "tritonfleet logs router"
    for worker in snapshot.router.workers:
        if is_amiss(worker):
            yield failed("router", f"worker {worker.index}: {worker.reason or 'not running'}", router_log)
    for pool in snapshot.pools:
        yield _replicas(snapshot, pool)
    if fleet.answer:
        found = f"{snapshot.router.address}: {fleet.answer}"
        yield failed("clients", found, f"tritonfleet ps; {router_log}")
    elif fleet.by_tls:
        yield ok("clients", f"{snapshot.router.address} answers by TLS, with the certificate of the file")
    elif fleet.answer is not None:
        yield ok("clients", f"{snapshot.router.address} answers: the fleet is ready")
    elif fleet.unasked:
        yield skipped("clients", fleet.unasked)


def _controller(controller: ControllerInfo, version: str) -> Check:
    if controller.version == version:
        return ok("controller", f"pid {controller.pid}, version {version}")
    found = f"pid {controller.pid}, version {controller.version}; this program is {version}"
    ends = f"kill {controller.pid} ends only the controller"
    return warning("controller", found, f"{ends}; tritonfleet up -d starts one that adopts all")


def _replicas(snapshot: FleetSnapshot, pool: PoolSnapshot) -> Check:
    name, found = f"pool {pool.name}", f"{pool.ready} of {pool.desired} replicas ready"
    for replica in snapshot.replicas:
        if replica.pool == pool.name and replica.state in BROKEN:
            return failed(name, f"{found}; {replica.id}: {replica.reason}", f"tritonfleet logs {replica.id}")
    if pool.ready < pool.desired:
        unready = (one for one in snapshot.replicas if one.pool == pool.name and not one.state.serving)
        late = next((f"; {one.id}: {one.reason}" for one in unready), "")
        return warning(name, found + late, "wait, or see why: tritonfleet ps")
    return ok(name, found)


def size(number: int) -> str:
    """``12 MiB``, ``1.5 GiB``."""
    return f"{number / 2**30:.1f} GiB" if number >= 1 << 30 else f"{number >> 20} MiB"

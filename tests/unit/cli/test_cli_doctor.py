"""Verdicts on given facts, what the command shows, and a real server as the probe of a device."""

import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cli_runs import Cli, fleet_file
from control_server import ControlServer
from fleet_samples import replica, snapshot, worker

from tritonfleet.cli.doctor.checks import Check, Verdict, checks, failed, ok, skipped, warning
from tritonfleet.cli.doctor.command import probed, report
from tritonfleet.cli.doctor.facts import (
    AddressFacts,
    Facts,
    FileFacts,
    FleetFacts,
    GpuFacts,
    HostFacts,
    PoolFacts,
    ProbeFacts,
    ServerFacts,
)
from tritonfleet.cli.doctor.gather import unlinked
from tritonfleet.cli.terminal import Settings
from tritonfleet.core.certificates import Certificate
from tritonfleet.core.device_access import DeviceLook
from tritonfleet.core.model import Device, DeviceKind, DeviceReading, ReplicaState
from tritonfleet.core.wire import ControllerInfo, FleetSnapshot, RouterInfo
from tritonfleet.drivers.docker_facts import DockerFacts
from tritonfleet.drivers.probe_model import unexpected
from tritonfleet.triton.repository import ModelTrouble, Repository

GPU = Device("GPU-1", DeviceKind.GPU, "H100", 80 << 30)
HOST = HostFacts(state_dir="/state")
POOL = PoolFacts("main", "/models", Repository(("echo",)))
FILE = FileFacts(
    "tritonfleet.yaml", fleet="demo", devices=(GPU,), pools=(POOL,),
    addresses=(AddressFacts("router.listen", "127.0.0.1:8001"),),
)  # fmt: skip
WELL = Facts(
    "0.1.0", HOST, ServerFacts("/bin/tritonserver", "path"), GpuFacts("550.1", devices=(GPU,)), FILE,
    FleetFacts("demo", snapshot(controller=ControllerInfo(4000, 0.0, "0.1.0")), answer=""),
    DockerFacts("unix:///d.sock", version="27.1", runtimes=("nvidia", "runc"), images={"triton:1": True}),
    (ProbeFacts("GPU-1", "a server sees GPU-1 alone"),),
)  # fmt: skip


def test_where_all_is_well_nothing_is_to_be_mended() -> None:
    found = checks(WELL)
    assert {check.verdict for check in found} == {Verdict.OK}
    assert not any(check.fix for check in found)
    assert [check.name for check in found] == [
        "python", "clock", "shared memory", "open files", "state folder", "fleet file", "models of main",
        "tritonserver", "docker", "image", "gpu runtime", "nvidia driver", "gpu", "devices", "gpu probe",
        "router.listen", "controller", "pool main", "clients",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("use", "left_days", "verdict", "fix"),
    [
        ("router.tls.cert", 40, Verdict.OK, ""),
        ("router.tls.cert", 10, Verdict.WARNING, "put a new one there: new connections use it"),
        ("router.tls.cert", -1, Verdict.FAILED, "put a new one there: new connections use it"),
        (
            "pools.main.triton.tls.cert", 10, Verdict.WARNING,
            "put a new one there: new connections use it, replicas from their next launch "
            "(tritonfleet restart REPLICA)",
        ),
    ],
)  # fmt: skip
def test_a_certificate_that_ends_soon_is_to_be_replaced(
    use: str, left_days: float, verdict: Verdict, fix: str
) -> None:
    now = 1_800_000_000.0
    there = Certificate(use, "/etc/a.pem", now - 300 * 86400, now + left_days * 86400)
    (found,) = (check for check in checks(replace(WELL, file=replace(FILE, certificates=(there,), at=now)))
                if check.name == "certificate")  # fmt: skip
    assert (found.verdict, found.fix) == (verdict, fix)
    assert found.found.startswith(f"{use} ")


def test_a_device_node_has_a_link_by_its_numbers_or_not(tmp_path: Path) -> None:
    nodes = [Path("/dev/null"), tmp_path]
    assert unlinked(nodes, tmp_path) == ("/dev/null",)
    number = Path("/dev/null").stat().st_rdev
    (tmp_path / f"{os.major(number)}:{os.minor(number)}").symlink_to("/dev/null")
    assert unlinked(nodes, tmp_path) == ()


def host(**changes: object) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, host=replace(facts.host, **changes))  # type: ignore[arg-type]


def file(**changes: object) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, file=replace(facts.file, **changes))  # type: ignore[arg-type]


def gpu(*values: object) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, gpu=GpuFacts(*values))  # type: ignore[arg-type]


def server(**values: str) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, server=ServerFacts("/bin/tritonserver", "path", **values))  # type: ignore[arg-type]


def docker(*values: object) -> Callable[[Facts], Facts]:
    found = DockerFacts("unix:///d.sock", *values)  # type: ignore[arg-type]
    return lambda facts: replace(facts, docker=found, file=replace(facts.file, driver="docker"))


def running(
    shown: FleetSnapshot | None, *values: object, answer: str | None = "", **more: object
) -> Callable[[Facts], Facts]:
    fleet = FleetFacts("demo", shown, *values, answer=answer, **more)  # type: ignore[arg-type] # a test gives what fits
    return lambda facts: replace(facts, fleet=fleet)


CRASHING = replica("main-1", ReplicaState.CRASH_LOOP, reason="exited with code 1")
CONTROLLER = ControllerInfo(4000, 0.0, "0.1.0")
THERE = DeviceLook(0, "GPU 0: NVIDIA A10 (UUID: GPU-1)")
GONE = DeviceLook(255, "Failed to initialize NVML: Unknown Error")
BAD = "error while loading shared libraries: libre2.so.9: cannot open"


@pytest.mark.parametrize(
    ("change", "name", "verdict", "found", "fix"),
    [
        (host(python=(3, 10, 2)), "python", "failed", "3.10.2", "Python 3.11"),
        (host(clock_synchronized=False), "clock", "warning", "certificates", "chrony"),
        (host(clock_synchronized=None), "clock", "skipped", "does not say", ""),
        (host(shm_free=1 << 20), "shared memory", "failed", "has 1 MiB free of 1.0 GiB", "remount,size=1g"),
        (host(shm_free=None), "shared memory", "failed", "no /dev/shm", "mount -t tmpfs"),
        (host(open_files=(1024, 524288)), "open files", "warning", "at most 1024", "ulimit -n 524288"),
        (host(state_error="is not writable"), "state folder", "failed", "is not", "TRITONFLEET_STATE_DIR"),
        (host(state_free=1 << 20), "state folder", "warning", "1 MiB free", "make room"),
        (file(there=False), "fleet file", "warning", "there is no", "tritonfleet init"),
        (file(error="tritonfleet.yaml:3:1: bad"), "fleet file", "failed", "yaml:3:1", "tritonfleet validate"),
        (file(lacking="main 3 need 3 devices"), "devices", "failed", "need 3 devices", "per_device"),
        (file(device_error="there is no device 7"), "devices", "failed", "device 7", "nvidia-smi -L"),
        (
            file(pools=(replace(POOL, repository=Repository(("m",), (ModelTrouble("m", "bad", "mend"),))),)),
            "models of main", "failed", "m: bad", "mend",
        ),
        (
            file(pools=(replace(POOL, repository=None, error="Permission denied"),)),
            "models of main", "failed", "/models: Permission denied", "chmod -R a+rX /models",
        ),
        (
            server(error="there is no tritonserver", remedy="pip it"),
            "tritonserver", "failed", "there is no", "pip it",
        ),
        (server(said=BAD), "tritonserver", "failed", "libre2", "apt-file search libre2.so.9"),
        (docker("no Docker daemon", "start it"), "docker", "failed", "no Docker daemon", "start it"),
        (docker("", "", "27", ("runc",)), "gpu runtime", "failed", "only runc", "nvidia-container-toolkit"),
        (docker("", "", "27", ("nvidia",), {"t:1": False}), "image", "warning", "t:1", "docker pull t:1"),
        (docker("", "", "27", ("nvidia",), {}, "", {"demo-main-0.1": THERE}), "gpu access", "ok", "1 c", ""),
        (docker("", "", "27", ("nvidia",), {}, "systemd", {}), "gpu access", "skipped", "no container", ""),
        (
            docker("", "", "27", ("nvidia",), {}, "systemd", {"demo-main-0.1": GONE}),
            "gpu access", "failed", "demo-main-0.1 has lost its GPUs: Failed to initialize", "restart",
        ),
        (
            docker("", "", "27", ("nvidia",), {}, "systemd", {"demo-main-0.1": None}),
            "gpu access", "warning", "cannot be run there", "docker exec demo-main-0.1 nvidia-smi -L",
        ),
        (
            lambda facts: docker("", "", "27", ("nvidia",), {}, "systemd")(
                replace(facts, gpu=replace(facts.gpu, unlinked=("/dev/nvidia0",)))
            ),
            "gpu access", "warning", "/dev/char has no /dev/nvidia0", "create-dev-char-symlinks",
        ),
        (docker("", "", "27", ("nvidia",)), "shared memory", "skipped", "triton.shm_size", ""),
        (gpu("", "Driver Not Loaded", True), "nvidia driver", "failed", "Not Loaded", "nvidia-smi"),
        (gpu(), "nvidia driver", "skipped", "no GPU", ""),
        (
            gpu("550", "", True, (GPU,), {"GPU-1": DeviceReading(0, trouble="lost")}),
            "gpu", "failed", "lost", "-i GPU-1",
        ),
        (
            gpu("550", "", True, (GPU,), {"GPU-1": DeviceReading(0, ecc_errors=3)}),
            "gpu", "warning", "3 uncorrected", "ECC",
        ),
        (lambda facts: replace(facts, probes=()), "gpu probe", "skipped", "no GPU", ""),
        (lambda facts: replace(facts, probes=None), "gpu probe", "skipped", "doctor --gpu", ""),
        (
            lambda facts: replace(facts, probes=(ProbeFacts("GPU-1", error="CUDA shows none"),)),
            "gpu probe", "failed", "GPU-1: CUDA shows none", "docs/docker.md",
        ),
        (
            lambda facts: replace(
                facts,
                file=replace(FILE, addresses=(AddressFacts("router.listen", ":8001", "already in use"),)),
                fleet=FleetFacts("demo"),
            ),
            "router.listen", "failed", "another program", "sport = :8001",
        ),
        (
            lambda facts: replace(
                facts,
                file=replace(FILE, addresses=(AddressFacts("router.listen", ":8001", "already in use"),)),
                fleet=FleetFacts("demo", error="refused", left_behind=True),
            ),
            "router.listen", "ok", "this fleet's router", "",
        ),
        (
            file(addresses=(AddressFacts("metrics.listen", "10.9.9.9:1", "Cannot assign"),)),
            "metrics.listen", "ok", "the fleet runs", "",
        ),
        (running(None, "refused", True), "controller", "failed", "without `down`", "tritonfleet up -d"),
        (running(None), "running fleet", "skipped", "demo is not running", ""),
        (
            running(snapshot(controller=ControllerInfo(4000, 0.0, "0.0.9"))),
            "controller", "warning", "this program is 0.1.0", "kill 4000",
        ),
        (
            running(snapshot(controller=CONTROLLER, replicas=(replica(), CRASHING), pools=(
                replace(snapshot().pools[0], ready=1, failed=1),))),
            "pool main", "failed", "1 of 2 replicas ready; main-1: exited", "tritonfleet logs main-1",
        ),
        (
            running(snapshot(controller=CONTROLLER, pools=(replace(snapshot().pools[0], ready=1),))),
            "pool main", "warning", "1 of 2 replicas ready", "tritonfleet ps",
        ),
        (
            running(snapshot(controller=CONTROLLER, router=RouterInfo("127.0.0.1:8001", "least_work", (
                worker(running=False, reason="killed"),)))),
            "router", "failed", "worker 0: killed", "tritonfleet logs router",
        ),
        (
            running(snapshot(controller=CONTROLLER, router=RouterInfo("127.0.0.1:8001", "least_work", (
                worker(reason="exited", short_lives=3),)))),
            "router", "failed", "worker 0: exited", "tritonfleet logs router",
        ),
        (
            running(snapshot(controller=CONTROLLER, router=RouterInfo("127.0.0.1:8001", "least_work", (
                worker(reason="other settings", outdated=True),), external=True))),
            "router", "failed", "worker 0: other settings", "its log, where it was started",
        ),
        (
            running(snapshot(controller=CONTROLLER), answer="", by_tls=True),
            "clients", "ok", "answers by TLS, with the certificate of the file", "",
        ),
        (
            running(snapshot(controller=CONTROLLER), answer=None, unasked="a certificate is wanted"),
            "clients", "skipped", "a certificate is wanted", "",
        ),
        (running(snapshot(controller=CONTROLLER), answer="no"), "clients", "failed", "no", "logs router"),
    ],
)  # fmt: skip
def test_what_is_not_well_says_what_to_do(
    change: Callable[[Facts], Facts], name: str, verdict: str, found: str, fix: str
) -> None:
    (check,) = [one for one in checks(change(WELL)) if one.name == name]
    assert check.verdict == verdict
    assert found in check.found
    assert fix in check.fix
    assert bool(check.fix) is (verdict in ("warning", "failed"))


def test_a_file_that_does_not_say_needs_no_server() -> None:
    lacking = replace(WELL, server=ServerFacts(error="none"), file=FileFacts("x.yaml", there=False))
    (check,) = [one for one in checks(lacking) if one.name == "tritonserver"]
    assert check.verdict == "skipped"


def test_it_fits_the_terminal_and_keeps_an_excerpt_s_columns() -> None:
    wrong = "tritonfleet.yaml is not valid:\nf.yaml:1:3: x\n   1 | a b\n     |   ^"
    found = [ok("python", "3.11"), failed("fleet file", wrong, "correct it, " * 12), skipped("gpu", "no GPU")]
    shown = report(found, 80).plain
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert "     |   ^" in shown
    assert shown.endswith("1 ok, 1 failed, 1 skipped")
    assert "– gpu         skipped: no GPU" in shown
    well = report([ok("python", "3.11"), warning("clock", "late", "chrony")], None).plain
    assert well.endswith("1 ok, 1 warning. Nothing stands in the way")


def test_the_command_judges_this_host_and_its_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "config.pbtxt").write_text('backend: "python"')
    fleet_file(tmp_path, models=["broken"])
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 18999))
        taken.listen()
        outcome = cli("doctor", "-o", "json")
    found = {check["name"]: Check(**check) for check in json.loads(outcome.out)["checks"]}
    assert outcome.code == 1
    assert found["models of main"].found == "broken: version 1 has no model.py"
    assert found["router.listen"].verdict == "failed"
    assert found["python"].verdict == found["state folder"].verdict == found["devices"].verdict == "ok"
    assert "✗ router.listen" not in cli("doctor").out, "its port is free again"


def test_the_command_looks_at_the_running_fleet(cli: Cli, control: ControlServer, tmp_path: Path) -> None:
    fleet_file(tmp_path)
    outcome = cli("doctor", "-o", "name")
    assert "ok pool main" in outcome.out.splitlines()
    assert "failed clients" in outcome.out.splitlines(), (
        "nobody listens at the address of this control server"
    )


@pytest.mark.parametrize(
    ("wanted", "seen", "text"),
    [
        ("GPU-a", ["a"], ""),
        ("MIG-a,GPU-b", ["a", "b"], ""),
        ("0", ["a"], ""),
        ("GPU-a", ["b"], "given GPU-a; CUDA shows b"),
        ("GPU-a", ["a", "b"], "given GPU-a; CUDA shows a, b"),
        ("GPU-a", [], "given GPU-a; CUDA shows none"),
    ],
)
def test_what_cuda_shows_is_compared(wanted: str, seen: list[str], text: str) -> None:
    assert unexpected(wanted, seen) == text


@pytest.mark.triton
def test_a_probe_is_a_real_server_and_leaves_nothing(tmp_path: Path) -> None:
    before = set(Path("/dev/shm").glob("*doctor*"))
    found = probed(Settings(quiet=True), None, "process", Device("cpu0", DeviceKind.CPU))
    assert "a model loads; ready after" in found.proved
    assert found.error == ""
    assert set(Path("/dev/shm").glob("*doctor*")) == before


@pytest.mark.triton
def test_a_device_that_a_server_cannot_have_is_told_in_its_words() -> None:
    found = probed(Settings(quiet=True), None, "process", Device("GPU-none", DeviceKind.GPU))
    assert found.proved == ""
    assert "device_probe" in found.error
    assert "nvidia-smi -L" in found.remedy

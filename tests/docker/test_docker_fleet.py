"""A fleet of containers by the command line, through the real daemon."""

import os
import re
import signal
from collections.abc import Callable
from typing import Any

import docker_daemon
import pytest
import tritonclient.grpc as triton
from certificates import certificate
from docker_fleets import DockerFleet, echoes

from tritonfleet.drivers import docker_facts

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

Make = Callable[..., DockerFleet]


def test_a_day_with_a_fleet_of_containers(docker_fleet: Make) -> None:
    fleet = docker_fleet()
    ready = fleet.cli("up", "-d", "--wait")
    assert "main 2 of 2 ready" in ready.stderr
    assert fleet.snapshot()["driver"] == "docker"
    assert sorted(fleet.containers()) == ["main-0.1", "main-1.1"]
    assert echoes(fleet) == {"main-0", "main-1"}
    fleet.cli("scale", "3", "--wait")
    fleet.cli("drain", "main-1")
    fleet.until(lambda f: f.replicas()["main-1"]["handle"] == "", "main-1 is drained")
    assert sorted(fleet.containers()) == ["main-0.1", "main-2.1"]
    assert echoes(fleet) == {"main-0", "main-2"}
    fleet.cli("undrain", "main-1")
    fleet.ready(3)
    assert "Started GRPCInferenceService" in fleet.cli("logs", "main-2").stdout
    fleet.cli("down", "-y")
    assert fleet.containers() == {}
    left = sorted(path.name for path in (fleet.state / fleet.name).rglob("*") if path.is_file())
    assert left == [
        "controller.log", "events.jsonl", "main-0.log", "main-1.log", "main-2.log", "router-0.log",
    ]  # fmt: skip


def inside(inspected: dict[str, Any], *command: str) -> str:
    """What a program in the container says."""

    found: tuple[int, str] = docker_daemon.ask(
        lambda client: docker_facts.run_inside(client, inspected["Id"], *command)
    )
    return found[1].strip()


def test_what_a_container_is_given(docker_fleet: Make) -> None:
    limits = {"nofile": 4096}
    fleet = docker_fleet(triton={"user": "1000:1000", "ulimits": limits})
    fleet.cli("up", "-d", "--wait")
    found, other = (fleet.containers()[name] for name in ("main-0.1", "main-1.1"))
    host = found["HostConfig"]
    assert found["Name"] == f"/{fleet.name}-main-0.1"
    assert found["Config"]["User"] == "1000:1000"
    told = found["Config"]["Labels"]
    wanted = {"fleet": fleet.name, "pool": "main", "replica": "main-0", "generation": "1", "devices": "cpu0"}
    assert {key: told[f"tritonfleet.{key}"] for key in wanted} == wanted
    assert told["tritonfleet.schema"] == "1"
    assert told["tritonfleet.config-hash"] in fleet.cli("config", "--hash").stdout
    prefixes = [
        next(word for word in one["Config"]["Cmd"] if "shm-region-prefix-name" in word)
        for one in (found, other)
    ]
    assert [prefix.rpartition("=")[2] for prefix in prefixes] == ["tf-main-0.1-", "tf-main-1.1-"]
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 4096, "Hard": 4096}]
    assert "--exit-timeout-secs=5" in found["Config"]["Cmd"]
    assert inside(found, "id", "-u") == "1000"
    assert inside(found, "sh", "-c", "ulimit -n") == "4096"
    assert "Read-only file system" in inside(found, "touch", "/models/x")
    (mount,) = found["Mounts"]
    assert (mount["Destination"], mount["RW"]) == ("/models", False)
    assert {binding["HostIp"] for (binding,) in host["PortBindings"].values()} == {"127.0.0.1"}
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ShmSize"] == 64 << 20
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "4", "max-size": str(64 << 20)}}
    assert host["DeviceRequests"] in (None, [])
    assert found["Config"]["StopTimeout"] > 5  # Triton's own
    assert "NVIDIA_VISIBLE_DEVICES=void" in found["Config"]["Env"]


def test_containers_survive_the_controller_and_are_adopted(docker_fleet: Make) -> None:
    fleet = docker_fleet()
    fleet.cli("up", "-d", "--wait")
    before = fleet.handles()
    os.kill(fleet.snapshot()["controller"]["pid"], signal.SIGKILL)
    assert echoes(fleet) == {"main-0", "main-1"}  # the router serves on
    fleet.cli("up", "-d", "--wait")
    assert fleet.handles() == before
    assert len(fleet.containers()) == 2
    assert "2 replicas that run" in fleet.events("controller.adopted")[-1]["reason"]


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda client, name: client.kill(name), "killed by SIGKILL"),
        # What is seen first is by chance: that it was killed, which comes first, or that it is gone.
        (lambda client, name: client.remove_container(name, force=True), "SIGKILL|removed behind"),
    ],
    ids=["docker kill", "docker rm -f"],
)
def test_what_docker_ends_is_replaced(
    docker_fleet: Make, act: Callable[[Any, str], None], reason: str
) -> None:
    fleet = docker_fleet(restart={"backoff": "100ms"})
    fleet.cli("up", "-d", "--wait")
    docker_daemon.ask(lambda client: act(client, f"{fleet.name}-main-0.1"))
    fleet.until(
        lambda f: "main-0.2" in f.containers() and "main-0.1" not in f.containers(), "a new container"
    )
    fleet.ready(2)
    assert re.search(reason, fleet.events("replica.exited")[0]["reason"])
    assert echoes(fleet) == {"main-0", "main-1"}


def test_an_image_that_is_not_there_is_told_with_its_remedy(docker_fleet: Make) -> None:
    fleet = docker_fleet(
        replicas={"min": 1, "max": 1},
        triton={"image": "127.0.0.1:9/no-such-image:1"},
        restart={"backoff": "100ms", "max_backoff": "200ms", "crash_loop_after": 1},
    )
    failed = fleet.cli("up", "-d", "--wait", check=1)
    assert (
        "there is no image 127.0.0.1:9/no-such-image:1 on this host, and it cannot be pulled" in failed.stderr
    )
    assert "docker pull 127.0.0.1:9/no-such-image:1" in failed.stderr
    assert fleet.containers() == {}


def test_a_file_without_an_image_is_told_before_anything_starts(docker_fleet: Make) -> None:
    fleet = docker_fleet(triton={"image": ""})
    refused = fleet.cli("up", "-d", check=2)
    assert "pools.main.triton.image" in refused.stderr
    assert "add `image: IMAGE`" in refused.stderr


def test_a_daemon_that_is_not_there_is_told_with_its_remedy(docker_fleet: Make) -> None:
    fleet = docker_fleet()
    fleet.environ["DOCKER_HOST"] = f"unix://{fleet.folder}/no-daemon.sock"
    failed = fleet.cli("up", "-d", "--wait", check=1)
    assert f"no Docker daemon at unix://{fleet.folder}/no-daemon.sock" in failed.stderr
    assert "systemctl start docker" in failed.stderr


def test_what_is_not_the_fleet_s_is_never_touched(docker_fleet: Make) -> None:
    """Neither a container that is named like one of its own, nor one of another fleet."""
    fleet = docker_fleet()
    name, other = f"{fleet.name}-main-1.7", f"{fleet.name}-other"
    labels = {"tritonfleet.fleet": f"{fleet.name}x", "tritonfleet.schema": "1"}

    def put(client: Any) -> dict[str, str]:
        made = {}
        for named, told in ((name, {}), (other, labels)):
            made[named] = client.create_container(
                docker_daemon.IMAGE, ["sleep", "600"], name=named, labels=told
            )["Id"]
            client.start(made[named])
        return made

    made = docker_daemon.ask(put)

    def states(client: Any) -> set[tuple[str, bool]]:
        found = [client.inspect_container(identity) for identity in made.values()]
        return {(one["Id"], one["State"]["Running"]) for one in found}

    try:
        fleet.cli("up", "-d", "--wait")
        os.kill(fleet.snapshot()["controller"]["pid"], signal.SIGKILL)
        fleet.cli("up", "-d", "--wait")  # it looks at what is there
        fleet.cli("scale", "1", "--wait")
        fleet.cli("down", "-y")
        assert docker_daemon.ask(states) == {(identity, True) for identity in made.values()}
    finally:
        docker_daemon.ask(lambda client: [client.remove_container(one, force=True) for one in made.values()])


def test_a_second_fleet_of_the_same_name_touches_nothing_of_the_first(docker_fleet: Make) -> None:
    first, second = docker_fleet(), docker_fleet()
    second.name = first.name
    second.write()
    first.cli("up", "-d", "--wait")
    before = first.containers().keys()
    failed = second.cli("up", "-d", "--wait", check=1)
    assert f"belongs to another fleet '{first.name}'" in failed.stderr
    assert first.containers().keys() == before
    first.ready(2)


def test_containers_are_spoken_to_by_mutual_tls(docker_fleet: Make) -> None:
    fleet = docker_fleet()
    authority = certificate(fleet.folder, "fleet-ca")
    for name in ("replica", "router"):
        certificate(fleet.folder, name, authority)[1].chmod(0o644)  # the image's user is another
    tls = {
        "cert": "replica.pem", "key": "replica.key", "ca": "fleet-ca.pem",
        "client_cert": "router.pem", "client_key": "router.key",
    }  # fmt: skip
    fleet.write(triton={"tls": tls})
    fleet.cli("up", "-d", "--wait")
    assert echoes(fleet) == {"main-0", "main-1"}
    port = fleet.replicas()["main-0"]["grpc_port"]
    refused = pytest.raises(triton.InferenceServerException)
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as stranger, refused:
        stranger.is_server_live(client_timeout=3)
    shown = fleet.cli("describe", "main-0").stdout
    assert "/tritonfleet-tls/key.pem, read only" in shown

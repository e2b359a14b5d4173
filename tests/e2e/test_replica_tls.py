"""`triton.tls`: a real fleet whose replicas are spoken to by mutual TLS, and what others find there."""

import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton
from certificates import certificate
from running_fleet import RunningFleet, running_fleet, stop
from test_fleet_traffic import Load, echo

pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("replica_tls")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def fleet(folder: Path) -> Iterator[RunningFleet]:
    with running_fleet(folder, triton=secured(folder)) as fleet:
        yield fleet


def secured(folder: Path) -> dict[str, Any]:
    """The pool's `triton`: paths as a person writes them, beside the fleet file."""
    authority = certificate(folder, "fleet-ca")
    for name in ("replica", "router"):
        certificate(folder, name, authority)
    tls = {
        "cert": "replica.pem", "key": "replica.key", "ca": "fleet-ca.pem",
        "client_cert": "router.pem", "client_key": "router.key",
    }  # fmt: skip
    return {"exit_timeout": "5s", "tls": tls}


def renewed(replica: dict[str, Any]) -> bool:
    return replica["generation"] == 2 and replica["state"] == "ready"


def live(address: str, **credentials: Any) -> bool:
    """What a client finds that goes to a replica past the router. Raises InferenceServerException."""
    with triton.InferenceServerClient(address, **credentials) as client:
        return bool(client.is_server_live(client_timeout=3))


def test_calls_pass_and_nobody_without_a_certificate_is_served(fleet: RunningFleet, folder: Path) -> None:
    with triton.InferenceServerClient(fleet.address) as client:
        for size in (16, 100_000, 3_000_000):
            echo(client, size)
    replica = fleet.replicas()["main-0"]
    address = f"localhost:{replica['grpc_port']}"
    ours = {"private_key": str(folder / "router.key"), "certificate_chain": str(folder / "router.pem")}
    roots = {"ssl": True, "root_certificates": str(folder / "fleet-ca.pem")}
    assert live(address, **roots, **ours)
    for credentials in ({}, roots):
        with pytest.raises(triton.InferenceServerException):
            live(address, **credentials)
    assert replica["http_port"] == 0  # what `ps -o wide` and `describe` show as absent
    shown = fleet.cli("describe", "main-0").stdout
    assert "--allow-http=false" in shown
    assert f"127.0.0.1:{replica['grpc_port']}, by TLS" in shown


def test_a_new_controller_and_new_routers_find_the_replicas_again(fleet: RunningFleet) -> None:
    before = fleet.pids()
    with Load(fleet.address) as load:
        load.advance(50)
        pid = fleet.snapshot()["controller"]["pid"]
        os.kill(pid, signal.SIGKILL)
        fleet.cli("up", "-d", "--wait")
        fleet.cli("restart", "router")
        load.advance(50)
    assert load.failures == []
    assert fleet.pids() == before
    statistics = fleet.until(
        lambda fleet: [one for one in fleet.snapshot()["readings"] if one["model"] == "echo"],
        "statistics of echo, over TLS",
    )
    assert sum(one["requests_total"] for one in statistics) >= 100


def test_replaced_files_come_into_use_with_a_restart(fleet: RunningFleet, folder: Path) -> None:
    authority = folder / "fleet-ca.pem", folder / "fleet-ca.key"
    before = shown_by(fleet)
    with Load(fleet.address) as load:
        load.advance(20)
        for name in ("replica", "router"):
            certificate(folder, name, authority)
        for name in ("main-0", "main-1"):
            fleet.cli("restart", name)
            fleet.until(lambda fleet, name=name: renewed(fleet.replicas()[name]), f"{name} is a new one")
        load.advance(50)
    assert load.failures == []
    assert set(load.replicas) == {"main-0", "main-1"}
    assert shown_by(fleet) != before


def shown_by(fleet: RunningFleet) -> str:
    return ssl.get_server_certificate(("127.0.0.1", fleet.replicas()["main-0"]["grpc_port"]))


def test_a_pool_goes_over_to_tls_and_back_while_it_serves(folder: Path, tmp_path: Path) -> None:
    with running_fleet(tmp_path) as fleet, Load(fleet.address) as load:
        load.advance(20)
        for own in (secured(tmp_path), {"exit_timeout": "5s"}):
            fleet.write(triton=own)
            fleet.cli("up", "-d", "--wait")
            load.advance(20)
            ports = [replica["grpc_port"] for replica in fleet.replicas().values()]
            for port in ports:
                if "tls" in own:
                    with pytest.raises(triton.InferenceServerException):
                        live(f"127.0.0.1:{port}")
                else:
                    assert live(f"127.0.0.1:{port}")
        assert load.failures == []


def test_a_certificate_for_another_name_is_told_of(tmp_path: Path) -> None:
    own = secured(tmp_path)
    own["tls"]["name"] = "triton.example.com"
    fleet = RunningFleet(tmp_path, triton=own, replicas={"min": 1, "max": 1})
    try:
        fleet.cli("up", "-d")
        fleet.until(
            lambda fleet: "no answer by triton.tls" in fleet.replicas()["main-0"]["reason"],
            "what it waits for is told",
        )
    finally:
        stop(fleet)

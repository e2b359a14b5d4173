"""A fleet file as a compose file: what is pinned where, and what the router is told."""

import json
from typing import Any

import pytest

from tritonfleet.config import FleetSpec
from tritonfleet.config.limits_spec import LimitsSpec
from tritonfleet.config.router_spec import AccessLogSpec, RouterSpec, TlsSpec, TracesSpec
from tritonfleet.core.model import Device, DeviceKind
from tritonfleet.drivers import container_settings
from tritonfleet.drivers.base import DriverError
from tritonfleet.drivers.docker_compose import compose
from tritonfleet.router.__main__ import parse

GPUS = tuple(Device(f"GPU-{index}", DeviceKind.GPU) for index in range(2))


def spec(**pool: Any) -> FleetSpec:
    main = {
        "model_repository": "/models",
        "replicas": {"min": 2, "max": 2},
        "triton": {"image": "triton:1", "env": {"PRICE": "5$"}, "exit_timeout": "7s"},
        **pool,
    }
    return FleetSpec.model_validate(
        {
            "version": 1, "name": "demo", "pools": {"main": main},
            "router": {"listen": "[::1]:9001", "drain_timeout": "12s", "queue": {"max_requests": 7}},
        }
    )  # fmt: skip


def exported(found: FleetSpec, devices: tuple[Device, ...] = GPUS) -> dict[str, Any]:
    models = dict.fromkeys(found.pools, ("echo",))
    settings = {name: container_settings(pool) for name, pool in found.pools.items()}
    services: dict[str, Any] = compose(found, devices, models, settings, router_image="fleet:1")["services"]
    return services


def test_every_replica_is_pinned_to_a_device_of_its_own() -> None:
    services = exported(spec())
    assert list(services) == ["main-0", "main-1", "router"]
    for index in range(2):
        service = services[f"main-{index}"]
        reserved = service["deploy"]["resources"]["reservations"]["devices"]
        assert reserved == [{"driver": "nvidia", "device_ids": [f"GPU-{index}"], "capabilities": ["gpu"]}]
        assert service["ulimits"] == {"memlock": -1, "stack": 64 << 20}
        assert service["volumes"] == ["/models:/models:ro"]
        assert service["stop_grace_period"] == "12s"
        assert "--exit-timeout-secs=7" in service["command"]


def test_a_cpu_slot_reserves_nothing() -> None:
    services = exported(spec(), tuple(Device(f"cpu{index}", DeviceKind.CPU) for index in range(2)))
    assert "deploy" not in services["main-0"]
    assert "ulimits" not in services["main-0"]


def test_dollars_are_doubled_for_compose() -> None:
    services = exported(spec())
    assert services["main-0"]["environment"]["PRICE"] == "5$$"
    assert '"$$ROUTER_TABLE"' in services["router"]["command"][2]


def test_the_router_has_a_fixed_table_and_the_file_s_settings() -> None:
    router = exported(spec())["router"]
    table = json.loads(router["environment"]["ROUTER_TABLE"])
    assert [(row["host"], row["port"], row["models"]) for row in table["replicas"]] == [
        ("main-0", 8001, ["echo"]),
        ("main-1", 8001, ["echo"]),
    ]
    assert table["settings"]["max_requests"] == 7
    assert router["ports"] == ["[::1]:9001:8001"]
    assert router["image"] == "fleet:1"
    assert router["command"][router["command"].index("--drain-timeout") + 1] == "12"


def test_more_replicas_than_devices_are_refused_by_name() -> None:
    with pytest.raises(DriverError, match="no device for main-1: no free device") as refused:
        exported(spec(), GPUS[:1])
    assert "replicas.initial" in refused.value.remedy


def test_a_pool_without_an_image_is_refused() -> None:
    with pytest.raises(DriverError, match="pool main names no image") as refused:
        exported(spec(triton={}))
    assert refused.value.remedy == "set pools.main.triton.image"


def test_a_pool_that_would_sleep_for_ever_is_refused() -> None:
    with pytest.raises(DriverError, match="pool main begins with no replica") as refused:
        exported(spec(replicas={"min": 0, "max": 2}))
    assert refused.value.remedy == "set pools.main.replicas.initial to 1 or more"


def test_tls_of_both_sides_goes_with_the_file() -> None:
    tls = {
        "cert": "/p/a.pem",
        "key": "/p/a.key",
        "ca": "/p/ca.pem",
        "client_cert": "/p/r.pem",
        "client_key": "/p/r.key",
    }
    found = spec(triton={"image": "triton:1", "tls": tls})
    router = found.router.model_copy(
        update={"tls": TlsSpec(cert="/p/s.pem", key="/p/s.key", client_ca="/p/c.pem")}
    )
    services = exported(found.model_copy(update={"router": router}))
    assert "/p/a.key:/tritonfleet-tls/key.pem:ro" in services["main-0"]["volumes"]
    command = services["router"]["command"]
    mounted = dict(one.removesuffix(":ro").split(":")[::-1] for one in services["router"]["volumes"])
    for option, path in (("cert", "/p/s.pem"), ("key", "/p/s.key"), ("client-ca", "/p/c.pem")):
        assert mounted[command[command.index(f"--tls-{option}") + 1]] == path
    row = json.loads(services["router"]["environment"]["ROUTER_TABLE"])["replicas"][0]["tls"]
    assert [mounted[row[key]] for key in ("ca", "cert", "key")] == ["/p/ca.pem", "/p/r.pem", "/p/r.key"]


def test_the_router_has_the_files_limits() -> None:
    limited = spec().model_copy(update={"router": RouterSpec(limits=LimitsSpec(streams=7))})
    command = exported(limited)["router"]["command"]
    assert json.loads(command[command.index("--limits") + 1])["streams"] == 7


def test_the_router_logs_and_traces_calls_as_the_file_says() -> None:
    plain = exported(spec())["router"]["command"]
    assert not [word for word in plain if word.startswith(("--access", "--trace"))]
    seen = RouterSpec(
        access_log=AccessLogSpec(path="/var/log/calls.jsonl", sample=0.5),
        traces=TracesSpec(endpoint="http://collector:4318", sample=0.25),
    )
    command = exported(spec().model_copy(update={"router": seen}))["router"]["command"]
    given = parse(command[command.index("tritonfleet.router") + 1 :])
    assert (given.access_log, given.access_sample) == ("stdout", 0.5)  # Docker keeps what a container says
    assert (given.trace_endpoint, given.trace_sample) == ("http://collector:4318", 0.25)


@pytest.mark.parametrize(
    ("max_inflight", "slots", "strict"), [(3, {"echo": 3}, True), ("off", {}, False), ("auto", {}, False)]
)
def test_a_number_in_flight_is_kept(max_inflight: object, slots: dict[str, int], strict: bool) -> None:
    router = exported(spec(max_inflight=max_inflight))["router"]
    for row in json.loads(router["environment"]["ROUTER_TABLE"])["replicas"]:
        assert (row["slots"], row["strict"]) == (slots, strict)


def test_a_port_is_published_on_an_address_not_on_a_name() -> None:
    def listening(address: str) -> FleetSpec:
        router = RouterSpec.model_validate({"listen": address})
        return spec().model_copy(update={"router": router})

    assert exported(listening("localhost:9001"))["router"]["ports"] == ["127.0.0.1:9001:8001"]
    with pytest.raises(DriverError, match=r"router\.listen: a compose file takes addresses") as refused:
        exported(listening("fleet.example:9001"))
    assert "0.0.0.0:9001" in refused.value.remedy


def test_the_router_asks_who_may_change_the_servers() -> None:
    managers = ("10.0.0.0/8", "cert:ops", "token:/p/one.txt", "token:/p/two.txt")
    found = spec().model_copy(update={"router": RouterSpec(management=managers)})
    service = exported(found)["router"]
    given = service["command"][service["command"].index("--management") + 1].split(",")
    mounted = dict(one.removesuffix(":ro").split(":")[::-1] for one in service["volumes"])
    assert given[:2] == ["10.0.0.0/8", "cert:ops"]
    assert [mounted[one.removeprefix("token:")] for one in given[2:]] == ["/p/one.txt", "/p/two.txt"]

"""A fleet file as a compose file: what is pinned where, and what the router is told."""

import json
from typing import Any

import pytest

from tritonfleet.config import FleetSpec
from tritonfleet.core.model import Device, DeviceKind
from tritonfleet.drivers import container_settings
from tritonfleet.drivers.base import DriverError
from tritonfleet.drivers.docker_compose import compose

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

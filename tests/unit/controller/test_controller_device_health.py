"""Devices where replicas fail again and again: set aside, shown, kept by the next controller, taken back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from certificates import certificate
from controller_parts import PaperDriver, fleet_of, kinds, reasons, spec_of, states, until

from tritonfleet.controller import commands
from tritonfleet.controller.adopt import adopt
from tritonfleet.controller.commands import RefusedError
from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.snapshot import snapshot
from tritonfleet.core.replica_tls import NO_ANSWER
from tritonfleet.core.wire import DeviceInfo, DrainRequest


@asynccontextmanager
async def controlled(folder: Path, driver: PaperDriver, **pool: Any) -> AsyncIterator[Fleet]:
    """A fleet of two replicas whose loop runs; it is left as a controller leaves it that ends."""
    fleet = fleet_of(folder, driver, spec_of(folder, **pool))
    await adopt(fleet)
    loop = asyncio.create_task(fleet.run())
    try:
        yield fleet
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        await fleet.close()
        fleet.journal.close()
    assert "controller.error" not in kinds(fleet), reasons(fleet, "controller.error")


def crash_all_on(driver: PaperDriver, device: str, **how: Any) -> None:
    for server in driver.servers.values():
        if server.instance.devices == (device,) and server.exit is None:
            server.end(**(how or {"code": 1, "detail": "CUDA error: an illegal memory access"}))


def info(fleet: Fleet, device: str) -> DeviceInfo:
    return next(one for one in snapshot(fleet).devices if one.id == device)


async def crash_until_aside(fleet: Fleet, driver: PaperDriver, device: str) -> None:
    while not info(fleet, device).set_aside:
        crash_all_on(driver, device)
        await asyncio.sleep(0.005)


async def test_a_device_that_kills_replicas_is_set_aside_until_it_is_taken_back(tmp_path: Path) -> None:
    driver = PaperDriver(2)
    async with controlled(tmp_path, driver) as fleet:
        await until(lambda: states(fleet) == {"main-0": "ready", "main-1": "ready"})
        await crash_until_aside(fleet, driver, "cpu0")
        (said,) = reasons(fleet, "device.set_aside")
        assert said.startswith("3 launches failed there within 600 s while the same configuration serves")
        assert said.endswith("CUDA error: an illegal memory access: nothing is placed there for 1800 s")
        await until(lambda: "pending" in states(fleet).values())
        assert fleet.slots["main-0"].reason == (
            "no free device: all 1 are taken (1 per device); set aside: cpu0"
        )
    async with controlled(tmp_path, driver) as again:
        assert info(again, "cpu0").set_aside_until is not None
        await until(lambda: states(again) == {"main-0": "pending", "main-1": "ready"})
        message = commands.undrain_device(again, "cpu0").message
        assert message == "replicas may be placed on cpu0 again"
        await until(lambda: states(again) == {"main-0": "ready", "main-1": "ready"})
        assert (info(again, "cpu0").set_aside, info(again, "cpu0").failures) == ("", 0)
        with pytest.raises(RefusedError, match="is not set aside"):
            commands.undrain_device(again, "cpu0")


async def test_a_replica_that_crashed_goes_to_a_device_where_none_did(tmp_path: Path) -> None:
    driver = PaperDriver(3)
    async with controlled(tmp_path, driver) as fleet:
        await until(lambda: states(fleet) == {"main-0": "ready", "main-1": "ready"})
        crash_all_on(driver, "cpu0")
        await until(lambda: fleet.slots["main-0"].generation == 2 and states(fleet)["main-0"] == "ready")
        assert fleet.slots["main-0"].devices == ("cpu2",)


async def test_kills_from_outside_and_broken_models_blame_no_device(tmp_path: Path) -> None:
    driver = PaperDriver(2)
    async with controlled(tmp_path, driver) as fleet:
        await until(lambda: states(fleet) == {"main-0": "ready", "main-1": "ready"})
        for generation in range(2, 7):
            crash_all_on(driver, "cpu0", signal=9)
            await until(
                lambda wanted=generation: (
                    fleet.slots["main-0"].generation == wanted and states(fleet)["main-0"] == "ready"
                )
            )
        driver.come_up_ready = False
        while states(fleet) != {"main-0": "crash_loop", "main-1": "crash_loop"}:
            crash_all_on(driver, "cpu0")
            crash_all_on(driver, "cpu1")
            await asyncio.sleep(0.005)
        assert "device.set_aside" not in kinds(fleet)


async def test_certificates_that_no_server_takes_blame_no_device(tmp_path: Path) -> None:
    """The configuration is the same, and its files are not: replicas of before serve with the old ones."""
    cert, key = certificate(tmp_path, "replica")
    _, other = certificate(tmp_path, "other")
    mended = key.read_bytes()
    driver = PaperDriver(2)
    tls = {"cert": str(cert), "key": str(key), "ca": str(cert)}
    restart = {"backoff": "1ms", "max_backoff": "2ms"}
    async with controlled(tmp_path, driver, triton={"tls": tls}, restart=restart) as fleet:
        await until(lambda: states(fleet) == {"main-0": "ready", "main-1": "ready"})
        key.write_bytes(other.read_bytes())
        crash_all_on(driver, "cpu0")
        await until(lambda: len(reasons(fleet, "replica.failed")) >= 5)
        said = f"triton.tls: {key} with {cert}: the key is not that of the certificate (replace both files)"
        assert reasons(fleet, "replica.failed")[0].startswith(said)
        assert "device.set_aside" not in kinds(fleet)
        key.write_bytes(mended)
        await until(lambda: states(fleet) == {"main-0": "ready", "main-1": "ready"})


@pytest.mark.parametrize(("said", "blamed"), [(NO_ANSWER + ": certificate has expired", False), ("", True)])
async def test_a_replica_that_is_refused_by_its_certificate_blames_no_device(
    tmp_path: Path, said: str, blamed: bool
) -> None:
    driver = PaperDriver(2)
    pool = {"restart": {"backoff": "1ms", "max_backoff": "2ms"}, "startup_timeout": "20ms"}
    async with controlled(tmp_path, driver, health={"interval": "5ms"}, **pool) as fleet:
        await until(lambda: states(fleet) == {"main-0": "ready", "main-1": "ready"})
        driver.come_up_ready = False
        crash_all_on(driver, "cpu0", signal=9)

        def again() -> bool:
            for server in driver.servers.values():
                if server.instance.devices == ("cpu0",) and server.exit is None:
                    server.error = said
            return len(reasons(fleet, "replica.unhealthy")) >= 4 or "device.set_aside" in kinds(fleet)

        await until(again)
        assert ("device.set_aside" in kinds(fleet)) is blamed


async def test_a_device_drained_by_hand_is_emptied_and_its_replicas_go_elsewhere(tmp_path: Path) -> None:
    driver = PaperDriver(3)
    async with controlled(tmp_path, driver) as fleet:
        await until(lambda: states(fleet) == {"main-0": "ready", "main-1": "ready"})
        with pytest.raises(RefusedError, match="there is no device 'gpu9'"):
            commands.drain_device(fleet, "gpu9", DrainRequest())
        said = commands.drain_device(fleet, "cpu0", DrainRequest(by="anna")).message
        assert said == "nothing is placed on cpu0 any more; leaving it: main-0"
        await until(lambda: fleet.slots["main-0"].generation == 2 and states(fleet)["main-0"] == "ready")
        assert fleet.slots["main-0"].devices == ("cpu2",)
        assert fleet.autoscaler._room("main") == 2, "what the load may grow the pool to"
        assert (info(fleet, "cpu0").set_aside, info(fleet, "cpu0").set_aside_until) == (
            "drained by anna",
            None,
        )
        with pytest.raises(RefusedError, match="is drained already"):
            commands.drain_device(fleet, "cpu0", DrainRequest())

"""What every driver must do, whatever it runs: the real embedded Triton as processes, and the fake."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest
from benches import Bench

from tritonfleet.core.launched import HIDDEN
from tritonfleet.core.model import ExitStatus
from tritonfleet.drivers.base import DriverError, Instance

Until = Callable[[Instance], Awaitable[None]]
T = TypeVar("T")
BOUND_S = 60.0


async def within(awaitable: Awaitable[T]) -> T:
    async with asyncio.timeout(BOUND_S):
        return await awaitable


async def lines_until(lines: AsyncIterator[str], last: str) -> list[str]:
    found: list[str] = []
    async with asyncio.timeout(BOUND_S):
        async for line in lines:
            found.append(line)
            if line == last:
                return found
    raise AssertionError(f"the log ended without {last!r}: {found}")


async def test_a_started_instance_is_listed_and_becomes_ready(bench: Bench, until_ready: Until) -> None:
    driver = bench.driver()
    spec = bench.spec()
    started = await driver.start(spec)
    assert started.instance == "main-0.1"
    assert (started.fleet, started.pool, started.config_hash) == (bench.fleet, "main", "hash")
    assert started.devices == ("cpu0",)
    assert started.running
    assert await driver.list() == [started]
    await until_ready(started)
    assert await driver.list() == [started]


async def test_two_replicas_run_at_once_on_ports_of_their_own(bench: Bench, until_ready: Until) -> None:
    driver = bench.driver()
    one, two = await asyncio.gather(driver.start(bench.spec("main-1")), driver.start(bench.spec("main-0")))
    ports = {one.grpc_port, one.http_port, one.metrics_port, two.grpc_port, two.http_port, two.metrics_port}
    assert len(ports) == 6
    assert one.handle != two.handle
    await asyncio.gather(until_ready(one), until_ready(two))
    assert [found.replica for found in await driver.list()] == ["main-0", "main-1"]


async def test_generations_are_listed_in_the_order_of_their_numbers(bench: Bench) -> None:
    driver = bench.driver()
    for generation in (10, 9):
        await driver.stop(await driver.start(bench.spec(generation=generation)), 0)
    assert [found.generation for found in await driver.list()] == [9, 10]


async def test_an_instance_name_is_started_once(bench: Bench) -> None:
    driver = bench.driver()
    results = await asyncio.gather(
        driver.start(bench.spec()), driver.start(bench.spec()), return_exceptions=True
    )
    started = [result for result in results if isinstance(result, Instance)]
    refused = [result for result in results if isinstance(result, DriverError)]
    assert len(started) == len(refused) == 1
    assert str(refused[0]) == "main-0.1 exists already"
    await driver.stop(started[0], 0)
    with pytest.raises(DriverError, match=r"main-0\.1 exists already"):
        await bench.driver().start(bench.spec())
    await driver.remove(started[0])
    again = await driver.start(bench.spec())
    assert again.running


async def test_a_killed_one_has_its_signal_for_every_waiter(bench: Bench) -> None:
    driver = bench.driver()
    started = await driver.start(bench.spec())
    waiters = [asyncio.create_task(driver.wait(started)) for _ in range(3)]
    await asyncio.sleep(0)
    bench.kill(started)
    statuses = await within(asyncio.gather(*waiters))
    assert {status.signal for status in statuses} == {9}
    assert str(statuses[0]).startswith("killed by SIGKILL")
    assert await driver.wait(started) == statuses[0]
    assert await driver.list() == [replace(started, exit=statuses[0])]


async def test_a_waiter_that_gives_up_disturbs_no_other(bench: Bench) -> None:
    driver = bench.driver()
    started = await driver.start(bench.spec())
    patient, hasty = (asyncio.create_task(driver.wait(started)) for _ in range(2))
    await asyncio.sleep(0)
    hasty.cancel()
    await asyncio.wait([hasty])
    assert not patient.done()
    bench.kill(started)
    assert (await within(patient)).signal == 9


async def test_a_new_driver_adopts_what_runs(bench: Bench, until_ready: Until) -> None:
    first = bench.driver()
    started = await first.start(bench.spec())
    await first.close()
    second = bench.driver()
    assert await second.list() == [started]
    await until_ready(started)
    assert (await within(second.stop(started, 20))).signal is None
    third = bench.driver()
    assert [found.running for found in await third.list()] == [False]
    await third.remove(started)
    assert await third.list() == []


async def test_what_ended_while_nobody_watched_is_listed_as_ended(bench: Bench) -> None:
    first = bench.driver()
    started = await first.start(bench.spec())
    await first.close()
    bench.kill(started)
    second = bench.driver()
    await within(second.wait(started))
    (found,) = await second.list()
    assert not found.running
    assert found.handle == started.handle


async def test_a_new_driver_tells_how_what_runs_was_launched(bench: Bench) -> None:
    first = bench.driver()
    spec = replace(bench.spec(), env={"WORKSPACE": "small", "HF_TOKEN": "hf_0123"}, args=("--log-verbose=1",))
    started = await first.start(spec)
    await first.close()
    second = bench.driver()
    found = await second.launch_of(started)
    assert found.running
    assert any("tritonserver" in word for word in found.command[:2])
    assert "--load-model=echo" in found.command
    assert found.command[-1] == "--log-verbose=1"
    assert (found.env["WORKSPACE"], found.env["HF_TOKEN"]) == ("small", HIDDEN)
    assert "HOME" not in found.env  # inherited
    await second.stop(started, 0)
    with pytest.raises(DriverError, match="does not run"):
        await bench.driver().launch_of(started)


async def test_another_fleet_sees_nothing_of_it(bench: Bench) -> None:
    await bench.driver().start(bench.spec())
    assert await bench.driver(fleet="another").list() == []


async def test_stop_lets_it_exit_by_itself(bench: Bench, until_ready: Until) -> None:
    driver = bench.driver()
    started = await driver.start(bench.spec())
    await until_ready(started)
    status = await within(driver.stop(started, 30))
    assert (status.code, status.signal) == (0, None)
    assert str(status) == "exited with code 0"


async def test_stop_kills_what_does_not_exit_within_its_grace(bench: Bench) -> None:
    driver = bench.driver()
    started = await driver.start(bench.spec())
    bench.freeze(started)
    status = await within(driver.stop(started, 0.3))
    assert status.signal == 9


async def test_stop_without_grace_kills_at_once(bench: Bench, until_ready: Until) -> None:
    driver = bench.driver()
    started = await driver.start(bench.spec())
    await until_ready(started)
    status = await within(driver.stop(started, 0))
    assert status.signal == 9


async def test_stop_is_idempotent_and_may_be_called_twice_at_once(bench: Bench) -> None:
    driver = bench.driver()
    started = await driver.start(bench.spec())
    one, two = await within(asyncio.gather(driver.stop(started, 0), driver.stop(started, 0)))
    assert one == two == await driver.stop(started, 30)


async def test_a_stop_that_is_cancelled_can_be_asked_again(bench: Bench) -> None:
    driver = bench.driver()
    started = await driver.start(bench.spec())
    bench.freeze(started)
    stopping = asyncio.create_task(driver.stop(started, BOUND_S))
    await asyncio.sleep(0.05)
    stopping.cancel()
    await asyncio.wait([stopping])
    assert (await driver.list())[0].running
    assert (await within(driver.stop(started, 0))).signal == 9


async def test_remove_is_refused_while_it_runs_and_idempotent_after(bench: Bench) -> None:
    driver = bench.driver()
    started = await driver.start(bench.spec())
    with pytest.raises(DriverError, match=r"main-0\.1 still runs") as refused:
        await driver.remove(started)
    assert refused.value.remedy == "stop it first"
    await driver.stop(started, 0)
    await driver.remove(started)
    assert await driver.list() == []
    await driver.remove(started)


async def test_what_was_removed_has_ended(bench: Bench) -> None:
    driver = bench.driver()
    started = await driver.start(bench.spec())
    status = await driver.stop(started, 0)
    await driver.remove(started)
    assert await within(driver.wait(replace(started, exit=status))) == status
    assert isinstance(await within(driver.stop(started, 0)), ExitStatus)


async def test_a_model_that_fails_to_load_is_the_reason_of_the_exit(bench: Bench) -> None:
    driver = bench.driver()
    started = await driver.start(bench.spec(broken=True))
    status = await within(driver.wait(started))
    assert status.code == 1
    assert "model broken: " in status.detail
    assert "the weights are missing" in status.detail


async def test_logs_are_those_of_all_generations(bench: Bench) -> None:
    driver = bench.driver()
    for generation in (1, 2):
        started = await driver.start(bench.spec(generation=generation))
        await driver.stop(started, 0)
        bench.say(started, f"said by {generation}")
        await driver.remove(started)
    everything = [line async for line in driver.logs("main-0", tail=None)]
    heads = [line.split(" started")[0] for line in everything if line.startswith("--- ")]
    assert heads == ["--- main-0.1", "--- main-0.2"]
    assert everything[-1] == "said by 2"
    assert everything.index("said by 1") < everything.index("said by 2")
    assert [line async for line in driver.logs("main-0", tail=1)] == ["said by 2"]
    assert [line async for line in driver.logs("main-0", tail=0)] == []


async def test_logs_follow_what_is_written_later(bench: Bench) -> None:
    driver = bench.driver()
    started = await driver.start(bench.spec())
    await driver.stop(started, 0)
    bench.say(started, "before")
    # Not its last line only: an engine may hand over some of a server's last words after its end.
    lines = driver.logs("main-0", tail=100, follow=True)
    assert (await lines_until(lines, "before"))[-1] == "before"
    bench.say(started, "after")
    assert (await lines_until(lines, "after"))[-1] == "after"
    await driver.stop(await driver.start(bench.spec(generation=2)), 0)
    bench.say(started, "of the next generation")
    found = await lines_until(lines, "of the next generation")
    assert any(line.startswith("--- main-0.2 started") for line in found)
    await lines.aclose()


async def test_logs_of_a_replica_that_never_ran_are_empty(bench: Bench) -> None:
    assert [line async for line in bench.driver().logs("main-7")] == []


async def test_what_answers_is_not_away(bench: Bench) -> None:
    driver = bench.driver()
    waiting = asyncio.create_task(driver.wait(await driver.start(bench.spec())))
    await asyncio.sleep(0.1)
    assert driver.away == ""
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_without_a_gpu_there_is_none_to_look_for(bench: Bench) -> None:
    driver = bench.driver()
    assert await driver.look(await driver.start(bench.spec())) is None


async def test_maintain_raises_nothing(bench: Bench) -> None:
    driver = bench.driver()
    await driver.maintain()
    started = await driver.start(bench.spec())
    await driver.maintain()
    bench.kill(started)
    await within(driver.wait(started))
    await driver.maintain()


async def test_close_leaves_what_runs_running(bench: Bench) -> None:
    driver = bench.driver()
    started = await driver.start(bench.spec())
    waiting = asyncio.create_task(driver.wait(started))
    await asyncio.sleep(0)
    await driver.close()
    assert (await bench.driver().list())[0].running
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_capacity_is_the_devices_in_their_order(bench: Bench) -> None:
    assert [device.id for device in await bench.driver().capacity()] == ["cpu0", "cpu1", "cpu2", "cpu3"]


async def test_a_start_that_is_cancelled_leaves_nothing_or_something_that_is_listed(bench: Bench) -> None:
    driver = bench.driver()
    for turns in range(4):
        starting = asyncio.create_task(driver.start(bench.spec(generation=turns + 1)))
        await asyncio.sleep(0.03 * turns)
        starting.cancel()
        await asyncio.wait([starting])
    listed = await driver.list()
    for instance in listed:
        await within(driver.stop(instance, 0))
        await driver.remove(instance)
    assert await bench.driver().list() == []

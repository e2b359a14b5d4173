"""The control API over a real socket, and what a person can ask of a fleet through it."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from controller_parts import (
    PaperDriver,
    fleet_of,
    kinds,
    reasons,
    report,
    spec_of,
    states,
    until,
    worker_that_runs,
)

from tritonfleet.controller.api import ControlServer, application
from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.shutdown import Shutdown
from tritonfleet.core.board import Board
from tritonfleet.core.launched import Launched
from tritonfleet.core.wire import Accepted, Event, FleetSnapshot, Problem, RouterTable


@dataclass
class Running:
    fleet: Fleet
    driver: PaperDriver
    http: httpx.AsyncClient
    shutdown: Shutdown
    folder: Path

    async def get(self, path: str, kind: Any) -> Any:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=kind)

    async def post(self, path: str, body: object = None) -> Accepted:
        answer = await self.http.post(path, content=json.dumps(body) if body is not None else b"")
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=Accepted)

    async def refused(self, path: str, body: object = None, status: int = 422) -> Problem:
        answer = await self.http.post(path, content=json.dumps(body) if body is not None else b"")
        assert answer.status_code == status, answer.text
        return msgspec.json.decode(answer.content, type=Problem)

    async def ready(self, *names: str) -> None:
        wanted = dict.fromkeys(names, "ready")
        await until(lambda: states(self.fleet) == wanted, f"{names} ready: {states(self.fleet)}")

    def write(self, **changes: Any) -> Path:
        """A fleet file for `apply`, as JSON, which is YAML."""
        spec = spec_of(self.folder / "models").model_dump(mode="json")
        for key, value in changes.items():
            part, names = spec, key.split("__")
            for name in names[:-1]:
                part = part[name]
            part[names[-1]] = value
        path = self.folder / "tritonfleet.yaml"
        path.write_text(json.dumps(spec))
        return path


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Running]:
    driver = PaperDriver()
    (tmp_path / "models" / "digits").mkdir(parents=True)
    (tmp_path / "models" / "digits" / "config.pbtxt").write_text('name: "digits"')
    fleet = fleet_of(tmp_path, driver, spec_of(tmp_path / "models"))
    fleet.feed.open()
    shutdown = Shutdown(fleet)
    server = ControlServer(application(fleet, shutdown), fleet.paths.control_socket)
    serving, loop = asyncio.create_task(server.serve()), asyncio.create_task(fleet.run())
    transport = httpx.AsyncHTTPTransport(uds=str(fleet.paths.control_socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://controller/v1", timeout=20) as http:
        await until(lambda: server._server.started)
        running = Running(fleet, driver, http, shutdown, tmp_path)
        await running.ready("main-0", "main-1")
        yield running
    fleet.feed.close()
    fleet.journal.close()
    server.stop()
    loop.cancel()
    await asyncio.gather(serving, loop, return_exceptions=True)
    await fleet.close()
    server.close()
    assert not fleet.paths.control_socket.exists()
    assert "controller.error" not in kinds(fleet), reasons(fleet, "controller.error")


# ---------------------------------------------------------------- the socket and the reading side


async def test_the_socket_is_for_its_owner_only(api: Running) -> None:
    assert api.fleet.paths.control_socket.stat().st_mode & 0o777 == 0o600


async def test_the_snapshot_is_one_whole_reading(api: Running) -> None:
    snapshot: FleetSnapshot = await api.get("/snapshot", FleetSnapshot)
    assert (snapshot.fleet, snapshot.driver, snapshot.stopping) == ("paper", "paper", False)
    assert [replica.id for replica in snapshot.replicas] == ["main-0", "main-1"]
    (pool,) = snapshot.pools
    assert (pool.desired, pool.ready, pool.starting, pool.failed, pool.pinned) == (2, 2, 0, 0, False)
    assert pool.cold_start_s is not None
    assert snapshot.cold_starts_s.keys() == {"main-0", "main-1"}
    assert snapshot.table_revision == api.fleet.feed.revision
    assert [device.id for device in snapshot.devices] == ["cpu0", "cpu1", "cpu2", "cpu3"]
    assert snapshot.replicas[0].in_flight is None, "no worker has reported: unknown, not idle"


async def test_the_board_is_everything_in_one_answer(api: Running) -> None:
    board: Board = await api.get("/board", Board)
    assert [one.id for one in board.snapshot.replicas] == ["main-0", "main-1"]
    assert board.events[-1].seq == api.fleet.journal.seq
    assert [status.pool for status in board.autoscale] == ["main"]


async def test_a_launch_is_that_of_what_runs_or_the_next_one(api: Running) -> None:
    found = await api.get("/replicas/main-0/launch", Launched)
    assert found.running
    assert found.command[0] == "tritonserver"
    coming = await api.get("/pools/main/launch", Launched)
    assert not coming.running
    assert f"--model-repository={api.folder / 'models'}" in coming.command
    api.fleet.slots["main-0"].instance = None  # as after its end
    assert await api.get("/replicas/main-0/launch", Launched) == coming
    for path in ("/replicas/main-9/launch", "/pools/none/launch"):
        assert (await api.http.get(path)).status_code == 404


async def test_readings_have_an_age_and_rates(api: Running) -> None:
    await until(lambda: all(slot.reading for slot in api.fleet.slots.values()))
    snapshot: FleetSnapshot = await api.get("/snapshot", FleetSnapshot)
    reading = snapshot.readings[0]
    assert (reading.replica, reading.model, reading.window_s) == ("main-0", "digits", 0.0)
    assert reading.age_s >= 0


async def test_events_since_and_follow(api: Running) -> None:
    await until(lambda: "rollout.deployed" in kinds(api.fleet))  # then nothing happens any more
    everything = (await api.http.get("/events")).text.splitlines()
    assert len(everything) == api.fleet.journal.seq
    later = (await api.http.get("/events", params={"since": 2})).text.splitlines()
    last = api.fleet.journal.seq
    assert [json.loads(line)["seq"] for line in later] == list(range(3, last + 1))
    async with api.http.stream("GET", "/events", params={"since": last - 1, "follow": "1"}) as response:
        lines = response.aiter_lines()
        assert msgspec.json.decode(await anext(lines), type=Event).seq == last
        api.fleet.journal.add("test.event", "x", "while followed")
        assert msgspec.json.decode(await anext(lines), type=Event).reason == "while followed"
    assert (await api.http.get("/events", params={"since": "x"})).status_code == 422


async def test_the_table_comes_at_once_and_at_every_change(api: Running) -> None:
    async with api.http.stream("GET", "/router/table") as response:
        lines = response.aiter_lines()
        first = msgspec.json.decode(await anext(lines), type=RouterTable)
        assert [row.id for row in first.replicas] == ["main-0", "main-1"]
        api.driver["main-1.1"].kill()
        second = msgspec.json.decode(await anext(lines), type=RouterTable)
        assert [row.id for row in second.replicas] == ["main-0"]
        assert second.revision == first.revision + 1


async def test_telemetry_is_taken(api: Running) -> None:
    with worker_that_runs(api.fleet):
        body = msgspec.json.encode(report(3, {"main-0.1": 7}, client_connections=4))
        assert (await api.http.post("/router/telemetry", content=body)).status_code == 204
        snapshot: FleetSnapshot = await api.get("/snapshot", FleetSnapshot)
        assert [replica.in_flight for replica in snapshot.replicas] == [7, 0]
        (worker,) = snapshot.router.workers
        assert (worker.table_revision, worker.client_connections) == (3, 4)
        assert worker.telemetry_age_s is not None


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind", "message"),
    [
        ("GET", "/nowhere", b"", 404, "not_found", "GET /v1/nowhere"),
        ("GET", "/scale", b"", 405, "invalid", "GET /v1/scale"),
        ("POST", "/scale", b"{", 422, "invalid", "the request's body is not a ScaleRequest"),
        ("POST", "/scale", b'{"sizes": {"main": "two"}}', 422, "invalid", "Expected `int`, got `str`"),
        ("POST", "/router/telemetry", b"{}", 422, "invalid", "is not a RouterTelemetry"),
    ],
)
async def test_every_refusal_is_a_problem(
    api: Running, method: str, path: str, body: bytes, status: int, kind: str, message: str
) -> None:
    answer = await api.http.request(method, path, content=body)
    problem = msgspec.json.decode(answer.content, type=Problem)
    assert (answer.status_code, problem.kind) == (status, kind)
    assert message in problem.message


# ---------------------------------------------------------------- scale


async def test_scale_pins_a_size(api: Running) -> None:
    accepted = await api.post("/scale", {"sizes": {"main": 4}, "by": "ann"})
    assert accepted.message == "scaling main to 4"
    assert api.fleet.journal.since(accepted.seq - 1)[0].reason == "scaled main to 4 by ann"
    await api.ready(*(f"main-{ordinal}" for ordinal in range(4)))
    snapshot: FleetSnapshot = await api.get("/snapshot", FleetSnapshot)
    assert snapshot.pools[0].pinned
    await api.post("/scale", {"sizes": {"": 0}})
    await until(lambda: not api.fleet.slots)


@pytest.mark.parametrize(
    ("sizes", "status", "message", "hint"),
    [
        ({"main": 7}, 422, "main cannot be scaled to 7: its bounds are 0..6", "change pools.main.replicas"),
        ({"main": 5}, 422, "main 5 (at 1 per device) need 5 devices; there are 4", "add devices"),
        ({"main": 5}, 422, "\n  cpu1  main-1\n  cpu2  free\n", "add devices"),
        ({"mian": 1}, 404, "there is no pool 'mian'", "pools: main"),
    ],
)
async def test_what_cannot_be_is_refused_with_the_numbers(
    api: Running, sizes: dict[str, int], status: int, message: str, hint: str
) -> None:
    problem = await api.refused("/scale", {"sizes": sizes}, status)
    assert message in problem.message
    assert hint in problem.hint
    assert api.fleet.sizes == {}


# ---------------------------------------------------------------- drain, undrain, restart


async def test_drain_empties_a_slot_until_undrain(api: Running) -> None:
    assert "drains" in (await api.post("/replicas/main-1/drain", {"by": "ann"})).message
    await until(lambda: "main-1.1" in api.driver.removed)
    assert "drained by ann" in reasons(api.fleet, "replica.draining")
    await asyncio.sleep(0.05)
    assert api.driver.launched == ["main-0.1", "main-1.1"]
    snapshot: FleetSnapshot = await api.get("/snapshot", FleetSnapshot)
    assert [replica.held for replica in snapshot.replicas] == [False, True]
    assert (snapshot.pools[0].ready, snapshot.pools[0].starting) == (1, 0)
    problem = await api.refused("/replicas/main-1/drain", {}, 409)
    assert "undrain main-1" in problem.hint
    await api.post("/replicas/main-1/undrain")
    await api.ready("main-0", "main-1")
    assert api.driver.launched[-1] == "main-1.2"
    await api.refused("/replicas/main-1/undrain", status=409)


async def test_a_drain_can_be_taken_back_before_it_is_over(api: Running) -> None:
    with worker_that_runs(api.fleet):
        await api.post("/replicas/main-1/drain", {"deadline_s": 100})
        assert states(api.fleet)["main-1"] == "draining"
        deadline = api.fleet.replicas()[1].drain_deadline
        assert deadline is not None
        assert deadline - api.fleet.replicas()[1].since == pytest.approx(100)
        await api.post("/replicas/main-1/undrain")
        await api.ready("main-0", "main-1")
    assert api.driver.launched == ["main-0.1", "main-1.1"]


async def test_a_forced_drain_does_not_wait(api: Running) -> None:
    with worker_that_runs(api.fleet):
        server = api.driver["main-1.1"]
        await api.post("/replicas/main-1/drain", {"force": True})
        await until(lambda: "main-1.1" in api.driver.removed)
    assert server.grace_s == 0.0


async def test_restart_drains_first_and_keeps_the_slot(api: Running) -> None:
    with worker_that_runs(api.fleet):
        await api.post("/replicas/main-1/restart", {"by": "ann"})
        assert states(api.fleet)["main-1"] == "draining"
        api.fleet.take_telemetry(report(api.fleet.feed.revision, {"main-1.1": 0}))
        await until(lambda: "main-1.2" in api.driver.launched)
        await api.ready("main-0", "main-1")
    assert api.fleet.slots["main-1"].restarts == 0, "wanted, so it does not count as a failure"


async def test_restart_ends_a_backoff(api: Running) -> None:
    slot = api.fleet.slots["main-1"]
    api.driver.come_up_ready = False
    while slot.state.value != "crash_loop":
        if slot.instance is not None:
            api.driver[slot.instance.instance].end(code=1)
        await asyncio.sleep(0.005)
    slot.retry_at = 1e12
    api.driver.come_up_ready = True
    await api.post("/replicas/main-1/restart", {})
    await api.ready("main-0", "main-1")
    assert slot.failures == 0


@pytest.mark.parametrize("what", ["drain", "undrain", "restart"])
async def test_an_unknown_replica_is_named_with_those_there_are(api: Running, what: str) -> None:
    problem = await api.refused(f"/replicas/main-9/{what}", {}, 404)
    assert "there is no replica 'main-9'" in problem.message
    assert "main-0, main-1" in problem.hint


# ---------------------------------------------------------------- apply


async def apply(api: Running, **changes: Any) -> Accepted:
    return await api.post("/apply", {"path": str(api.write(**changes)), "by": "up"})


async def test_the_same_file_changes_nothing(api: Running) -> None:
    assert (await apply(api)).message == "it already is as tritonfleet.yaml says"
    await asyncio.sleep(0.05)
    assert api.driver.launched == ["main-0.1", "main-1.1"]


async def test_what_the_router_learns_with_the_table_is_a_change(api: Running) -> None:
    changes = {"router__queue": {"max_requests": 7}, "router__retry": "off"}
    assert (await apply(api, **changes)).message == "router: queue, retry changed"
    assert (await apply(api, **changes)).message == "it already is as tritonfleet.yaml says"


async def test_a_new_file_brings_new_replicas(api: Running) -> None:
    accepted = await apply(api, pools__main__triton__args=["--log-verbose=1"])
    assert accepted.message == "pool main: replicas are replaced one by one"
    await until(lambda: len(api.driver.removed) == 2)
    await until(lambda: [r.state.value for r in api.fleet.replicas()] == ["ready", "ready"])
    assert all(api.driver[r.instance].spec.args == ("--log-verbose=1",) for r in api.fleet.replicas())


async def test_a_pool_can_come_and_go(api: Running) -> None:
    pool = json.loads(api.write().read_text())["pools"]["main"]
    small = {**pool, "replicas": {"min": 1, "max": 2}}
    await apply(api, pools={"main": pool, "small": small})
    await api.ready("main-0", "main-1", "small-0")
    await apply(api, pools={"small": small})
    await api.ready("small-0")
    assert any("not in the fleet file" in reason for reason in reasons(api.fleet, "replica.draining"))


async def test_interpolation_uses_the_callers_environment(api: Running) -> None:
    path = api.write(pools__main__triton__env={"LEVEL": "${MY_LEVEL}"})
    await api.post("/apply", {"path": str(path), "environ": {"MY_LEVEL": "7"}})
    assert api.fleet.spec.pools["main"].triton.env == {"LEVEL": "7"}


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"router__listen": "127.0.0.1:9"}, 409, "router.listen: 127.0.0.1:8001 → 127.0.0.1:9"),
        ({"name": "other"}, 409, "name: paper → other"),
        ({"metrics__listen": "127.0.0.1:9"}, 409, "metrics.listen"),
        ({"pools__main__replicas__mix": 2}, 422, "pools.main.replicas.mix: unknown key"),
    ],
)
async def test_what_a_file_cannot_change_is_refused_and_nothing_is_changed(
    api: Running, changes: dict[str, Any], status: int, message: str
) -> None:
    before = api.fleet.spec
    problem = await api.refused("/apply", {"path": str(api.write(**changes))}, status)
    assert message in problem.message
    assert api.fleet.spec is before


async def test_a_size_set_by_hand_survives_a_new_file_within_its_bounds(api: Running) -> None:
    await api.post("/scale", {"sizes": {"main": 4}})
    await apply(api, pools__main__replicas={"min": 1, "initial": 1, "max": 6})
    assert api.fleet.size_of("main") == 4
    await apply(api, pools__main__replicas={"min": 1, "initial": 1, "max": 3})
    assert api.fleet.size_of("main") == 3
    assert api.fleet.autoscaler.reason("main") == "scaled to 4, bounds 1..3"


# ---------------------------------------------------------------- down


async def test_down_ends_everything_and_forgets_it(api: Running) -> None:
    accepted = await api.post("/down", {"by": "ann"})
    assert "draining first" in accepted.message
    await asyncio.wait_for(api.shutdown.done.wait(), 10)
    assert api.driver.servers == {}
    assert kinds(api.fleet)[-1] == "fleet.stopped"


async def test_while_it_goes_down_nothing_else_is_begun(api: Running) -> None:
    api.driver.stops.clear()
    await api.post("/down", {})
    snapshot: FleetSnapshot = await api.get("/snapshot", FleetSnapshot)
    assert snapshot.stopping
    assert "going down" in (await api.refused("/scale", {"sizes": {"main": 4}}, 409)).message
    assert (await api.post("/down", {})).message == "it is going down already"
    await api.post("/down", {"force": True})
    await asyncio.wait_for(api.shutdown.done.wait(), 10)
    assert api.driver.servers == {}


async def test_down_waits_for_a_launch_under_way_and_leaves_no_process(api: Running) -> None:
    api.driver.starts.clear()
    await api.post("/scale", {"sizes": {"main": 3}})
    await until(lambda: states(api.fleet).get("main-2") == "starting")
    await api.post("/down", {})
    await asyncio.sleep(0.05)
    api.driver.starts.set()
    await asyncio.wait_for(api.shutdown.done.wait(), 10)
    assert api.driver.servers == {}
    assert "main-2.1" in api.driver.removed

"""Router workers that others run: who counts as running, and what is told of them."""

from pathlib import Path
from time import time

import pytest
from controller_parts import PaperDriver, fleet_of, kinds, paths_of, reasons, report, spec_of, states, until

from tritonfleet.controller import commands, service_manager
from tritonfleet.controller.commands import RefusedError
from tritonfleet.controller.external_workers import SILENT_S, ExternalWorkers
from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.journal import Journal
from tritonfleet.controller.router_command import settings_digest
from tritonfleet.controller.router_workers import RouterWorkers, make_workers
from tritonfleet.controller.shutdown import Shutdown
from tritonfleet.controller.telemetry import Telemetry
from tritonfleet.core.wire import DownRequest, ScaleRequest


class Parts:
    def __init__(self, folder: Path, count: int = 1) -> None:
        self.journal, self.telemetry = Journal(paths_of(folder).journal), Telemetry()
        self.spec = spec = spec_of(folder, router={"external": True, "workers": count}).router
        self.workers = ExternalWorkers("paper", spec, paths_of(folder), self.journal, self.telemetry)
        self.workers._began -= 2 * SILENT_S  # long ago

    def reported(self, ago_s: float = 0.0, **how: object) -> None:
        as_it_should = {"settings": settings_digest(self.spec)}
        said = report(7, **as_it_should | how)  # type: ignore[arg-type] # keywords of several types, as `report` takes them
        self.telemetry.take(said, time() - ago_s, self.workers.number_of(said))

    def look(self) -> list[str]:
        before = self.journal.seq
        self.workers.look(time())
        return [f"{event.type}: {event.reason}" for event in self.journal.since(before)]


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


def test_the_file_says_whose_they_are(tmp_path: Path) -> None:
    for external, kind in ((False, RouterWorkers), (True, ExternalWorkers)):
        spec = spec_of(tmp_path, router={"external": external}).router
        made = make_workers("f", spec, paths_of(tmp_path), Journal(tmp_path / "j"), Telemetry())
        assert type(made) is kind


def test_one_that_reports_runs_and_is_told_once(parts: Parts) -> None:
    assert parts.workers.running == ()
    parts.reported(pid=11)
    assert parts.workers.running == (0,)
    assert parts.look() == ["router.joined: worker 0 reports (pid 11)"]
    assert parts.look() == []
    (info,) = parts.workers.infos(time())
    assert (info.pid, info.running, info.restarts, info.table_revision) == (11, True, 0, 7)


def test_another_process_in_its_place_is_a_restart(parts: Parts) -> None:
    parts.reported(pid=11)
    parts.look()
    parts.reported(pid=11, started_at=5.0)  # in a container the pid may well be the same
    assert parts.look() == ["router.joined: worker 0 reports (pid 11)"]
    assert parts.workers.infos(time())[0].restarts == 1


def test_of_two_that_report_as_one_both_may_hold_calls(parts: Parts) -> None:
    """One was started beside the other: by mistake, or to take over while that finishes its calls."""
    parts.reported(pid=11, started_at=5.0)
    parts.look()
    for _ in range(3):
        parts.reported(pid=22, started_at=9.0)
        parts.reported(pid=11, started_at=5.0)
    assert parts.look() == ["router.joined: worker 0 reports (pid 22), and so does pid 11"]
    assert parts.look() == []
    first, second = parts.workers.infos(time())
    assert (first.pid, first.restarts, second.pid, second.leaving) == (22, 1, 11, False)
    parts.reported(pid=11, started_at=5.0, in_flight={"main-0.1": 3}, listening=False)
    assert parts.workers.infos(time())[1].leaving
    drained = parts.telemetry.is_drained("main-0.1", parts.workers.running, 7, 0.0, time())
    assert (len(parts.workers.running), drained) == (2, False)
    parts.reported(ago_s=SILENT_S + 2, pid=11, started_at=5.0)
    assert parts.look() == []
    assert parts.workers.running == (0,)


def test_the_older_of_two_is_the_worker_again_when_the_younger_goes(parts: Parts) -> None:
    parts.reported(pid=22, started_at=9.0)
    parts.reported(pid=11, started_at=5.0)  # the controller was started again: it hears the younger first
    assert [one.pid for one in parts.workers.infos(time())] == [22, 11]
    parts.look()
    parts.reported(ago_s=SILENT_S + 2, pid=22, started_at=9.0)
    assert parts.look() == [f"router.lost: worker 0 has not reported for {SILENT_S:g} s"]
    (only,) = parts.workers.infos(time())
    assert (only.index, only.pid, only.running) == (0, 11, True)
    parts.reported(pid=11, started_at=5.0)
    assert parts.look() == []
    assert parts.workers.running == (0,)


def test_one_that_was_started_with_other_settings_is_told(parts: Parts) -> None:
    parts.reported(pid=11)
    assert not parts.workers.infos(time())[0].outdated
    for other in ({"listen": "127.0.0.1:9"}, {"limits": {"streams": 7}}, {"management": ["10.0.0.0/8"]}):
        changed = parts.spec.model_validate(parts.spec.model_dump(exclude_unset=True) | other)
        parts.reported(pid=11, settings=settings_digest(changed))
        (info,) = parts.workers.infos(time())
        assert (info.running, info.outdated) == (True, True)
        assert "other settings" in info.reason


def test_settings_that_reach_it_with_the_table_and_paths_make_no_difference(tmp_path: Path) -> None:
    said = {"least_work": "/a/secret", "round_robin": "/b/secret"}
    one, other = (
        spec_of(tmp_path, router={"policy": policy, "management": [f"token:{secret}"]}).router
        for policy, secret in said.items()
    )
    assert settings_digest(one) == settings_digest(other)


def test_one_whose_index_the_file_does_not_have_may_hold_calls_too(parts: Parts) -> None:
    """It was started when `router.workers` was 2."""
    parts.reported(pid=11)
    parts.reported(pid=22, worker=1)
    assert parts.workers.running == (0, 1)
    assert parts.look()[1] == "router.joined: worker 1 reports (pid 22), though router.workers is 1"


def test_silence_is_unknown_for_a_while_then_the_end(parts: Parts) -> None:
    parts.reported(ago_s=SILENT_S - 2, pid=11)
    assert parts.workers.running == (0,)
    assert parts.look() == ["router.joined: worker 0 reports (pid 11)"]
    parts.reported(ago_s=SILENT_S + 2, pid=11)
    assert parts.workers.running == ()
    assert parts.look() == [f"router.lost: worker 0 has not reported for {SILENT_S:g} s"]
    assert parts.look() == []
    (info,) = parts.workers.infos(time())
    assert not info.running
    assert "`tritonfleet router` starts it" in info.reason
    parts.reported(pid=11)
    assert parts.look() == ["router.joined: worker 0 reports (pid 11)"]
    assert parts.workers.infos(time())[0].restarts == 0  # the same process: only its reports had failed


def test_a_controller_that_has_just_started_takes_nobody_for_gone(tmp_path: Path) -> None:
    parts = Parts(tmp_path, count=2)
    parts.workers._began = time()
    assert parts.workers.running == (0, 1)
    (_, second) = parts.workers.infos(time())
    assert not second.running  # which is what `up --wait` waits for
    assert "`tritonfleet router --worker 1` starts it" in second.reason


async def up(folder: Path) -> tuple[Fleet, PaperDriver]:
    driver = PaperDriver()
    fleet = fleet_of(folder, driver, spec_of(folder, router={"external": True, "drain_timeout": 20}))
    fleet.feed.open()
    fleet.spawn_task(fleet.run())
    await until(lambda: list(states(fleet).values()) == ["ready", "ready"])
    return fleet, driver


async def test_a_service_manager_does_not_wait_for_a_router_that_may_wait_for_it(tmp_path: Path) -> None:
    fleet, _ = await up(tmp_path)
    assert service_manager.progress(fleet) == (True, "main: 2 of 2 ready; router: 0 of 1 workers")
    fleet.workers._began -= 2 * SILENT_S  # its replicas took longer
    assert service_manager.progress(fleet) == (True, "main: 2 of 2 ready; router: 0 of 1 workers")
    fleet.take_telemetry(report(fleet.feed.revision))
    assert service_manager.progress(fleet) == (True, "main: 2 of 2 ready")
    await fleet.close()


async def test_down_lets_the_calls_of_routers_end_before_the_replicas_do(tmp_path: Path) -> None:
    fleet, driver = await up(tmp_path)
    fleet.take_telemetry(report(fleet.feed.revision, {"main-0.1": 1}))
    down = Shutdown(fleet)
    down.begin(DownRequest())
    await until(lambda: set(states(fleet).values()) == {"draining"})
    fleet.take_telemetry(report(fleet.feed.revision, {"main-0.1": 1}))
    assert driver["main-0.1"].exit is None
    fleet.take_telemetry(report(fleet.feed.revision, {"main-0.1": 0}))
    await until(down.done.is_set)
    assert driver.removed == ["main-0.1", "main-1.1"]
    assert kinds(fleet)[-1] == "fleet.stopped"
    await fleet.close()


def test_a_change_that_they_must_be_started_for_says_so(tmp_path: Path) -> None:
    before = spec_of(tmp_path, router={"external": True})
    after = spec_of(tmp_path, router={"external": True, "limits": {"streams": 7}})
    with pytest.raises(RefusedError) as caught:
        commands._check_unchanged(before, after)
    assert "start the router's workers again, where they run" in caught.value.problem.hint


async def test_a_replica_that_gets_ready_while_the_fleet_goes_down_gets_no_calls(tmp_path: Path) -> None:
    """Or those would be lost with it: only what serves when `down` begins is drained."""
    fleet, driver = await up(tmp_path)
    driver.come_up_ready = False
    commands.scale(fleet, ScaleRequest({"main": 3}))
    await until(lambda: states(fleet).get("main-2") == "loading")
    fleet.take_telemetry(report(fleet.feed.revision, {"main-0.1": 1}))
    server = driver["main-2.1"]
    down = Shutdown(fleet)
    down.begin(DownRequest())
    await until(lambda: states(fleet)["main-0"] == "draining")
    server.models = driver["main-0.1"].models
    await until(lambda: states(fleet)["main-2"] != "loading")
    fleet.publish()
    assert [row.id for row in fleet.feed.table.replicas if not row.draining] == []
    fleet.take_telemetry(report(fleet.feed.revision))
    await until(down.done.is_set)
    await fleet.close()


async def test_a_fleet_that_began_anew_has_no_table_that_a_router_knew_before(tmp_path: Path) -> None:
    fleet, _ = await up(tmp_path)
    assert fleet.feed.revision >= int(fleet.started_at)
    assert not reasons(fleet, "controller.error")
    await fleet.close()

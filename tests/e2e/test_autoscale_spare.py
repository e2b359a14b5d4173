"""A real fleet with one replica to spare loses one under load, and gets a schedule while it runs."""

import os
import signal

import pytest
from running_fleet import RunningFleet, running_fleet
from slow_work import Work

pytestmark = [pytest.mark.triton, pytest.mark.timeout(240), pytest.mark.xdist_group("fleet_autoscale")]

POOL = {"models": ["text_work"], "replicas": {"min": 1, "max": 3}}
AUTOSCALE = {
    "spare": 1,
    "scale_up": {"window": "4s", "panic_window": "2s"},
    "scale_down": {"stabilization": "1h"},
}


def pool_of(fleet: RunningFleet) -> tuple[int, str]:
    pool = fleet.snapshot()["pools"][0]
    return pool["desired"], pool["reason"]


def test_a_kill_is_borne_by_the_spare_one_and_a_schedule_sets_the_minimum(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with running_fleet(tmp_path_factory.mktemp("spare"), **POOL, autoscale=AUTOSCALE) as fleet:
        with Work(fleet.address, threads=1, words=20, pause_s=0.1) as work:
            fleet.until(lambda f: pool_of(f)[0] == 2, "one is needed, one is spare")
            assert "and 1 spare" in pool_of(fleet)[1]
            fleet.ready(2)
            pid = fleet.pids()["main-0"]
            os.kill(pid, signal.SIGKILL)
            fleet.until(lambda f: f.pids().get("main-0", pid) != pid, "it is replaced")
            fleet.ready(2)
            assert pool_of(fleet)[0] == 2, "a loss is no reason to grow"

            window = {"cron": "* * * * *", "for": "1h", "min": 3}
            before = fleet.pids()
            fleet.write(**POOL, autoscale={**AUTOSCALE, "schedule": [window]})
            fleet.cli("up", "-d", "-y")
            fleet.until(lambda f: pool_of(f)[0] == 3, "the schedule is followed")
            assert 'schedule "* * * * *" (UTC) has at least 3' in pool_of(fleet)[1]
            fleet.ready(3)
            assert fleet.pids().items() >= before.items(), "a schedule replaces nobody"
        assert work.done > 10
        assert work.failures == []

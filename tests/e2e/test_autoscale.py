"""The load sets the size of a real fleet: it grows, holds a pin, shrinks, and no request fails."""

from collections.abc import Iterator

import pytest
from running_fleet import RunningFleet, running_fleet
from slow_work import Work

pytestmark = [pytest.mark.triton, pytest.mark.timeout(240), pytest.mark.xdist_group("fleet_autoscale")]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """Windows short enough for a test; one request at a time keeps a replica busy."""
    with running_fleet(
        tmp_path_factory.mktemp("autoscale"),
        models=["text_work"],
        replicas={"min": 1, "max": 3},
        autoscale={
            "scale_up": {"window": "4s", "panic_window": "2s"},
            "scale_down": {"stabilization": "8s", "step": "2s"},
        },
    ) as fleet:
        yield fleet


def desired(fleet: RunningFleet) -> int:
    return int(fleet.snapshot()["pools"][0]["desired"])


def test_load_grows_the_fleet_a_pin_holds_and_the_fleet_shrinks_when_the_load_is_gone(
    fleet: RunningFleet,
) -> None:
    assert desired(fleet) == 1
    with Work(fleet.address, threads=6) as work:
        fleet.until(lambda f: desired(f) == 3, "the load has grown the fleet")
        fleet.ready(3)
        grown = fleet.events("pool.autoscaled")
        assert grown[0]["data"]["before"] == 1
        # Six at once where one is ready: the panic window alone asks for more than twice that.
        assert grown[0]["data"]["panic"]
        assert (
            "replicas' worth of work arrives" in grown[0]["reason"] or "usefully hold" in grown[0]["reason"]
        )
        assert "autoscaled: " in fleet.snapshot()["pools"][0]["reason"]
        explained = fleet.cli("autoscale", "explain").stdout
        assert "target_utilization" in explained
        assert "occupancy" in explained

        fleet.cli("scale", "2", "--for", "30m")
        fleet.until(lambda f: len(f.replicas()) == 2, "the pin is carried out")
        # Under the load that asked for three, a pin holds: decisions go on, sizes do not change.
        before = len(fleet.events("pool.autoscaled"))
        fleet.until(
            lambda f: any("(not done: pinned)" in e["reason"] for e in f.events("pool.would")), "a wish"
        )
        assert desired(fleet) == 2
        assert len(fleet.events("pool.autoscaled")) == before
        assert "pinned" in fleet.cli("autoscale", "status").stdout

        fleet.cli("scale", "auto")
        fleet.until(lambda f: desired(f) == 3, "without the pin the load is followed again")
        fleet.ready(3)
    fleet.until(lambda f: desired(f) == 1, "without load the fleet shrinks", 90)
    fleet.until(lambda f: len(f.replicas()) == 1, "and what it does not need is gone")
    steps = [(e["data"]["before"], e["data"]["after"]) for e in fleet.events("pool.autoscaled")][-2:]
    assert steps == [(3, 2), (2, 1)]
    assert work.done > 100
    assert work.failures == []


def test_pause_and_resume(fleet: RunningFleet) -> None:
    fleet.cli("autoscale", "pause", "--for", "1h")
    assert fleet.snapshot()["pools"][0]["pinned"]
    assert "paused by hand" in fleet.cli("ps").stdout
    fleet.cli("autoscale", "pause", check=1)  # there is nothing left to pause
    fleet.cli("autoscale", "resume")
    assert not fleet.snapshot()["pools"][0]["pinned"]
    fleet.cli("autoscale", "resume", check=1)

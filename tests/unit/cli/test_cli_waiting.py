"""When a wait is over, and what it says it waits for; what `up` says it would change."""

from dataclasses import replace

from fleet_samples import HASH, NEW_HASH, pool, replica, snapshot, worker

from tritonfleet.cli.plan import PoolWish, plan
from tritonfleet.cli.waiting import changed, settled
from tritonfleet.core.model import ReplicaState
from tritonfleet.core.wire import RouterInfo


def wish(name: str = "main", **changes: object) -> PoolWish:
    values: dict[str, object] = {"name": name, "minimum": 1, "maximum": 4, "initial": 2, "config_hash": HASH}
    return PoolWish(**(values | changes))  # type: ignore[arg-type]


def test_a_fleet_of_its_size_is_settled() -> None:
    assert settled(snapshot()).done


def test_what_is_missing_is_named() -> None:
    fleet = snapshot(
        replicas=(replica("main-0"), replica("main-1", ReplicaState.LOADING)), pools=(pool(ready=1),)
    )
    assert settled(fleet).waiting_for == "main: 1 of 2 ready (main-1 loading)"


def test_a_slot_that_drain_emptied_is_not_waited_for() -> None:
    emptied = replica("main-1", ReplicaState.PENDING, held=True, handle="")
    assert settled(snapshot(replicas=(replica("main-0"), emptied))).done
    draining = replica("main-1", ReplicaState.DRAINING, held=True)
    assert settled(snapshot(replicas=(replica("main-0"), draining))).waiting_for


def test_scaling_down_is_over_when_the_last_one_is_gone() -> None:
    fleet = snapshot(
        replicas=(replica("main-0"), replica("main-1", ReplicaState.DRAINING)), pools=(pool(desired=1),)
    )
    assert settled(fleet).waiting_for == "main: 1 of 1 ready (main-1 draining)"
    assert settled(replace(fleet, replicas=fleet.replicas[:1])).done


def test_replicas_of_an_old_configuration_do_not_count() -> None:
    fleet = snapshot(pools=(pool(config_hash=NEW_HASH),))
    assert settled(fleet).waiting_for == "main: 0 of 2 ready (main-0 ready, main-1 ready)"


def test_zero_replicas_are_settled_when_none_is_left() -> None:
    assert settled(snapshot(pools=(pool(desired=0),), replicas=())).done


def test_the_router_must_run_and_know_the_replicas() -> None:
    dead = worker(running=False, reason="address in use")
    fleet = snapshot(router=RouterInfo("127.0.0.1:8001", "least_requests", (dead,)))
    assert settled(fleet).waiting_for == "router worker 0: address in use"
    outdated = worker(outdated=True, reason="it was started with other settings")
    fleet = snapshot(router=RouterInfo("127.0.0.1:8001", "least_requests", (outdated,)))
    assert settled(fleet).waiting_for == "router worker 0: it was started with other settings"
    behind = worker(table_revision=6)
    fleet = snapshot(router=RouterInfo("127.0.0.1:8001", "least_requests", (behind,)))
    assert settled(fleet).waiting_for == "router worker 0 to learn of the replicas"


def test_only_the_pools_asked_for_are_awaited() -> None:
    fleet = snapshot(pools=(pool(), pool("image", desired=1, ready=0)))
    assert settled(fleet, {"main"}).done
    assert settled(fleet).waiting_for == "image: 0 of 1 ready"


def test_a_crash_loop_ends_the_wait_unless_it_is_of_an_old_configuration() -> None:
    looping = replica("main-1", ReplicaState.CRASH_LOOP)
    fleet = snapshot(replicas=(replica("main-0"), looping))
    assert settled(fleet).broken == (looping,)
    assert settled(fleet, {"other"}).broken == ()
    assert settled(replace(fleet, pools=(pool(config_hash=NEW_HASH),))).broken == ()


def test_a_router_worker_that_does_not_stay_up_ends_the_wait() -> None:
    dead = worker(running=False, reason="pid 7 exited with code 2: no such file", short_lives=2)
    fleet = snapshot(router=RouterInfo("127.0.0.1:8001", "least_requests", (dead,)))
    assert settled(fleet).broken_workers == ()
    again = replace(dead, short_lives=3)
    assert settled(replace(fleet, router=replace(fleet.router, workers=(again,)))).broken_workers == (again,)


def test_a_failure_that_will_be_retried_does_not_end_the_wait() -> None:
    verdict = settled(snapshot(replicas=(replica("main-0"), replica("main-1", ReplicaState.FAILED))))
    assert not verdict.broken
    assert verdict.waiting_for == "main: 1 of 2 ready (main-1 failed)"


def test_changes_between_two_pictures() -> None:
    news, gone, before = changed({}, snapshot())
    assert [r.id for r in news] == ["main-0", "main-1"]
    later = snapshot(replicas=(replica("main-0", generation=2),))
    news, gone, before = changed(before, later)
    assert [r.instance for r in news] == ["main-0.2"]
    assert gone == ["main-1"]
    assert changed(before, later)[:2] == ([], [])


def test_plan_of_a_fleet_that_does_not_run() -> None:
    assert plan([wish()], None).changes == (f"start pool main with 2 replicas, configuration {HASH}",)
    assert plan([wish(size=1)], None).changes == (f"start pool main with 1 replica, configuration {HASH}",)


def test_plan_of_no_change() -> None:
    assert plan([wish()], snapshot()) == plan([], snapshot(pools=()))


def test_plan_keeps_a_size_that_scale_pinned_within_the_new_bounds() -> None:
    fleet = snapshot(pools=(pool(desired=2, pinned=True),))
    assert plan([wish(initial=1)], fleet).changes == ()
    shrunk = plan([wish(maximum=1, initial=1)], fleet)
    assert shrunk.changes == ("scale pool main from 2 to 1", "bounds of pool main: 1..4 become 1..1")
    assert shrunk.removed == ("main-1",)


def test_plan_of_a_size_that_nobody_pinned_is_the_files() -> None:
    shrunk = plan([wish(initial=1)], snapshot())
    assert shrunk.changes == ("scale pool main from 2 to 1",)
    assert shrunk.removed == ("main-1",)
    assert plan([wish(initial=3)], snapshot()).changes == ("scale pool main from 2 to 3",)


def test_plan_of_a_pool_whose_file_takes_it_from_its_load() -> None:
    """What the load has set is the size only for as long as the file says that it does."""
    fleet = snapshot(pools=(pool(desired=2, autoscaled=True),))
    assert plan([wish(initial=1, autoscaled=True)], fleet).changes == ()
    taken = plan([wish(initial=1)], fleet)  # no autoscale section any more, or dry_run
    assert taken.changes == ("scale pool main from 2 to 1",)
    assert taken.removed == ("main-1",)


def test_plan_of_a_size_on_the_command_line() -> None:
    assert plan([wish(size=1)], snapshot()).removed == ("main-1",)
    assert plan([wish(size=3)], snapshot()).removed == ()


def test_plan_of_a_new_configuration_replaces_and_removes_nothing() -> None:
    changes = plan([wish(config_hash=NEW_HASH)], snapshot())
    assert changes.replaced == ("main-0", "main-1")
    assert changes.removed == ()
    assert changes.changes == (
        f"replace the replicas of pool main one by one: its configuration changes from {HASH} to {NEW_HASH}",
    )


def test_plan_of_pools_that_come_and_go() -> None:
    changes = plan([wish("image")], snapshot())
    assert changes.changes == (
        f"start pool image with 2 replicas, configuration {HASH}",
        "remove pool main with 2 replicas ready",
    )
    assert changes.removed == ("main-0", "main-1")


def test_replicas_that_are_not_ready_go_without_being_asked_about() -> None:
    fleet = snapshot(replicas=(replica("main-0"), replica("main-1", ReplicaState.LOADING)))
    assert plan([wish(size=1)], fleet).removed == ()

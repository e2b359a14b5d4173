"""What a rolling change has come to."""

import pytest

from tritonfleet.core.model import Replica, ReplicaState
from tritonfleet.core.rollout import (
    LaunchFailure,
    PoolProgress,
    Revision,
    RolloutStatus,
    last_asked,
    progress,
)

OLD, NEW = "old", "new"


def replica(ordinal: int, state: str, config_hash: str = NEW, *, held: bool = False) -> Replica:
    name = f"main-{ordinal}"
    return Replica(name, "main", 1, ReplicaState(state), 0.0, "because", config_hash, held=held)


def come_to(*replicas: Replica, size: int = 2, **failures: LaunchFailure) -> PoolProgress:
    named = {name.replace("_", "-"): failure for name, failure in failures.items()}
    return progress("main", NEW, size, replicas, named)


@pytest.mark.parametrize(
    ("replicas", "reason"),
    [
        ((), "0 of 2 ready with configuration new"),
        (
            (replica(0, "ready", OLD), replica(1, "ready", OLD)),
            "0 of 2 ready with configuration new, 2 to replace",
        ),
        (
            (replica(0, "ready"), replica(1, "draining", OLD)),
            "1 of 2 ready with configuration new, 1 to replace",
        ),
        ((replica(0, "ready"), replica(1, "loading")), "1 of 2 ready with configuration new"),
        ((replica(0, "ready"),), "1 of 2 ready with configuration new"),
        ((replica(0, "ready"), replica(1, "failed")), "1 of 2 ready with configuration new"),
    ],
)
def test_it_goes_on(replicas: tuple[Replica, ...], reason: str) -> None:
    found = come_to(*replicas)
    assert (found.state, found.reason) == ("rolling", reason)


@pytest.mark.parametrize(
    "replicas",
    [
        (replica(0, "ready"), replica(1, "ready")),
        (replica(0, "ready"), replica(1, "pending")),  # there is no device for the other one
        (replica(0, "ready"), replica(1, "pending", held=True)),  # a person emptied it
        (replica(0, "ready"), replica(1, "ready"), replica(2, "draining")),  # one too many, of the new ones
    ],
)
def test_it_is_done(replicas: tuple[Replica, ...]) -> None:
    assert come_to(*replicas).state == "deployed"


def test_what_a_change_of_a_sleeping_pool_is_worth_shows_when_it_wakes() -> None:
    asleep = come_to(size=0)
    assert (asleep.state, asleep.reason) == (
        "rolling",
        "no replica is wanted now; the next one shows what configuration new does",
    )
    assert come_to(replica(0, "loading"), size=1).state == "rolling"
    assert come_to(replica(0, "ready"), size=1).state == "deployed"
    assert come_to(replica(0, "crash_loop"), size=1).state == "failed"


def test_a_crash_loop_of_the_new_configuration_fails_it_and_one_of_the_old_does_not() -> None:
    failed = come_to(
        replica(0, "ready", OLD), replica(1, "crash_loop"), main_1=LaunchFailure("exited with code 1")
    )
    assert (failed.state, failed.replica) == ("failed", "main-1")
    assert failed.reason == "main-1 fails again and again: exited with code 1"
    assert come_to(replica(0, "ready", OLD), replica(1, "crash_loop", OLD)).state == "rolling"


def test_what_no_further_try_can_mend_fails_it_at_once() -> None:
    slow = come_to(replica(0, "failed"), main_0=LaunchFailure("not ready within 300 s", hopeless=True))
    assert (slow.state, slow.reason) == ("failed", "main-0 failed: not ready within 300 s")
    assert come_to(replica(0, "failed"), main_0=LaunchFailure("exited with code 1")).state == "rolling"


def test_a_rollback_is_not_what_was_asked_for() -> None:
    asked = Revision(2, 0.0, "up", "tritonfleet.yaml", "something", status="rolled_back")
    rollback = Revision(3, 0.0, "rollback", "tritonfleet.yaml", "pool main as in revision 1")
    assert last_asked(RolloutStatus((asked, rollback), ())) == asked
    assert last_asked(RolloutStatus((), ())) is None

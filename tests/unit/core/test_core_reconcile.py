"""What is wanted and what is there → what to do. The examples first, then a fleet of paper that obeys."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.core.model import Device, DeviceKind, Replica, ReplicaState
from tritonfleet.core.reconcile import Action, PoolTarget, Worn, reconcile

NOW = 1000.0
S = ReplicaState


def devices(count: int = 4) -> tuple[Device, ...]:
    return tuple(Device(f"cpu{index}", DeviceKind.CPU) for index in range(count))


def target(size: int, config: str = "new", name: str = "main", per_device: int = 1) -> PoolTarget:
    return PoolTarget(name, size, config, per_device, why="scaled by user")


def replica(ordinal: int, state: ReplicaState = S.READY, config: str = "new", **more: object) -> Replica:
    has_process = state not in (S.PENDING, S.FAILED, S.CRASH_LOOP)
    values: dict[str, object] = {
        "id": f"main-{ordinal}",
        "pool": "main",
        "generation": 1,
        "state": state,
        "since": NOW - 10,
        "reason": "",
        "config_hash": config,
        "devices": (f"cpu{ordinal}",) if has_process else (),
    }
    return Replica(**(values | more))  # type: ignore[arg-type] # each test names real fields


def brief(actions: list[Action]) -> list[str]:
    assert all(action.reason for action in actions)
    return [f"{action.kind} {action.replica}" for action in actions]


def decide(size: int, *replicas: Replica, slots: int = 4, **more: frozenset[str]) -> list[str]:
    return brief(reconcile([target(size)], replicas, devices(slots), now=NOW, **more))


# ---------------------------------------------------------------- size


def test_nothing_to_do_is_nothing_done() -> None:
    assert decide(2, replica(0), replica(1)) == []


def test_missing_replicas_take_the_lowest_free_ordinals() -> None:
    assert decide(3, replica(1)) == ["create main-0", "create main-2"]


def test_a_slot_that_still_drains_is_not_given_out_again() -> None:
    assert decide(2, replica(0), replica(1, S.DRAINING)) == ["create main-2"]


def test_the_reason_of_a_size_has_its_numbers() -> None:
    (action, _) = reconcile([target(2)], [], devices(), now=NOW)
    assert action.reason == "2 wanted, 0 there (scaled by user)"


def test_a_pending_replica_is_launched_where_there_is_room() -> None:
    (action,) = reconcile([target(2)], [replica(0), replica(1, S.PENDING)], devices(), now=NOW)
    assert (action.kind, action.replica, action.devices) == ("launch", "main-1", ("cpu1",))


def test_without_room_it_stays_pending_and_says_why_once() -> None:
    waiting = replica(1, S.PENDING)
    (action,) = reconcile([target(2)], [replica(0), waiting], devices(1), now=NOW)
    assert (action.kind, action.reason) == ("pending", "no free device: all 1 are taken (1 per device)")
    assert decide(2, replica(0), replace(waiting, reason=action.reason), slots=1) == []


def test_two_pending_ones_do_not_get_the_same_device() -> None:
    actions = reconcile([target(2)], [replica(0, S.PENDING), replica(1, S.PENDING)], devices(), now=NOW)
    assert [action.devices for action in actions] == [("cpu0",), ("cpu1",)]


def test_the_highest_ordinal_goes_first() -> None:
    assert decide(1, replica(0), replica(1), replica(2)) == ["drain main-2", "drain main-1"]


def test_those_that_serve_nobody_go_before_those_that_serve() -> None:
    fleet = (replica(0, S.CRASH_LOOP, retry_at=NOW + 9), replica(1, S.LOADING), replica(2), replica(3))
    assert decide(3, *fleet) == ["forget main-0"]
    assert decide(2, *fleet) == ["forget main-0", "stop main-1"]
    assert decide(1, *fleet) == ["forget main-0", "stop main-1", "drain main-3"]


def test_a_pool_that_left_the_file_leaves() -> None:
    actions = reconcile([], [replica(0), replica(1, S.LOADING), replica(2, S.FAILED)], devices(), now=NOW)
    assert brief(actions) == ["drain main-0", "stop main-1", "forget main-2"]
    assert "not in the fleet file" in actions[0].reason


def test_pools_share_devices_by_the_parts_they_take() -> None:
    both = [target(1), target(3, name="small", per_device=2)]
    small = [
        replace(replica(ordinal, S.PENDING), id=f"small-{ordinal}", pool="small") for ordinal in range(3)
    ]
    actions = reconcile(both, [replica(0), *small], devices(2), now=NOW)
    assert brief(actions) == ["launch small-0", "launch small-1", "pending small-2"]


# ---------------------------------------------------------------- failures and drains


def test_a_failed_one_starts_again_when_its_time_has_come() -> None:
    assert decide(1, replica(0, S.FAILED, retry_at=NOW + 0.1)) == []
    assert decide(1, replica(0, S.FAILED, retry_at=NOW)) == ["launch main-0"]
    assert decide(1, replica(0, S.CRASH_LOOP, retry_at=NOW - 1)) == ["launch main-0"]


def test_a_drained_one_is_stopped() -> None:
    draining = replica(1, S.DRAINING, drain_deadline=NOW + 50, in_flight=0)
    assert decide(1, replica(0), draining) == []
    assert decide(1, replica(0), draining, drained=frozenset({"main-1"})) == ["stop main-1"]


def test_the_drain_timeout_ends_a_drain_and_counts_what_it_cuts_off() -> None:
    late = replica(1, S.DRAINING, drain_deadline=NOW, in_flight=3)
    (action,) = reconcile([target(1)], [replica(0), late], devices(), now=NOW)
    assert (action.kind, action.reason) == ("stop", "drain timeout with 3 requests in flight")
    (action,) = reconcile([target(1)], [replica(0), replace(late, in_flight=None)], devices(), now=NOW)
    assert "an unknown number of requests" in action.reason
    (action,) = reconcile([target(1)], [replica(0), replace(late, in_flight=0)], devices(), now=NOW)
    assert action.reason == "drain timeout with a stream or a sequence open"


def test_a_slot_that_is_held_stays_empty_and_counts() -> None:
    assert decide(2, replica(0), replica(1, S.PENDING), held=frozenset({"main-1"})) == []


def test_a_slot_that_only_restarts_is_not_replaced() -> None:
    assert decide(2, replica(0), replica(1, S.STOPPING), returning=frozenset({"main-1"})) == []


# ---------------------------------------------------------------- a new configuration


def test_a_replacement_comes_before_the_old_one_goes() -> None:
    old = (replica(0, config="old"), replica(1, config="old"))
    assert decide(2, *old) == ["create main-2"]
    assert decide(2, *old, replica(2, S.LOADING)) == []
    assert decide(2, *old, replica(2)) == ["drain main-1"]
    assert decide(2, old[0], replica(1, S.DRAINING, config="old"), replica(2)) == []
    assert decide(2, old[0], replica(2)) == ["create main-1"]


def test_without_a_free_device_an_old_one_makes_room() -> None:
    old = (replica(0, config="old"), replica(1, config="old"))
    assert decide(2, *old, slots=2) == ["drain main-1"]


def test_an_old_one_that_serves_nobody_is_replaced_first() -> None:
    old = (replica(0, config="old"), replica(1, S.CRASH_LOOP, config="old", retry_at=NOW + 60))
    assert decide(2, *old) == ["forget main-1"]


def test_a_new_configuration_that_fails_takes_no_further_replica_along() -> None:
    failing = replica(2, S.CRASH_LOOP, retry_at=NOW + 60)
    assert decide(2, replica(0, config="old"), replica(1, config="old"), failing) == []


def test_a_held_slot_does_not_hold_up_the_others() -> None:
    held = replica(1, S.PENDING, config="old")
    assert decide(2, replica(0, config="old"), held, held=frozenset({"main-1"})) == ["create main-2"]


def test_one_that_finds_no_device_does_not_hold_up_the_others() -> None:
    """More wanted than fit: the one that waits cannot become ready before an old one goes."""
    waiting = replica(2, S.PENDING, reason="no free device: all 2 are taken (1 per device)")
    assert decide(3, replica(0, config="old"), replica(1, config="old"), waiting, slots=2) == ["drain main-1"]


# ---------------------------------------------------------------- worn out

WORN = Worn("its GPU was taken from it")


def decide_worn(size: int, *replicas: Replica, slots: int = 4, worn: dict[str, Worn]) -> list[Action]:
    return reconcile([target(size)], replicas, devices(slots), worn=worn, now=NOW)


def test_a_worn_one_goes_when_its_replacement_is_ready() -> None:
    worn = {"main-0": WORN}
    (create,) = decide_worn(1, replica(0), worn=worn)
    assert (create.kind, create.replica) == ("create", "main-1")
    assert create.reason == "replacement for main-0: its GPU was taken from it"
    assert decide_worn(1, replica(0), replica(1, S.LOADING), worn=worn) == []
    (drain,) = decide_worn(1, replica(0), replica(1), worn=worn)
    assert (drain.kind, drain.replica, drain.reason) == ("drain", "main-0", WORN.reason)
    assert decide_worn(1, replica(0, S.DRAINING), replica(1), worn=worn) == []


def test_without_a_free_device_worn_ones_make_room_one_at_a_time() -> None:
    worn = {"main-0": WORN, "main-1": WORN}
    assert brief(decide_worn(2, replica(0), replica(1), slots=2, worn=worn)) == ["drain main-1"]
    leaving = (replica(0), replica(1, S.DRAINING), replica(2, S.PENDING, reason="no free device"))
    assert "drain main-0" not in brief(decide_worn(2, *leaving, slots=2, worn=worn))
    assert decide_worn(2, replica(0), replica(2, S.LOADING, devices=("cpu1",)), slots=2, worn=worn) == []
    ready = (replica(0), replica(2, devices=("cpu1",)))
    assert brief(decide_worn(2, *ready, slots=2, worn=worn)) == ["drain main-0"]


def test_the_last_ready_one_is_kept_where_nothing_can_take_its_place_unless_it_does_harm() -> None:
    (kept,) = decide_worn(1, replica(0), slots=1, worn={"main-0": WORN})
    assert (kept.kind, kept.replica) == ("keep", "main-0")
    assert kept.reason.endswith("it is the last one ready, and no device is free for a replacement beside it")
    told = replica(0, reason=kept.reason)
    assert decide_worn(1, told, slots=1, worn={"main-0": WORN}) == []  # said once
    harmful = {"main-0": replace(WORN, urgent=True)}
    assert brief(decide_worn(1, told, slots=1, worn=harmful)) == ["drain main-0"]


def test_a_replacement_that_fails_costs_no_worn_one() -> None:
    failing = replica(1, S.CRASH_LOOP, retry_at=NOW + 60)
    assert decide_worn(1, replica(0), failing, worn={"main-0": WORN}) == []


# ---------------------------------------------------------------- a fleet that obeys


@dataclass
class PaperFleet:
    """Carries out what is decided; each step moves every process one state on, unless its launch fails."""

    slots: int
    bad_configs: frozenset[str] = frozenset()
    replicas: dict[str, Replica] = field(default_factory=dict)
    now: float = NOW
    target: PoolTarget = field(default_factory=lambda: target(0))
    least_ready: int = 99

    def step(self) -> int:
        """One decision and its consequences. Returns how many actions there were."""
        drained = frozenset(r.id for r in self.replicas.values() if r.state is S.DRAINING)
        self.now += 1
        self._move_on()
        actions = reconcile(
            [self.target],
            list(self.replicas.values()),
            devices(self.slots),
            drained=drained & self.replicas.keys(),
            now=self.now,
        )
        assert len({action.replica for action in actions}) == len(actions), "one action a replica"
        for action in actions:
            self._act(action)
        on_device = [device for r in self.replicas.values() for device in r.devices]
        assert len(on_device) == len(set(on_device)), "two processes on one device"
        self.least_ready = min(self.least_ready, self.ready())
        return len(actions)

    def ready(self, config: str = "") -> int:
        return sum(
            r.state is S.READY and (not config or r.config_hash == config) for r in self.replicas.values()
        )

    def _act(self, action: Action) -> None:
        known = self.replicas.get(action.replica)
        if action.kind == "create":
            assert known is None, "a slot that exists is created"
            new = Replica(action.replica, "main", 0, S.PENDING, self.now, action.reason, "")
            self.replicas[action.replica] = new
            return
        assert known is not None
        if action.kind == "launch":
            started = replace(known, state=S.STARTING, config_hash=self.target.config_hash)
            self.replicas[action.replica] = replace(
                started, devices=action.devices, generation=known.generation + 1
            )
        elif action.kind == "forget":
            assert not known.devices, "a slot with a process is forgotten"
            del self.replicas[action.replica]
        elif action.kind == "drain":
            assert known.state is S.READY
            self.replicas[action.replica] = replace(known, state=S.DRAINING, drain_deadline=self.now + 60)
        elif action.kind == "stop":
            self.replicas[action.replica] = replace(known, state=S.STOPPING)
        elif action.kind == "pending":
            self.replicas[action.replica] = replace(known, state=S.PENDING, reason=action.reason)

    def _move_on(self) -> None:
        for name, found in list(self.replicas.items()):
            if found.state is S.STARTING:
                self.replicas[name] = replace(found, state=S.LOADING)
            elif found.state is S.LOADING and found.config_hash in self.bad_configs:
                self.replicas[name] = replace(found, state=S.FAILED, devices=(), retry_at=self.now + 3)
            elif found.state is S.LOADING:
                self.replicas[name] = replace(found, state=S.READY)
            elif found.state is S.STOPPING:
                del self.replicas[name]

    def settle(self, steps: int = 120) -> None:
        for _ in range(steps):
            if self.step() == 0 and all(r.state in (S.READY, S.PENDING) for r in self.replicas.values()):
                return
        raise AssertionError(f"not settled: {[(r.id, r.state.value) for r in self.replicas.values()]}")


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["a", "b"]), st.integers(0, 8)), max_size=6))
def test_whatever_is_wanted_in_between_the_last_wish_comes_true(wishes: list[tuple[int, str, int]]) -> None:
    fleet = PaperFleet(slots=4)
    for size, config, steps in [*wishes, (3, "c", 0)]:
        fleet.target = target(size, config)
        for _ in range(steps):
            fleet.step()
    fleet.settle()
    assert fleet.ready("c") == len(fleet.replicas) == 3


@given(st.integers(1, 4), st.integers(1, 6))
def test_a_rolling_change_never_falls_below_the_size_while_a_device_is_free(size: int, slots: int) -> None:
    """With no device to spare it gives up one replica at a time, never two."""
    fleet = PaperFleet(slots=slots, target=target(size, "old"))
    fleet.settle()
    fitting = min(size, slots)
    assert fleet.ready("old") == fitting
    fleet.target, fleet.least_ready = target(size, "new"), 99
    fleet.settle()
    assert fleet.ready("new") == fitting
    assert fleet.least_ready >= (size if slots > size else fitting - 1)


@given(st.integers(1, 3), st.integers(0, 40))
def test_a_broken_configuration_costs_no_ready_replica_where_a_device_is_free(size: int, steps: int) -> None:
    fleet = PaperFleet(slots=4, bad_configs=frozenset({"bad"}), target=target(size, "good"))
    fleet.settle()
    fleet.target = target(size, "bad")
    for _ in range(steps):
        fleet.step()
    assert fleet.ready("good") == size
    fleet.target = target(size, "good")
    fleet.settle()
    assert fleet.ready("good") == len(fleet.replicas) == size


@pytest.mark.parametrize("size", [0, 1, 4])
def test_down_to_nothing_and_back(size: int) -> None:
    fleet = PaperFleet(slots=4, target=target(4))
    fleet.settle()
    fleet.target = target(size)
    fleet.settle()
    assert sorted(fleet.replicas) == [f"main-{ordinal}" for ordinal in range(size)]

"""What Triton's statistics say of costs and paces, from numbers."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.core.correction import (
    EVIDENCE_REQUESTS,
    HOLD,
    LEVELS,
    ModelDone,
    ReplicaDone,
    learned_slots,
    level,
    paces,
    prior,
    slowness,
    unseen_load,
)


def done(
    busy_s: float, requests: int, ours: int | None = None, expected_s: float | None = None
) -> ReplicaDone:
    """Ten seconds of one replica with one model."""
    through = requests if ours is None else ours
    expected = busy_s * through / max(requests, 1) if expected_s is None else expected_s
    return ReplicaDone(10.0, {"m": ModelDone(busy_s, requests, through, expected)})


def test_replicas_alike_have_a_pace_of_one() -> None:
    assert paces({"a": done(6.0, 300), "b": done(6.3, 310), "c": done(0.0, 0)}, {}) == {
        "a": 1.0,
        "b": 1.0,
        "c": 1.0,
    }


def test_a_replica_that_others_load_gets_less_in_proportion_to_what_is_left() -> None:
    """Half of its time goes to requests that did not come through a router: it takes twice as long."""
    assert unseen_load(done(8.0, 400, ours=150)) == pytest.approx(0.5)
    assert paces({"a": done(3.0, 150), "b": done(8.0, 400, ours=150)}, {}) == {"a": 1.0, "b": 2.0}


def test_what_all_have_in_common_is_no_difference() -> None:
    """Streams, or an ensemble's parts, are counted by Triton and not by the routers, on every replica."""
    assert paces({"a": done(6.0, 400, ours=100), "b": done(6.2, 400, ours=100)}, {}) == {"a": 1.0, "b": 1.0}


def test_two_instances_are_loaded_half_as_much() -> None:
    model = ModelDone(8.0, 400, 0, 0.0, instances=2)
    assert unseen_load(ReplicaDone(10.0, {"m": model})) == pytest.approx(0.4)


def test_a_slow_replica_is_told_from_one_that_got_the_long_requests() -> None:
    normal, long = done(5.0, 300, expected_s=5.0), done(9.0, 100, expected_s=8.8)
    slow = done(9.0, 100, expected_s=4.2)
    assert slowness("b", {"a": normal, "b": long}) == pytest.approx(1.02, abs=0.01)
    assert paces({"a": normal, "b": long}, {}) == {"a": 1.0, "b": 1.0}
    assert paces({"a": normal, "b": slow}, {}) == {"a": 1.0, "b": 2.0}


def test_little_evidence_is_none() -> None:
    few = ReplicaDone(10.0, {"m": ModelDone(2.0, EVIDENCE_REQUESTS - 1, EVIDENCE_REQUESTS - 1, 0.6)})
    short = ReplicaDone(10.0, {"m": ModelDone(0.5, 500, 500, 0.2)})
    foreign = ReplicaDone(10.0, {"m": ModelDone(6.0, 300, 200, 1.0)})
    for unsure in (few, short, foreign, ReplicaDone(0.0)):
        assert slowness("b", {"a": done(5.0, 300), "b": unsure}) == 1.0
        assert slowness("a", {"a": done(5.0, 300), "b": unsure}) == 1.0
    assert slowness("a", {"a": done(5.0, 300)}) == 1.0


def test_noise_of_real_services_makes_nobody_slow() -> None:
    """Each request takes its expectation up to lognormal noise of σ 0.3, in windows of 60 requests or so."""
    draw = random.Random("noise")
    for _ in range(300):
        windows = {}
        for name in "abcd":
            times = [draw.lognormvariate(-4.6, 1.2) for _ in range(draw.randrange(50, 90))]
            busy = sum(time * draw.lognormvariate(0.0, 0.3) for time in times)
            windows[name] = ReplicaDone(10.0, {"m": ModelDone(busy, len(times), len(times), sum(times))})
        assert set(paces(windows, {}).values()) == {1.0}


def test_a_level_lasts_while_it_nearly_holds() -> None:
    assert [level(pace) for pace in (0.3, 1.0, 1.49, 1.5, 2.9, 100.0)] == [1.0, 1.0, 1.0, 1.5, 2.0, 16.0]
    assert level(2.0 * HOLD, before=2.0) == 2.0
    assert level(2.0 * HOLD - 0.01, before=2.0) == 1.5
    assert level(1.0, before=16.0) == 1.0


@given(
    st.dictionaries(
        st.sampled_from("abcd"),
        st.builds(
            lambda busy, requests, ours, expected: ReplicaDone(
                10.0, {"m": ModelDone(busy, requests, ours, expected)}
            ),
            st.floats(0, 100), st.integers(0, 1000), st.integers(0, 1000), st.floats(0, 100),
        ),
        min_size=1,
    )
)  # fmt: skip
def test_every_pace_is_a_level_and_somebody_is_normal_in_load(windows: dict[str, ReplicaDone]) -> None:
    found = paces(windows, {})
    assert found.keys() == windows.keys()
    assert set(found.values()) <= set(LEVELS)


def test_a_backend_that_does_several_at_once_is_given_more_step_by_step() -> None:
    """An engine of one instance, without Triton's batching, that runs up to 24 requests at once."""
    slots, seen = 2, []
    for _ in range(8):
        at_once = min(slots, 24)  # as long as more than that wait in the router
        slots = learned_slots(2, ModelDone(10.0 * at_once, 100, instances=1), 10.0, slots)
        seen.append(slots)
    assert seen == [4, 8, 16, 32, 48, 48, 48, 48]


def test_a_backend_that_does_what_its_configuration_says_keeps_its_limit() -> None:
    assert learned_slots(4, ModelDone(20.0, 100, instances=2), 10.0, 0) == 4
    assert learned_slots(4, ModelDone(24.0, 100, instances=2), 10.0, 0) == 4
    assert learned_slots(2, ModelDone(0.0, 0), 0.0, 8) == 8


def test_the_prior_is_the_mean_cost_with_two_digits_and_changes_seldom() -> None:
    counted = [ModelDone(3.0, 100), ModelDone(9.3, 300, instances=1)]
    assert prior(counted, None) == 0.031
    assert prior([ModelDone(4.0, 100, instances=2)], None) == 0.02
    assert prior([ModelDone(4.0, 100)], 0.03) == 0.03
    assert prior([ModelDone(9.0, 100)], 0.03) == 0.09
    assert prior([ModelDone(0.0, 0)], None) is None
    assert prior([ModelDone(0.0, 0)], 0.03) == 0.03
    assert prior([ModelDone(1234.5, 100)], None) == 12.0

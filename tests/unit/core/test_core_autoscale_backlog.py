"""What a long queue asks for, where latency or the queue itself is all that a pool is scaled by."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.core.autoscale import Policy
from tritonfleet.core.autoscale_targets import Targets, answers
from tritonfleet.core.signals import Signal, Signals, Window
from tritonfleet.simulate.engine import simulate
from tritonfleet.simulate.scalers import Fleet
from tritonfleet.simulate.scenario import Scenario
from tritonfleet.simulate.workload import generated

BY_QUEUE = [
    Targets(None, p99_s=0.2),
    Targets(None, queue_mean_s=0.05),
    Targets(None, queue_p99_s=0.1),
    Targets(None, queue_depth=4),
]


def crowded(work: float, ready: int, wait_s: float, *, busy: float = 1.0, in_routers: bool = True) -> Signals:
    """``wait_s`` is lost before requests of 10 ms are served, in the routers' queue if ``in_routers``."""

    def fresh(value: float) -> Signal:
        return Signal(value, 1.0)

    rate = work * 100
    seen = Window(
        15.0, fresh(busy), fresh(work), None, fresh(rate), fresh(rate * wait_s if in_routers else 0.0),
        fresh(wait_s), fresh(wait_s), fresh(wait_s + 0.01), fresh(0.01), fresh(work),
    )  # fmt: skip
    return Signals(ready, stable=seen, fast=seen)


def asked(targets: Targets, signals: Signals) -> int:
    (answer,) = answers(targets, signals, signals.stable, None, signals.ready)
    assert answer.count is not None
    return answer.count


@given(
    targets=st.sampled_from(BY_QUEUE),
    ready=st.integers(1, 8),
    over=st.floats(0.0, 4.0),
    waits=st.tuples(st.floats(0.3, 60.0), st.floats(0.3, 60.0)),
)
def test_a_longer_queue_before_busy_replicas_never_asks_for_fewer(
    targets: Targets, ready: int, over: float, waits: tuple[float, float]
) -> None:
    shorter, longer = (asked(targets, crowded(ready + over, ready, wait)) for wait in sorted(waits))
    assert ready < shorter <= longer


@pytest.mark.parametrize("targets", BY_QUEUE, ids=str)
def test_what_waits_in_the_router_is_a_queue_that_more_replicas_shorten(targets: Targets) -> None:
    """The work that is known is what is answered: requests that a full queue refuses are in no count."""
    assert asked(targets, crowded(1.8, 2, 5.0, busy=0.93)) > 2


@pytest.mark.parametrize("targets", BY_QUEUE[:3], ids=str)
def test_time_that_is_lost_elsewhere_asks_for_none(targets: Targets) -> None:
    signals = crowded(0.4, 2, 5.0, busy=0.2, in_routers=False)
    (answer,) = answers(targets, signals, signals.stable, None, 2)
    assert answer.count == 0
    assert "more replicas would not help" in answer.why


@pytest.mark.parametrize("targets", BY_QUEUE, ids=str)
def test_a_pool_far_behind_its_load_catches_up(targets: Targets) -> None:
    """Four replicas' worth of short requests come to one replica, and its queue is full within seconds."""
    scenario = Scenario(slo_s=0.2, maximum=12, initial=1, cold_start_s=10.0)
    requests = generated("poisson", 420.0, 80.0, 0.01, 0.5, 1)
    result = simulate(scenario, requests, Fleet(Policy(1, 12, targets)))
    assert result.peak_replicas > 4
    assert result.timeline[-1].waiting == 0


def test_noise_within_a_tenth_leaves_no_backlog_undone() -> None:
    """13 at 95 % do 12.4, so 13.3 are within a tenth of that; the 0.7 that wait besides are not."""
    seen = crowded(13.33, 13, 0.0).stable
    queued = replace(seen, waiting=Signal(0.73 * 30 / 0.01, 1.0))
    signals = Signals(13, stable=queued, fast=queued)
    (answer,) = answers(Targets(0.95), signals, queued, None, 13)
    assert answer.count == 15
    assert "0.73 to work off what waits" in answer.why
    (calm,) = answers(Targets(0.95), signals, seen, None, 13)
    assert calm.count == 13

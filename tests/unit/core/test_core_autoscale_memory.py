"""What a decision may rest on of the past: only what was watched, by the clock of now."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.core.autoscale import GAP_S, Memory, Policy, decide
from tritonfleet.core.forecast import Forecast, observe
from tritonfleet.core.signals import Signal, Signals, Window

NOW = 10_000.0
POLICY = Policy(0, 16, forecast=False, stabilization_s=60.0)


def doing(work: float, ready: int) -> Signals:
    def fresh(value: float) -> Signal:
        return Signal(value, 1.0)

    nothing = fresh(0.0)
    seen = Window(
        15.0, fresh(min(work / ready, 1.0)), fresh(work), None, fresh(work * 50), nothing, nothing, nothing,
        nothing, fresh(0.02), fresh(work),
    )  # fmt: skip
    return Signals(ready, stable=seen, fast=seen)


def after(
    seconds: float, policy: Policy, signals: Signals, memory: Memory, now: float
) -> tuple[Memory, float]:
    """The memory after so long a time with these signals, a decision every two seconds."""
    for _ in range(int(seconds / 2)):
        now += 2
        memory = decide(policy, signals, memory, now).memory
    return memory, now


@pytest.mark.parametrize("unseen", [Signals(6), Signals(0, broken=6)], ids=["nothing told", "none serves"])
def test_a_time_without_signals_was_not_watched(unseen: Signals) -> None:
    """6 were needed until nothing could be measured any more; the first sample after it says little."""
    memory = Memory(size=6, since=0.0, at=NOW, asked=((NOW, 6),))
    memory, now = after(300, POLICY, unseen, memory, NOW)
    decision = decide(POLICY, doing(0.5, 6), memory, now + 2)
    assert decision.count == 6
    assert "watched for 0 s of the 60 s" in decision.reason
    memory, now = after(58, POLICY, doing(0.5, 6), decision.memory, now + 2)
    assert memory.size == 6
    assert decide(POLICY, doing(0.5, 6), memory, now + 2).count == 5


def test_a_moment_without_signals_changes_nothing() -> None:
    memory = Memory(size=6, since=0.0, at=NOW)
    memory, now = after(GAP_S - 4, POLICY, Signals(6), memory, NOW)
    assert decide(POLICY, doing(0.5, 6), memory, now + 2).count == 5


def test_a_woken_replica_stays_for_the_window_however_long_it_took_to_load() -> None:
    asleep = Memory(0, since=0.0, at=NOW - 2)
    woken = decide(POLICY, Signals(0, wanted_by="digits"), asleep, NOW)
    assert woken.count == 1
    memory, now = after(100, POLICY, Signals(0, loading=1), woken.memory, NOW)
    memory, now = after(58, POLICY, doing(0.0, 1), memory, now)
    assert memory.size == 1
    memory, now = after(10, POLICY, doing(0.0, 1), memory, now)
    assert memory.size == 0


@pytest.mark.parametrize("ahead_s", [60.0, 7200.0])
def test_a_controller_whose_clock_was_behind_that_of_the_one_before_begins_to_watch_anew(
    ahead_s: float,
) -> None:
    """The host's clock was ahead when the first one started, and was put right before the second one did."""
    then = NOW + ahead_s
    memory = Memory(
        size=6, since=then - 500, at=then, asked=((then, 6),), panic_until=then + 30, changed_at=then
    )
    decision = decide(POLICY, doing(0.5, 6), memory, NOW)
    assert decision.count == 6
    assert "watched for 0 s of the 60 s" in decision.reason
    assert not decision.panic
    memory, now = after(58, POLICY, doing(0.5, 6), decision.memory, NOW)
    assert decide(POLICY, doing(0.5, 6), memory, now + 2).count == 5


def test_a_forecast_by_another_clock_begins_anew() -> None:
    ahead = Forecast(at=NOW + 3600, level=9.0, trend=0.1, error=0.1, naive_error=2.0, compared=50)
    assert observe(ahead, 1.0, NOW, 30.0) == Forecast(at=NOW, level=1.0)


def test_a_forecast_is_for_the_cold_start_that_was_measured_last() -> None:
    policy = replace(POLICY, forecast=True)
    memory = Memory(1, since=0.0, at=NOW - 2, cold_start_s=90.0, forecast=Forecast(at=NOW - 2, level=0.3))
    memory = decide(policy, doing(0.3, 1), memory, NOW).memory
    assert [one.due for one in memory.forecast.open] == [NOW + 90.0]


@given(st.dictionaries(st.integers(0, 55), st.integers(4, 9), min_size=1, max_size=6))
def test_how_many_were_asked_for_and_when_is_said_as_it_was(asked: dict[int, int]) -> None:
    """Of those that keep the pool from shrinking, the latest: with its own count and its own time."""
    memory, policy = Memory(size=4), replace(POLICY, maximum=4)
    for ago in sorted(asked, reverse=True):
        before = replace(memory, at=NOW - ago)
        memory = decide(policy, doing(asked[ago] * 0.65, 4), before, NOW - ago).memory
    decision = decide(policy, doing(0.1, 4), replace(memory, at=NOW - 1, panic_until=0.0), NOW)
    last = min(asked)
    said = f"4 held: {asked[last]} were asked for {last} s ago; that counts for 60 s; "
    assert decision.reason.startswith(said)

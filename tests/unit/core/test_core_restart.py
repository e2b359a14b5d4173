"""When a replica that failed starts again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.core.restart import RestartPolicy, after_failure

POLICY = RestartPolicy(backoff_s=1.0, max_backoff_s=60.0, crash_loop_after=3, reset_after_s=600.0)


@pytest.mark.parametrize(
    ("earlier", "delay_s", "crash_loop"),
    [(0, 1, False), (1, 2, False), (2, 4, True), (5, 32, True), (6, 60, True), (5000, 60, True)],
)
def test_delays_double_up_to_the_longest(earlier: int, delay_s: float, crash_loop: bool) -> None:
    verdict = after_failure(POLICY, earlier, ready_for_s=None, what="exited with code 1")
    assert (verdict.failures, verdict.delay_s, verdict.crash_loop) == (earlier + 1, delay_s, crash_loop)


def test_the_reason_has_the_exit_the_delay_and_the_row() -> None:
    verdict = after_failure(POLICY, 1, ready_for_s=None, what="exited with code 1: no such module")
    assert verdict.reason == "exited with code 1: no such module; starting again in 2 s (failure 2 in a row)"


def test_the_first_failure_of_one_that_had_been_ready_waits_not_at_all() -> None:
    verdict = after_failure(POLICY, 0, ready_for_s=5.0, what="killed by SIGKILL")
    assert verdict.delay_s == 0
    assert verdict.reason == "killed by SIGKILL; starting again at once (it had been ready)"


def test_being_ready_for_a_moment_does_not_end_a_row() -> None:
    assert after_failure(POLICY, 4, ready_for_s=599.0, what="x").failures == 5


def test_being_ready_for_long_ends_the_row_before() -> None:
    verdict = after_failure(POLICY, 4, ready_for_s=600.0, what="x")
    assert (verdict.failures, verdict.delay_s, verdict.crash_loop) == (1, 0.0, False)


def test_what_cannot_succeed_waits_longest_from_the_first_time() -> None:
    verdict = after_failure(POLICY, 0, ready_for_s=None, transient=False, what="there is no tritonserver")
    assert verdict.delay_s == 60
    assert "cannot succeed before something is changed" in verdict.reason


@given(st.floats(0.01, 100), st.floats(0.01, 1000), st.integers(1, 20), st.lists(st.booleans(), max_size=40))
def test_nothing_ever_spins_and_nothing_waits_longer_than_the_longest(
    backoff: float, longest: float, crash_after: int, was_ready: list[bool]
) -> None:
    """Whatever the history: from the second failure in a row on, the delay is at least the shorter of the two
    settings; it never exceeds the longest; and it does not shrink while the row grows."""
    policy = RestartPolicy(backoff, max(backoff, longest), crash_after, reset_after_s=600.0)
    failures, last = 0, 0.0
    for ready in was_ready:
        verdict = after_failure(policy, failures, ready_for_s=1.0 if ready else None, what="x")
        assert verdict.failures == failures + 1
        assert verdict.delay_s <= policy.max_backoff_s
        assert verdict.delay_s >= (0 if verdict.failures == 1 else backoff)
        assert verdict.delay_s >= last or verdict.failures == 1
        assert verdict.crash_loop == (verdict.failures >= crash_after)
        failures, last = verdict.failures, verdict.delay_s

"""When a replica is not chosen for a while."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.core.ejection import Ejection, for_age, for_failures


def test_five_failures_in_a_row_eject_for_30_seconds() -> None:
    assert for_failures(4, 0, ejected=0, replicas=4) is None
    assert for_failures(5, 0, ejected=0, replicas=4) == Ejection(
        30.0, "5 failures in a row: not chosen for 30 s"
    )


@pytest.mark.parametrize(("earlier", "duration"), [(0, 30), (1, 60), (9, 300), (50, 300)])
def test_each_time_longer_up_to_five_minutes(earlier: int, duration: float) -> None:
    verdict = for_failures(5, earlier, ejected=0, replicas=4)
    assert verdict is not None
    assert verdict.duration_s == duration


@given(st.integers(0, 100), st.integers(0, 20), st.integers(0, 20))
def test_never_the_last_and_never_more_than_half(failures: int, ejected: int, replicas: int) -> None:
    for verdict in (
        for_failures(failures, 0, ejected=ejected, replicas=replicas),
        for_age(failures * 100.0, None, 0, ejected=ejected, replicas=replicas),
    ):
        if verdict is not None:
            assert ejected + 1 <= replicas / 2
            assert ejected + 1 < replicas


def test_a_call_in_flight_for_too_long_ejects() -> None:
    assert for_age(29.0, 0.01, 0, ejected=0, replicas=2) is None
    verdict = for_age(31.0, 0.01, 0, ejected=0, replicas=2)
    assert verdict == Ejection(30.0, "a call is in flight for 31 s (limit 30 s): not chosen for 30 s")


def test_a_slow_model_is_not_a_hang() -> None:
    assert for_age(100.0, 20.0, 0, ejected=0, replicas=2) is None
    assert for_age(201.0, 20.0, 0, ejected=0, replicas=2) is not None

"""When a device is set aside, and when it comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.core.device_health import (
    DeviceFailure,
    DeviceHealth,
    DevicePolicy,
    SetAside,
    is_devices_doing,
    review,
)
from tritonfleet.core.model import ExitStatus

POLICY = DevicePolicy(failures=3, window_s=600, set_aside_s=1800)
NOW = 10_000.0
DEVICES = ("gpu0", "gpu1", "gpu2", "gpu3")
ELSEWHERE = {"gpu1": {"hash"}}


def failed(count: int, *, config_hash: str = "hash", ago: float = 10.0) -> tuple[DeviceFailure, ...]:
    return tuple(DeviceFailure(NOW - ago, "main-0", config_hash, "exited with code 1") for _ in range(count))


def test_a_device_where_launches_fail_that_serve_elsewhere_is_set_aside() -> None:
    found = review(POLICY, {"gpu0": DeviceHealth(failed(3))}, ELSEWHERE, DEVICES, NOW)
    aside = found["gpu0"].aside
    assert aside is not None
    assert aside.until == NOW + 1800
    assert aside.reason == (
        "3 launches failed there within 600 s while the same configuration serves elsewhere; the last one, "
        "main-0: exited with code 1"
    )


@pytest.mark.parametrize(
    ("failures", "serving"),
    [
        (failed(2), ELSEWHERE),  # too few
        (failed(3, ago=601.0), ELSEWHERE),  # too old
        (failed(3), {}),  # nobody serves: it is the model
        (failed(3), {"gpu0": {"hash"}}),  # it serves on this very device
        (failed(3), {"gpu1": {"other"}}),  # what serves elsewhere is something else
        (failed(3, config_hash="new"), ELSEWHERE),  # it is the new configuration that fails
    ],
)
def test_what_is_no_evidence_against_a_device(
    failures: tuple[DeviceFailure, ...], serving: dict[str, set[str]]
) -> None:
    assert review(POLICY, {"gpu0": DeviceHealth(failures)}, serving, DEVICES, NOW) == {}


def test_zero_failures_means_never() -> None:
    never = DevicePolicy(failures=0)
    assert review(never, {"gpu0": DeviceHealth(failed(50))}, ELSEWHERE, DEVICES, NOW) == {}


def test_it_comes_back_by_itself_without_its_failures_and_each_further_time_lasts_longer() -> None:
    aside = DeviceHealth(failed(3), SetAside(NOW - 1800, NOW, "because"), times=1)
    assert review(POLICY, {"gpu0": aside}, ELSEWHERE, DEVICES, NOW - 1) == {}
    assert review(POLICY, {"gpu0": aside}, ELSEWHERE, DEVICES, NOW) == {"gpu0": DeviceHealth(times=1)}
    lasting = []
    for times in (1, 2, 4, 9):
        again = review(POLICY, {"gpu0": DeviceHealth(failed(3), times=times)}, ELSEWHERE, DEVICES, NOW)
        assert again["gpu0"].times == times + 1
        assert again["gpu0"].aside is not None
        lasting.append((again["gpu0"].aside.until or 0) - NOW)
    assert lasting == [3600, 7200, 28800, 28800]


def test_what_a_person_set_aside_stays_so() -> None:
    held = DeviceHealth(aside=SetAside(0.0, None, "drained by hand"))
    assert review(POLICY, {"gpu0": held}, ELSEWHERE, DEVICES, NOW) == {}


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=6),
    st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_never_more_than_half_and_never_the_one_that_serves(failures: list[int], serves: list[bool]) -> None:
    devices = [f"gpu{index}" for index in range(len(failures))]
    known = {name: DeviceHealth(failed(count)) for name, count in zip(devices, failures, strict=True)}
    serving = {name: {"hash"} for name, there in zip(devices, serves, strict=False) if there}
    found = review(POLICY, known, serving, devices, NOW)
    assert len(found) <= len(devices) / 2
    assert all(set(serving) - {name} for name in found)


@pytest.mark.parametrize(
    ("status", "blamed"),
    [
        (ExitStatus(NOW, code=1), True),
        (ExitStatus(NOW, code=0), False),  # what Triton does on SIGTERM
        (ExitStatus(NOW, signal=11), True),
        (ExitStatus(NOW, signal=6), True),
        (ExitStatus(NOW, signal=9), False),
        (ExitStatus(NOW, signal=15), False),
        (ExitStatus(NOW), False),
    ],
)
def test_a_kill_from_outside_is_not_the_devices_doing(status: ExitStatus, blamed: bool) -> None:
    assert is_devices_doing(status) is blamed

"""What nvidia-smi in a container tells, and when its replica is replaced for that."""

import pytest

from tritonfleet.core.device_access import (
    AccessPolicy,
    DeviceAccess,
    DeviceLook,
    after_look,
    detached,
    fails,
    seen,
)
from tritonfleet.core.model import DeviceReading
from tritonfleet.core.outliers import Answers

GPU = "GPU-1a2b3c4d-0000-4000-8000-000000000000"
THERE = DeviceLook(0, f"GPU 0: NVIDIA A10 (UUID: {GPU})\n")
GONE = DeviceLook(255, "Failed to initialize NVML: Unknown Error\n")
POLICY = AccessPolicy(every_s=60, failures=3, pause_s=300)
NOW = 10_000.0
LONG_AGO = NOW - 3600


@pytest.mark.parametrize(
    ("look", "found"),
    [
        (THERE, "there"),
        (GONE, "gone"),
        (DeviceLook(6, "No devices were found"), "gone"),
        (DeviceLook(0, ""), "gone"),
        # Nothing that a new container would mend:
        (DeviceLook(18, "Failed to initialize NVML: Driver/library version mismatch"), "unknown"),
        (DeviceLook(127, 'exec: "nvidia-smi": executable file not found in $PATH'), "unknown"),
        (DeviceLook(15, "Unable to determine the device handle for GPU0: GPU is lost"), "unknown"),
        (DeviceLook(None, ""), "unknown"),
    ],
)
def test_what_nvidia_smi_says(look: DeviceLook, found: str) -> None:
    assert seen(look) == found


def after(*looks: DeviceLook | None, known: DeviceAccess | None = None, trouble: str = "") -> DeviceAccess:
    found = known or DeviceAccess()
    readings = {GPU: DeviceReading(NOW, trouble=trouble)}
    for look in looks:
        found = after_look(POLICY, found, look, readings, (GPU,), NOW)
    return found


def test_three_answers_in_a_row_replace_a_replica_that_had_its_gpu() -> None:
    assert not detached(POLICY, after(THERE, GONE, GONE), LONG_AGO, NOW)
    assert detached(POLICY, after(THERE, GONE, GONE, GONE), LONG_AGO, NOW) == (
        "its container has lost its GPUs: nvidia-smi there says 'Failed to initialize NVML: Unknown Error', "
        "3 times in a row"
    )


def test_one_good_answer_begins_the_count_anew() -> None:
    assert after(THERE, GONE, GONE, THERE, GONE).gone == 1


def test_a_container_that_never_showed_a_gpu_has_lost_none() -> None:
    """A new one would be as blind: it would be replaced for ever."""
    assert not detached(POLICY, after(GONE, GONE, GONE, GONE), LONG_AGO, NOW)


def test_what_an_earlier_controller_has_seen_counts() -> None:
    assert detached(POLICY, after(GONE, GONE, GONE, known=DeviceAccess(had=True)), LONG_AGO, NOW)


def test_a_young_container_is_left_alone() -> None:
    found = after(THERE, GONE, GONE, GONE)
    assert not detached(POLICY, found, NOW - 299, NOW)
    assert detached(POLICY, found, NOW - 300, NOW)


def test_a_gpu_that_the_host_has_trouble_with_was_not_taken_from_the_container() -> None:
    found = after(THERE, GONE, GONE, GONE, trouble="GPU is lost")
    assert (found.gone, found.had) == (0, True)


def test_no_answer_says_nothing_and_is_asked_for_more_and_more_rarely() -> None:
    found = after(THERE, GONE, None)
    assert (found.gone, found.due) == (1, NOW + 120)
    assert after(THERE, GONE, None, GONE).gone == 2
    assert after(*[None] * 40).due == NOW + 64 * 60
    assert after(None, None, THERE).due == NOW + 60


def test_long_words_are_cut() -> None:
    found = after(THERE, DeviceLook(0, "no devices\n" + "x" * 500))
    assert found.said == ("no devices " + "x" * 500)[:120]


def test_it_does_harm_when_half_of_its_answers_are_bad_since() -> None:
    before = Answers(bad=10, finished=20)
    assert not fails(before, before)
    assert not fails(before, Answers(bad=10, finished=500))
    assert not fails(before, Answers(bad=11, finished=23))
    assert fails(before, Answers(bad=11, finished=22))

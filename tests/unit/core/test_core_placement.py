"""Which device a replica goes to, and whether a size fits."""

from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.core.model import Device, DeviceKind
from tritonfleet.core.placement import lacking, place


def devices(count: int) -> tuple[Device, ...]:
    return tuple(Device(f"cpu{index}", DeviceKind.CPU) for index in range(count))


def chosen(shares: dict[str, float], per_device: int = 1, count: int = 3) -> str | None:
    found = place(devices(count), shares, per_device).device
    return found.id if found else None


def test_the_first_free_device() -> None:
    assert chosen({}) == "cpu0"
    assert chosen({"cpu0": 1.0}) == "cpu1"


def test_the_emptiest_device_rather_than_the_first() -> None:
    assert chosen({"cpu0": 0.5, "cpu1": 0.25, "cpu2": 0.75}, per_device=4) == "cpu1"


def test_a_full_device_is_full() -> None:
    full = {"cpu0": 1.0, "cpu1": 1.0, "cpu2": 1.0}
    found = place(devices(3), full, 1)
    assert found.device is None
    assert found.reason == "no free device: all 3 are taken (1 per device)"


def test_a_share_must_fit_whole() -> None:
    """One replica of a pool with two per device leaves no room for one that wants the device alone."""
    assert chosen({"cpu0": 0.5}, per_device=1, count=1) is None
    assert chosen({"cpu0": 0.5}, per_device=2, count=1) == "cpu0"


def test_thirds_add_up_to_a_whole() -> None:
    assert chosen({"cpu0": 1 / 3 + 1 / 3}, per_device=3, count=1) == "cpu0"
    assert chosen({"cpu0": 1 / 3 + 1 / 3 + 1 / 3}, per_device=3, count=1) is None


def test_no_device_at_all() -> None:
    assert place((), {}, 1).reason == "there is no device"


@given(st.integers(1, 6), st.integers(1, 7))
def test_as_many_fit_as_there_are_slots_and_no_more(count: int, per_device: int) -> None:
    shares: dict[str, float] = {}
    placed = 0
    while (device := place(devices(count), shares, per_device).device) is not None:
        shares[device.id] = shares.get(device.id, 0.0) + 1 / per_device
        placed += 1
    assert placed == count * per_device


def test_what_does_not_fit_is_said_with_the_numbers() -> None:
    assert lacking({"main": 4}, {"main": 1}, devices(4)) == ""
    assert lacking({"main": 8}, {"main": 2}, devices(4)) == ""
    assert lacking({"main": 5}, {"main": 1}, devices(4)) == (
        "main 5 (at 1 per device) need 5 devices; there are 4: cpu0, cpu1, cpu2, cpu3"
    )
    assert "text 1 (at 1 per device), image 7 (at 2 per device) need 4.5 devices" in lacking(
        {"text": 1, "image": 7}, {"text": 1, "image": 2}, devices(4)
    )

"""Which device a replica goes to, and whether a size fits."""

from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.core.model import Device, DeviceKind
from tritonfleet.core.placement import DeviceView, lacking, occupancy, place


def devices(count: int) -> tuple[Device, ...]:
    return tuple(Device(f"cpu{index}", DeviceKind.CPU) for index in range(count))


def chosen(shares: dict[str, float], per_device: int = 1, count: int = 3) -> str | None:
    found = place(devices(count), shares, per_device)
    return found.ids[0] if found else None


def test_the_first_free_device() -> None:
    assert chosen({}) == "cpu0"
    assert chosen({"cpu0": 1.0}) == "cpu1"


def test_the_emptiest_device_rather_than_the_first() -> None:
    assert chosen({"cpu0": 0.5, "cpu1": 0.25, "cpu2": 0.75}, per_device=4) == "cpu1"


def test_a_full_device_is_full() -> None:
    full = {"cpu0": 1.0, "cpu1": 1.0, "cpu2": 1.0}
    found = place(devices(3), full, 1)
    assert found.devices == ()
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
    while found := place(devices(count), shares, per_device):
        (device,) = found.devices
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


def test_a_group_is_free_devices_in_their_order() -> None:
    found = place(devices(4), {"cpu1": 1.0}, 1, 2)
    assert (found.ids, found.reason) == (("cpu0", "cpu2"), "they are free")


def test_a_group_never_shares_a_device() -> None:
    found = place(devices(3), {"cpu0": 0.5, "cpu2": 0.25}, 1, 2)
    assert (found.ids, found.reason) == ((), "no 2 free devices for one replica: only cpu1 of 3 is free")


def test_a_mig_slice_is_given_alone_and_never_one_of_several() -> None:
    mixed = (
        Device("MIG-a", DeviceKind.MIG),
        Device("GPU-b", DeviceKind.GPU),
        Device("MIG-c", DeviceKind.MIG),
    )
    assert place(mixed, {}, 1).ids == ("MIG-a",)
    assert place(mixed, {}, 1, 2).reason == "a replica needs 2 devices that are no MIG slices; there are 1"


GIB = 1 << 30
GPUS = tuple(Device(f"GPU-{name}", DeviceKind.GPU, "", 80 * GIB) for name in "abc")


def test_among_equals_the_one_with_the_most_free_memory() -> None:
    free = {"GPU-a": 10 * GIB, "GPU-b": 70 * GIB, "GPU-c": 40 * GIB}
    assert place(GPUS, {}, 1, view=DeviceView(free)).ids == ("GPU-b",)
    assert place(GPUS, {}, 1, 2, view=DeviceView(free)).ids == ("GPU-b", "GPU-c")


def test_an_empty_device_comes_before_one_with_more_free_memory() -> None:
    free = {"GPU-a": 10 * GIB, "GPU-b": 70 * GIB, "GPU-c": 70 * GIB}
    assert place(GPUS, {"GPU-b": 0.5, "GPU-c": 0.5}, 2, view=DeviceView(free)).ids == ("GPU-a",)


def test_a_difference_of_less_than_a_gib_does_not_move_replicas_about() -> None:
    free = {"GPU-a": 70 * GIB + 1, "GPU-b": 71 * GIB - 1, "GPU-c": 70 * GIB}
    assert place(GPUS, {}, 1, view=DeviceView(free)).ids == ("GPU-a",)


def test_a_device_without_a_reading_counts_with_all_its_memory() -> None:
    assert place(GPUS, {}, 1, view=DeviceView({"GPU-a": 79 * GIB, "GPU-b": 60 * GIB})).ids == ("GPU-c",)


def test_groups_need_as_many_devices_each() -> None:
    assert lacking({"main": 2}, {"main": 1}, devices(4), {"main": 2}) == ""
    assert lacking({"main": 3}, {"main": 1}, devices(4), {"main": 2}) == (
        "main 3 (at 2 devices each) need 6 devices; there are 4: cpu0, cpu1, cpu2, cpu3"
    )


def test_among_equals_the_device_where_fewer_launches_failed() -> None:
    assert place(devices(3), {}, 1, view=DeviceView(failures={"cpu0": 1})).ids == ("cpu1",)
    assert place(devices(2), {"cpu1": 0.5}, 2, view=DeviceView(failures={"cpu0": 5})).ids == ("cpu0",)


def test_nothing_goes_where_a_device_is_set_aside_and_the_reason_says_so() -> None:
    view = DeviceView(aside={"cpu0"})
    assert place(devices(2), {}, 1, view=view).ids == ("cpu1",)
    found = place(devices(2), {"cpu1": 1.0}, 1, view=view)
    assert found.reason == "no free device: all 1 are taken (1 per device); set aside: cpu0"
    assert place(devices(1), {}, 1, view=view).reason == "there is no device; set aside: cpu0"
    assert place(devices(2), {}, 1, 2, view=view).reason.endswith("there are 1; set aside: cpu0")


def test_the_table_of_what_is_free() -> None:
    gpus = [Device("GPU-long", DeviceKind.GPU), Device("GPU-b", DeviceKind.GPU), *devices(1)]
    there, free = {"GPU-long": ("a-0", "b-1")}, {"GPU-long": 3 << 29, "GPU-b": 80 << 30}
    assert occupancy(gpus, there, free).splitlines() == [
        "  GPU-long  a-0, b-1  1.5 GiB free",
        "  GPU-b     free  80.0 GiB free",
        "  cpu0      free",
    ]

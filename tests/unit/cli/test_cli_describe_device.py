"""Devices as `ps` and `describe device/ID` show them."""

from fleet_samples import NOW, replica, snapshot

from tritonfleet.cli import render
from tritonfleet.cli.describe import describe_device
from tritonfleet.core.model import DeviceKind, DeviceReading
from tritonfleet.core.wire import DeviceInfo

GIB = 1 << 30


def shown(reading: DeviceReading | None) -> str:
    info = DeviceInfo("GPU-a", DeviceKind.GPU, "H100", 80 * GIB, reading=reading)
    return describe_device(snapshot(), info).plain


def test_what_was_read_is_shown_with_its_age() -> None:
    text = shown(DeviceReading(NOW - 3, 80 * GIB, 30 * GIB, 0.37, 41.0, 250.2, 2))
    for part in ("30.0 GiB, 50.0 GiB free", "37%", "41 °C", "250 W", "2 uncorrected", "3s ago"):
        assert part in text


def test_what_a_device_does_not_say_is_left_out() -> None:
    text = shown(DeviceReading(NOW, 80 * GIB, 30 * GIB))
    assert "50.0 GiB free" in text
    assert "Utilization" not in text
    assert "ECC" not in text
    assert "Read " not in shown(None)


def test_a_device_that_does_not_answer_says_why() -> None:
    assert "none: GPU is lost" in shown(DeviceReading(NOW, trouble="GPU is lost"))


def test_a_device_that_is_set_aside_says_why_and_what_ends_it() -> None:
    bad = DeviceInfo(
        "cpu1", DeviceKind.CPU, failures=3, set_aside="3 launches failed there", set_aside_until=NOW + 1500
    )
    text = describe_device(snapshot(), bad).plain
    assert "3 launches ended badly here lately" in text
    ends = "back in 25m00s, or `tritonfleet undrain device/cpu1` brings it back"
    assert f"3 launches failed there; {ends}" in text
    drained = DeviceInfo("cpu2", DeviceKind.CPU, set_aside="drained by anna")
    page = render.ps(snapshot(devices=(bad, drained)), 200).plain.split("\n\n")
    assert page[2].splitlines() == [
        "DEVICE  STATE        REPLICAS  REASON",
        f"cpu1    ✗ set aside  -         3 launches failed there; {ends}",
        "cpu2    ✗ set aside  -         drained by anna; `tritonfleet undrain device/cpu2` brings it back",
    ]
    assert "set aside" not in render.ps(snapshot(), 200).plain


A, B = "GPU-1a2b3c4d-0000-4000-8000-000000000000", "GPU-5e6f7a8b-0000-4000-8000-000000000000"
TWIN = "GPU-5e6f7a8b-0000-4000-8000-000000000001"


def test_ps_shortens_uuids_and_ps_wide_does_not() -> None:
    fleet = snapshot(
        devices=tuple(DeviceInfo(name, DeviceKind.GPU) for name in (A, B)),
        replicas=(replica(devices=(A, B)),),
    )
    assert "GPU-1a2b3c4d,GPU-5e6f7a8b " in render.ps(fleet, 200).plain
    assert f"{A},{B}" in render.ps(fleet, 400, wide=True).plain


def test_a_short_name_means_one_device_only() -> None:
    assert render.short_names([A, B, TWIN, "cpu0", "1"]) == {
        A: "GPU-1a2b3c4d", B: B, TWIN: TWIN, "cpu0": "cpu0", "1": "1",
    }  # fmt: skip

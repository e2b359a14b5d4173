"""A device as `describe device/ID` shows it."""

from fleet_samples import NOW, snapshot

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

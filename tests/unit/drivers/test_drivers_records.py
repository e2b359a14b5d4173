"""Records: what is written is read again, whole or not at all."""

from dataclasses import replace
from pathlib import Path

import pytest

from tritonfleet.core.model import ExitStatus
from tritonfleet.drivers.base import DriverError, LaunchSpec
from tritonfleet.drivers.devices import cpu_slots
from tritonfleet.drivers.records import Record, RecordStore
from tritonfleet.drivers.spawn import ProcessIdentity
from tritonfleet.triton.launch import Ports

SPEC = LaunchSpec("demo", "main", "main-0", 3, "abc", cpu_slots(2), "/models", exit_timeout_s=7)
INTENT = Record.of(SPEC, Ports(20_001, 20_002, 20_003), shm_prefix="tf-demo-1-", now=1234.5)
LAUNCHED = replace(INTENT, pid=42, start_ticks=99, boot_id="boot")


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    return RecordStore(tmp_path / "instances")


def test_an_intent_has_no_identity_and_says_so() -> None:
    assert INTENT.identity is None
    assert INTENT.instance_data("127.0.0.1").handle == "not launched"


def test_a_launched_one_is_the_instance_it_was_launched_as() -> None:
    assert LAUNCHED.identity == ProcessIdentity(42, 99, "boot")
    shown = LAUNCHED.instance_data("127.0.0.1")
    assert (shown.instance, shown.handle, shown.devices) == ("main-0.3", "pid 42", ("cpu0", "cpu1"))
    assert (
        (shown.grpc_port, shown.http_port, shown.metrics_port) == LAUNCHED.ports == (20_001, 20_002, 20_003)
    )
    assert (shown.started_at, shown.exit_timeout_s, shown.running) == (1234.5, 7, True)


@pytest.mark.parametrize(
    "record", [INTENT, LAUNCHED, replace(LAUNCHED, exit=ExitStatus(5.0, 1, None, "“x”"))]
)
def test_what_is_written_is_read_again(store: RecordStore, tmp_path: Path, record: Record) -> None:
    store.write(record)
    assert RecordStore(tmp_path / "instances").read("main-0.3") == record
    assert store.all() == [record]


def test_a_later_write_replaces_and_leaves_nothing_beside(store: RecordStore, tmp_path: Path) -> None:
    store.write(INTENT)
    store.write(LAUNCHED)
    assert store.read("main-0.3") == LAUNCHED
    assert [path.name for path in (tmp_path / "instances").iterdir()] == ["main-0.3.json"]
    assert (tmp_path / "instances").stat().st_mode & 0o777 == 0o700


def test_a_write_that_was_cut_short_changes_nothing(store: RecordStore, tmp_path: Path) -> None:
    store.write(INTENT)
    (tmp_path / "instances" / "main-0.3.new").write_bytes(b'{"fleet": "de')
    assert store.all() == [INTENT]
    store.remove("main-0.3")
    assert not (tmp_path / "instances").exists()


def test_there_is_nothing_before_the_first(store: RecordStore) -> None:
    assert store.read("main-0.3") is None
    assert store.all() == []
    store.remove("main-0.3")


def test_removing_one_leaves_the_others(store: RecordStore) -> None:
    other = replace(LAUNCHED, replica="main-1")
    store.write(LAUNCHED)
    store.write(other)
    store.remove("main-0.3")
    assert store.all() == [other]


@pytest.mark.parametrize("content", [b"", b"{", b'{"fleet": 3}', b"\xff\xfe"])
def test_a_damaged_one_is_named_with_the_remedy(store: RecordStore, tmp_path: Path, content: bytes) -> None:
    store.write(LAUNCHED)
    path = tmp_path / "instances" / "main-0.3.json"
    path.write_bytes(content)
    with pytest.raises(DriverError) as damaged:
        store.all()
    assert f"{path} is damaged: " in str(damaged.value)
    assert "TRITONFLEET_INSTANCE=main-0.3" in damaged.value.remedy
    assert not damaged.value.transient

"""A decision survives the journal with all it rested on."""

from dataclasses import replace

from tritonfleet.core.autoscale import Memory, Policy, decide
from tritonfleet.core.autoscale_record import read, written
from tritonfleet.core.model import Event
from tritonfleet.core.schedule import Opening
from tritonfleet.core.signals import Signal, Signals, Window

WINDOW = replace(Window(15.0), work=Signal(3.0, 1.0), rate=Signal(41.5, 1.0))
POLICY = Policy(1, 4, schedule=(Opening("night", 2, 0.0, 1.0), Opening("night", 2, 9.0, 10.0)))


def test_what_is_written_is_read() -> None:
    decision = decide(POLICY, Signals(1, room=9, stable=WINDOW, fast=WINDOW), Memory(1), 10.0)
    record = read(Event(1, 10.0, "pool.autoscaled", "main", decision.reason, written(POLICY, decision)))
    assert record is not None
    assert (record.pool, record.before, record.after, record.asked) == ("main", 1, 4, decision.asked)
    assert (record.done, record.panic, record.clipped) == (True, True, "replicas.max is 4")
    assert record.bounds == {"minimum": 1, "maximum": 4, "room": 9}
    assert record.signals["rate"] == 41.5
    assert record.signals["utilization"] is None  # which is not 0
    assert record.policy["utilization"] == 0.65
    assert record.policy["schedule"] == "night"


def test_a_wish_is_not_a_deed_and_other_events_are_neither() -> None:
    data: dict[str, str | int | float | bool | None] = {"before": 2, "after": 1}
    wish = read(Event(1, 1.0, "pool.would_autoscale", "main", "", data))
    assert wish is not None
    assert not wish.done
    assert wish.bounds == wish.signals == {}
    assert read(Event(1, 1.0, "pool.scaled", "main", "", data)) is None
    assert read(Event(1, 1.0, "pool.autoscaled", "main", "")) is None

"""The fleet's statistics: sums that never go backwards, whatever becomes of the replicas."""

from hypothesis import given
from hypothesis import strategies as st

from tritonfleet.core.ledger import Ledger, merged, was_reset

DIGITS = ("digits", "1")


def reading(count: int, last: int = 0, **more: int) -> dict[str, int]:
    return {"inference_count": count, "last_inference": last, **more}


def test_counters_add_up_and_the_last_inference_is_the_latest() -> None:
    total = merged(reading(3, 100, **{"batch_stats/4/x/ns": 7}), reading(5, 90, **{"batch_stats/8/x/ns": 1}))
    assert total == {
        "inference_count": 8, "last_inference": 100, "batch_stats/4/x/ns": 7, "batch_stats/8/x/ns": 1,
    }  # fmt: skip


def test_a_smaller_counter_means_the_model_was_loaded_again() -> None:
    assert was_reset(reading(3), reading(2))
    assert not was_reset(reading(3, last=9), reading(3, last=0))
    assert not was_reset({"memory_usage/GPU/0/byte_size": 9}, {})


def test_what_a_replica_had_counted_stays_when_it_ends() -> None:
    ledger = Ledger()
    ledger.take("a.1", {DIGITS: reading(10, 5)}, complete=True)
    ledger.take("b.1", {DIGITS: reading(4, 7)}, complete=True)
    assert ledger.settle(["b.1"])
    assert not ledger.settle(["b.1"])
    assert ledger.totals() == {DIGITS: reading(14, 7)}
    ledger.take("a.2", {DIGITS: reading(1, 9)}, complete=True)
    assert ledger.totals() == {DIGITS: reading(15, 9)}


def test_memory_leaves_with_its_replica() -> None:
    ledger = Ledger()
    for name in ("a.1", "b.1"):
        ledger.take(name, {DIGITS: reading(1, **{"memory_usage/GPU/0/byte_size": 8})}, complete=True)
    assert ledger.totals()[DIGITS]["memory_usage/GPU/0/byte_size"] == 16
    ledger.settle(["b.1"])
    assert ledger.totals()[DIGITS]["memory_usage/GPU/0/byte_size"] == 8


def test_a_model_loaded_again_goes_on_counting() -> None:
    ledger = Ledger()
    ledger.take("a.1", {DIGITS: reading(10)}, complete=True)
    ledger.take("a.1", {DIGITS: reading(2)}, complete=True)
    assert ledger.totals()[DIGITS]["inference_count"] == 12


def test_only_what_is_served_is_listed() -> None:
    ledger = Ledger()
    ledger.take("a.1", {DIGITS: reading(10), ("echo", "1"): reading(1)}, complete=True)
    ledger.take("a.1", {("echo", "1"): reading(1)}, complete=True)
    assert list(ledger.totals()) == [("echo", "1")]
    ledger.take("a.1", {DIGITS: reading(0)}, complete=False)
    assert ledger.totals("digits")[DIGITS]["inference_count"] == 10
    assert ledger.totals("digits", "2") == {}


def test_a_model_unloaded_on_purpose_counts_from_zero() -> None:
    ledger = Ledger()
    ledger.take("a.1", {DIGITS: reading(10)}, complete=True)
    ledger.settle([])
    ledger.take("b.1", {DIGITS: reading(3)}, complete=True)
    ledger.forget("digits")
    ledger.take("b.1", {DIGITS: reading(0)}, complete=True)
    assert ledger.totals()[DIGITS]["inference_count"] == 0


def test_it_survives_the_disk() -> None:
    ledger = Ledger()
    ledger.take("a.1", {DIGITS: reading(10)}, complete=True)
    ledger.settle([])
    ledger.take("b.1", {DIGITS: reading(3)}, complete=True)
    again = Ledger(ledger.lines())
    assert again.totals() == ledger.totals()
    assert again.lines() == ledger.lines()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("work"), st.integers(0, 2), st.integers(1, 50)),
        st.tuples(st.just("reload"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("kill"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_totals_never_go_backwards(steps: list[tuple[str, int, int]]) -> None:
    """Three slots that work, reload, die and come again, and a controller that restarts: a client that reads
    after every step never sees less than before."""
    ledger, counts, generations = Ledger(), [0, 0, 0], [1, 1, 1]
    before = 0
    for what, slot, amount in steps:
        if what == "work":
            counts[slot] += amount
        elif what == "reload":
            counts[slot] = 0
        elif what == "kill":
            counts[slot], generations[slot] = 0, generations[slot] + 1
        else:
            ledger = Ledger(ledger.lines())
        alive = [f"m-{i}.{generation}" for i, generation in enumerate(generations)]
        ledger.settle(alive)
        for name, count in zip(alive, counts, strict=True):
            ledger.take(name, {DIGITS: reading(count)}, complete=True)
        now = ledger.totals()[DIGITS]["inference_count"]
        assert now >= before
        before = now

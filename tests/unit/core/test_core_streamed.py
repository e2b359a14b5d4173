"""Requests sent less final responses seen, of one stream."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritonfleet.core.streamed import MOST_MODELS, MOST_OPEN, OpenRequests


def send(open_requests: OpenRequests, model: str, *, asks: bool = False, decoupled: bool = False) -> None:
    open_requests.sent(model, 0.0, 1.0, asks=asks, decoupled=decoupled)


def ended(open_requests: OpenRequests, model: str = "") -> str | None:
    found = open_requests.ended(model)
    return found.model if found is not None else None


def test_each_final_response_ends_the_oldest_request_of_its_model() -> None:
    found = OpenRequests()
    for turn, model in enumerate("aabb"):
        found.sent(model, float(turn), 1.0, asks=False, decoupled=False)
    assert found.count == 4
    ended = [found.ended(model) for model in "baba"]
    assert [one and one.started for one in ended] == [2.0, 0.0, 3.0, 1.0]
    assert (found.count, found.ended("a")) == (0, None)


def test_an_error_without_a_model_ends_the_oldest_and_the_number_stays_right() -> None:
    found = OpenRequests()
    for model in ("a", "wrong", "a"):
        send(found, model)
    assert [ended(found), ended(found, "a"), ended(found, "a")] == ["a", "a", "wrong"]
    assert found.count == 0


def test_of_those_whose_end_may_never_be_seen_the_last_counts() -> None:
    found = OpenRequests()
    before = [found.sent("llm", float(n), 1.0, asks=False, decoupled=True)[1] for n in range(3)]
    assert [one and one.started for one in before] == [None, 0.0, 1.0]
    assert found.count == 1
    assert ended(found, "llm") == "llm"  # this model says so with its last response
    assert (found.count, ended(found, "llm")) == (0, None)


def test_those_that_ask_are_counted_beside_it() -> None:
    found = OpenRequests()
    for asks in (True, False, True, False):
        send(found, "llm", asks=asks, decoupled=True)
    assert found.count == 3
    assert [ended(found, "llm") for _ in range(4)] == ["llm"] * 3 + [None]


def test_an_error_without_a_model_ends_rather_what_must_end() -> None:
    found = OpenRequests()
    send(found, "llm", decoupled=True)
    send(found, "wrong")
    assert ended(found) == "wrong"
    assert ended(found) == "llm"


def test_a_model_that_turns_out_to_be_decoupled() -> None:
    found = OpenRequests()
    for number, asks in enumerate((False, True, False, False)):
        found.sent("llm", float(number), 1.0, asks=asks, decoupled=False)
    assert [one.started for one in found.found_decoupled("llm")] == [0.0, 2.0]
    assert (found.count, found.found_decoupled("llm")) == (2, [])
    assert (found.found_decoupled("unknown"), found.count) == ([], 2)


def test_the_end_of_the_stream_ends_all() -> None:
    found = OpenRequests()
    send(found, "a")
    send(found, "llm", decoupled=True)
    assert Counter(one.model for one in found.take_all()) == {"a": 1, "llm": 1}
    assert (found.count, found.oldest, found.take_all()) == (0, None, [])


def test_the_only_model_need_not_be_read_from_responses() -> None:
    found = OpenRequests()
    send(found, "a")
    assert found.only_model == "a"
    send(found, "b")
    assert found.only_model == ""


def test_names_and_requests_do_not_fill_memory() -> None:
    found = OpenRequests()
    for number in range(100):
        send(found, f"wrong {number}")
        assert ended(found) == f"wrong {number}"
    assert len(found._models) <= MOST_MODELS
    for _ in range(MOST_OPEN + 5):
        send(found, "a")
    assert found.count == MOST_OPEN
    assert found.sent("a", 0.0, 1.0, asks=False, decoupled=False) == (None, None)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "end", "more"]), st.sampled_from(["a", "llm", "x"]), st.booleans()
    )
)


@pytest.mark.parametrize("known", [True, False])
@settings(max_examples=200, deadline=None)
@given(steps=STEPS)
def test_what_is_counted_is_what_is_kept(known: bool, steps: list[tuple[str, str, bool]]) -> None:
    """Whatever is sent and answered: what came in and did not go out is what `take_all` gives back."""
    found, counted = OpenRequests(), Counter[str]()
    for what, model, asks in steps:
        if what == "ask":
            new, gone = found.sent(model, 0.0, 1.0, asks=asks, decoupled=known and model == "llm")
            counted.update(one.model for one in (new,) if one)
            counted.subtract(one.model for one in (gone,) if one)
        elif what == "end":
            one = found.ended(model if asks else "")
            counted.subtract([one.model] if one else [])
        elif model == "llm":
            counted.subtract(one.model for one in found.found_decoupled(model))
        assert found.count == counted.total() >= 0
    assert Counter(one.model for one in found.take_all()) == +counted

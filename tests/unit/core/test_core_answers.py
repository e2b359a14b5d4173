"""Several replicas' answers become one."""

from tritonfleet.core.answers import Answer, IndexEntry, of_all, of_any, status_name, union_of_indexes

DONE = Answer("main-0", 0, "", b"done")
REFUSED = Answer("main-1", 3, "no such thing")


def test_success_only_if_all_succeeded() -> None:
    assert of_all([DONE, Answer("main-1", 0, "", b"other")]) == DONE


def test_what_all_say_alike_is_passed_as_one_server_would_say_it() -> None:
    assert of_all([REFUSED, Answer("main-2", 3, "no such thing")]) == REFUSED


def test_a_partial_failure_says_where_and_what() -> None:
    answer = of_all([DONE, REFUSED, Answer("main-2", 14, "gone"), Answer("main-3", 0)])
    assert answer.status == 3
    assert answer.text == (
        "tritonfleet: done on 2 of 4 replicas (main-0, main-3), not on the others: "
        "main-1: INVALID_ARGUMENT: no such thing; main-2: UNAVAILABLE: gone"
    )


def test_different_failures_are_all_named() -> None:
    text = of_all([REFUSED, Answer("main-2", 3, "something else")]).text
    assert "done on 0 of 2 replicas, not on the others" in text
    assert "something else" in text


def test_one_success_is_enough_where_one_is_enough() -> None:
    assert of_any([REFUSED, DONE]) == DONE
    assert of_any([REFUSED]) == REFUSED


def test_statuses_have_names() -> None:
    assert [status_name(code) for code in (0, 6, 14, 99)] == [
        "OK", "ALREADY_EXISTS", "UNAVAILABLE", "status 99",
    ]  # fmt: skip


def test_a_version_that_is_ready_anywhere_is_ready() -> None:
    union = union_of_indexes(
        [
            [IndexEntry("echo", "1", "UNAVAILABLE", "out of memory"), IndexEntry("digits", "10", "READY")],
            [IndexEntry("echo", "1", "READY"), IndexEntry("digits", "2", "LOADING")],
        ]
    )
    assert union == [
        IndexEntry("digits", "2", "LOADING"),
        IndexEntry("digits", "10", "READY"),
        IndexEntry("echo", "1", "READY"),
    ]


def test_never_loaded_counts_only_where_nothing_else_is_known() -> None:
    never = IndexEntry("echo", "", "")
    assert union_of_indexes([[never], [never]]) == [never]
    assert union_of_indexes([[never], [IndexEntry("echo", "1", "READY")]]) == [
        IndexEntry("echo", "1", "READY")
    ]

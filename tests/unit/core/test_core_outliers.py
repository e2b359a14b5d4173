"""When bad answers mean a broken replica."""

import pytest

from tritonfleet.core.outliers import Answers, is_broken

SUSPECT = Answers(2, 10, 10, "5 failures in a row: not chosen for 60 s")
WELL = Answers(0, 0, 40)


def test_who_fails_its_second_trial_while_others_answer_well_is_broken() -> None:
    assert is_broken(SUSPECT, [WELL, Answers(0, 2, 10)]) == (
        "the routers left it out 2 times (5 failures in a row: not chosen for 60 s), "
        "while the others answered 48 of 50 calls well"
    )


@pytest.mark.parametrize(
    ("suspect", "others"),
    [
        (Answers(1, 5, 5), [WELL]),  # it was not tried again yet
        (SUSPECT, []),  # nobody to compare with, or to take over
        (SUSPECT, [Answers(0, 0, 9)]),  # they were asked too little
        (SUSPECT, [Answers(0, 20, 40)]),  # they fail, too: it is the requests
        (SUSPECT, [WELL, Answers(1, 5, 40)]),  # another one was left out, too
    ],
)
def test_what_is_no_evidence(suspect: Answers, others: list[Answers]) -> None:
    assert is_broken(suspect, others) == ""


def test_a_worker_that_was_started_again_counts_from_zero() -> None:
    assert Answers(0, 1, 3).since(Answers(1, 5, 100)) == Answers()
    assert Answers(2, 6, 110, "why").since(Answers(1, 5, 100)) == Answers(1, 1, 10, "why")

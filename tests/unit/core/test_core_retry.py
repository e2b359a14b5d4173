"""The retry budget."""

from tritonfleet.core.retry import RetryBudget


def test_a_hundred_in_ten_seconds_are_always_allowed() -> None:
    budget = RetryBudget()
    assert [budget.take(0) for _ in range(101)] == [True] * 100 + [False]


def test_a_fifth_of_the_requests_comes_on_top() -> None:
    budget = RetryBudget()
    assert sum(budget.take(1000) for _ in range(1000)) == 300


def test_what_was_spent_comes_back_after_ten_seconds() -> None:
    budget = RetryBudget()
    for _ in range(100):
        assert budget.take(0)
    for _ in range(9):
        budget.tick(0)
        assert not budget.take(0)
    budget.tick(0)
    assert budget.take(0)


def test_requests_of_long_ago_earn_nothing() -> None:
    budget = RetryBudget()
    budget.tick(10_000)
    for _ in range(10):
        budget.tick(10_000)
    assert sum(budget.take(10_000) for _ in range(1000)) == 100

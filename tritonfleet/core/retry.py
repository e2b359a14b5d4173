"""How much a router may repeat: a budget, so that repeating never becomes a load of its own."""

from collections import deque

WINDOW_S = 10


class RetryBudget:
    """In any 10 seconds at most 20 % of the requests of these seconds, and 100 besides, are repeated.

    The rule and its numbers are those of Finagle's RetryBudget (20 %, 10 per second, over 10 s); a base of a
    few would not do for what one of few replicas takes with it when it is killed. Nothing is counted per
    request: `tick`, once a second, looks at how far the total has come.
    """

    def __init__(self, share: float = 0.2, per_s: float = 10.0) -> None:
        self._share, self._floor = share, per_s * WINDOW_S
        self._requests: deque[int] = deque([0], maxlen=WINDOW_S)  # of each of the last seconds
        self._repeats: deque[int] = deque([0], maxlen=WINDOW_S)
        self._total = 0

    def tick(self, requests_total: int) -> None:
        """A second has passed; ``requests_total`` grows by one per request."""
        self._requests[-1] = requests_total - self._total
        self._total = requests_total
        self._requests.append(0)
        self._repeats.append(0)

    def take(self, requests_total: int) -> bool:
        """Whether one more may be repeated now; if so, it is counted."""
        self._requests[-1] = requests_total - self._total
        if sum(self._repeats) >= self._floor + self._share * sum(self._requests):
            return False
        self._repeats[-1] += 1
        return True

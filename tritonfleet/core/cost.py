"""What a request will cost: its size in bytes → seconds of a replica's time, learned while serving.

Per model the router keeps a `CostModel`. It asks `estimate` for every request, adds the answer to the
outstanding work of the replica that takes it, and tells `learn` what the request took. What it took is not
its latency, most of which may be waiting behind others: `service_time` and `Attribution` take that apart.
`Pace` compares what one replica takes with what the model says, so that a slower one is given less.

Everything here is arithmetic on numbers that are passed in; nothing knows of clocks or connections.
`estimate` and `learn` run once per request and cost well under a microsecond and about one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

GUESS_S = 0.01  # for a request of which nothing is known
MEMORY = 32  # samples after which an old one has lost 1 − 1/e of its weight
OUTLIER = 8.0  # one sample counts for at most so many times what its bucket has seen on average
STEEPEST = 2.0  # elasticity beyond the known sizes: time grows at most with the square of the size
KNOWN_FROM = 8  # samples of a size, before what it is expected to take is evidence about a replica
ALWAYS_RENEWED = 64  # samples up to which each one renews the curve ...
RENEWED_EVERY = 32  # ... later one in so many does
LARGEST = 63  # sizes from 2^62 share the last bucket

PACE_MEMORY_S = 8.0  # of estimated work, the half of which a replica's pace forgets
PACE_TRUST_S = 1.0  # of estimated work that stands for "as fast as the others" before anything is measured
PACE_NORMAL = 1.5  # within this factor of its peers a replica is as fast as they are: less is noise at 1 ms
PACE_LIMIT = 16.0
SLOW_START = 2.0  # falls below PACE_NORMAL, and so to normal, in 10 s; sooner where it is seen to be fast
PACE_RELAXES_S = 10.0  # half-life of a pace that no request renews

SAME_INSTANT_S = 0.0005  # answers this close together come from one executed batch


class Knot(NamedTuple):
    """The curve around the mean size of one bucket: ``seconds`` at ``size``, and the slope on either side."""

    size: float
    seconds: float
    below: float
    above: float


class CostModel:
    """Expected service time as a function of request size, for one model.

    One point per power of two of the size: the exponentially weighted means of size and time of the
    requests in [2^(k-1), 2^k). Between the points the curve is straight; made monotone by pooling neighbours
    that contradict it ("pool adjacent violators", Barlow et al. 1972), weighted by how much was seen. So any
    growing shape is learned, a constant one too, and a bucket with few or noisy samples leans on its
    neighbours. Outside the known sizes it goes on as it began or ended, within [0, size²].

    Against a robust straight line a + b·size it is as good where time is affine in size and better where it
    is not (attention, padding to fixed sizes).
    """

    __slots__ = ("_curve", "_learned", "_sizes", "_times", "_weights", "prior_s")

    def __init__(self, prior_s: float = GUESS_S) -> None:
        self.prior_s = prior_s
        """Seconds, whatever the size, until something was learned: Triton's mean compute time per request
        where it is known. Set it freely; it stops mattering with the first sample."""
        self._sizes = [0.0] * (LARGEST + 1)
        self._times = [0.0] * (LARGEST + 1)
        self._weights = [0] * (LARGEST + 1)
        self._learned = 0
        self._curve: list[Knot] = []

    @property
    def learned(self) -> int:
        """How many requests it has learned from."""
        return self._learned

    @property
    def is_guess(self) -> bool:
        """Whether estimates rest on next to nothing: few requests were seen, and nobody has set ``prior_s``.
        They are good enough to choose a replica, and not to refuse anybody."""
        return self._learned < KNOWN_FROM and self.prior_s == GUESS_S

    def estimate(self, size_bytes: int) -> float:
        """Seconds that a replica is expected to spend on a request of ``size_bytes`` (≥ 0)."""
        curve = self._curve
        if not curve:
            return self.prior_s
        bucket = size_bytes.bit_length()
        size, seconds, below, above = curve[bucket] if bucket < len(curve) else curve[-1]
        off = size_bytes - size
        return seconds + off * (above if off > 0.0 else below)

    def learn(self, size_bytes: int, seconds: float) -> None:
        """A request of ``size_bytes`` took ``seconds`` of a replica's time (`Attribution`; negative counts
        as 0). Unchanged conditions are known to a few percent after `MEMORY` samples of a size; a step
        takes as many to be followed, while a lone outlier moves its bucket by OUTLIER / MEMORY at most."""
        bucket = min(size_bytes.bit_length(), LARGEST)
        weight, mean = self._weights[bucket], self._times[bucket]
        if weight < MEMORY:
            weight = self._weights[bucket] = weight + 1
        if seconds < 0.0:
            seconds = 0.0
        elif weight > 4 and seconds > OUTLIER * mean > 0.0:
            seconds = OUTLIER * mean
        self._times[bucket] = mean + (seconds - mean) / weight
        self._sizes[bucket] += (size_bytes - self._sizes[bucket]) / weight
        learned = self._learned = self._learned + 1
        if learned <= ALWAYS_RENEWED or learned % RENEWED_EVERY == 0 or weight == 1:
            self._curve = self._renewed()

    def knows(self, size_bytes: int) -> bool:
        """Whether `estimate` rests on requests of about this size. Elsewhere the curve is continued, which is
        good enough to place a request and too wild to judge the replica that served it: with noise of a few
        milliseconds between 1 kB and 100 kB, 8 MB are expected to take a second."""
        return self._weights[min(size_bytes.bit_length(), LARGEST)] >= KNOWN_FROM

    def points(self) -> list[tuple[float, float]]:
        """The learned curve as (bytes, seconds), by size, for showing it."""
        known = [bucket for bucket in range(LARGEST + 1) if self._weights[bucket]]
        return [(size, seconds) for size, seconds, _ in self._monotone(known)]

    def _renewed(self) -> list[Knot]:
        """One knot per bucket up to the largest known; an unknown one borrows its larger neighbour's."""
        known = [bucket for bucket in range(LARGEST + 1) if self._weights[bucket]]
        points = self._monotone(known)
        slopes = [
            (seconds - seconds_before) / (size - size_before)
            for (size_before, seconds_before, _), (size, seconds, _) in pairwise(points)
        ]
        first, last = points[0], points[-1]
        # A single known size says nothing of others; time is then taken to be constant.
        start = min(slopes[0], first[1] / first[0]) if slopes and first[0] > 0 else 0.0
        end = min(slopes[-1], STEEPEST * last[1] / last[0]) if slopes else 0.0
        slopes = [start, *slopes, end]
        curve: list[Knot] = []
        for bucket, (size, seconds, _), (below, above) in zip(known, points, pairwise(slopes), strict=True):
            curve.extend([Knot(size, seconds, below, above)] * (bucket + 1 - len(curve)))
        return curve

    def _monotone(self, known: list[int]) -> list[tuple[float, float, int]]:
        """(size, seconds, weight) of each known bucket, with seconds pooled where they would fall."""
        pools: list[list[float]] = []  # seconds, weight, members
        for bucket in known:
            pools.append([self._times[bucket], self._weights[bucket], 1])
            while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
                seconds, weight, members = pools.pop()
                pool = pools[-1]
                pool[0] = (pool[0] * pool[1] + seconds * weight) / (pool[1] + weight)
                pool[1] += weight
                pool[2] += members
        seconds_of = [seconds for seconds, _, members in pools for _ in range(int(members))]
        return [
            (self._sizes[bucket], seconds, self._weights[bucket])
            for bucket, seconds in zip(known, seconds_of, strict=True)
        ]

    def __repr__(self) -> str:
        shown = ", ".join(f"{size:.0f} B: {seconds * 1e3:.3g} ms" for size, seconds in self.points())
        return f"<CostModel {shown or f'prior {self.prior_s * 1e3:g} ms'}>"


def service_time(finished_at: float, dispatched_at: float, previous_finish_at: float) -> float:
    """Seconds a replica spent on one request alone: from when it could begin until it was done.

    It could begin when it arrived and the request before it was done (Lindley's recursion of a FIFO
    server, read backwards). All times by one clock; ``previous_finish_at`` is of the request that the same
    replica finished last, -inf if there was none. On a replica that runs several requests at once this is
    the request's share of the replica's time, which is what outstanding work has to be counted in.
    """
    return max(finished_at - max(dispatched_at, previous_finish_at), 0.0)


class Share(NamedTuple):
    """What one finished request took of its replica's time."""

    size_bytes: int
    seconds: float


class Attribution:
    """Turns the finishes of one model on one replica into what each request took.

    Triton answers all requests of a batch at once; by `service_time` alone the first of them would have
    taken everything and the others nothing, which looks like an outlier among zeros. So answers less than
    `SAME_INSTANT_S` apart are one batch, and share its time equally. The price is that a request is learned
    from when the next one finishes.
    """

    __slots__ = ("_began", "_finished_at", "_previous", "_sizes")

    def __init__(self) -> None:
        self._sizes: list[int] = []  # of the batch whose answers are coming in
        self._began = 0.0  # dispatch of its earliest request
        self._finished_at = float("-inf")  # its last answer so far
        self._previous = float("-inf")  # last answer of the batch before

    def finished(self, size_bytes: int, dispatched_at: float, finished_at: float) -> list[Share]:
        """Note a finish, in order of ``finished_at``; returns what the batch before it took, if it began a
        new one."""
        if finished_at - self._finished_at < SAME_INSTANT_S and self._sizes:
            self._sizes.append(size_bytes)
            self._began = min(self._began, dispatched_at)
            self._finished_at = finished_at
            return []
        shares = self.settle()
        self._sizes = [size_bytes]
        self._began, self._finished_at = dispatched_at, finished_at
        return shares

    def settle(self) -> list[Share]:
        """What the last batch took, without waiting for another finish."""
        sizes = self._sizes
        if not sizes:
            return []
        seconds = service_time(self._finished_at, self._began, self._previous) / len(sizes)
        self._previous, self._sizes = self._finished_at, []
        return [Share(size, seconds) for size in sizes]

    def interrupt(self, now: float) -> None:
        """A request ended there without having been served (cancelled, failed): what the replica did until
        ``now`` is nobody's service time."""
        self._sizes = []
        self._previous = max(self._previous, now)


class Pace:
    """How many seconds a replica takes for each that the model's `CostModel` expects: 1.0 is normal, 2.0 is
    half as fast. The ratio of two decaying sums, so that long requests count for as much as they are."""

    __slots__ = ("_expected_s", "_measured_s", "value")

    def __init__(self) -> None:
        self._expected_s = self._measured_s = PACE_TRUST_S
        self.value = 1.0
        """Read per request; exactly 1.0 within `PACE_NORMAL` of normal, or noise would choose replicas."""

    def learn(self, expected_s: float, measured_s: float) -> None:
        """A request that was expected to take ``expected_s`` took ``measured_s`` of this replica's time."""
        keep = 0.5 ** (expected_s / PACE_MEMORY_S) if expected_s < PACE_MEMORY_S else 0.5
        self._expected_s = self._expected_s * keep + expected_s
        self._measured_s = self._measured_s * keep + min(measured_s, PACE_LIMIT * expected_s)
        self._settle()

    def start_slow(self) -> None:
        """It is back after it was left out: for its first seconds it counts as `SLOW_START` times slower than
        its peers, so that it is given less than they are, not everything at once. One that is new needs no
        such thing: late binding gives it no more than it can hold."""
        self._expected_s = PACE_TRUST_S
        self._measured_s = PACE_TRUST_S * SLOW_START
        self._settle()

    def relax(self, elapsed_s: float) -> None:
        """``elapsed_s`` went by: what was measured is trusted less, or a replica once found slow would be
        given nothing to show that it has recovered. Call it about once a second."""
        drift = 1.0 - 0.5 ** (elapsed_s / PACE_RELAXES_S)
        self._measured_s += (self._expected_s - self._measured_s) * drift
        self._settle()

    def _settle(self) -> None:
        ratio = self._measured_s / self._expected_s if self._expected_s > 0.0 else 1.0
        ratio = min(max(ratio, 1.0 / PACE_LIMIT), PACE_LIMIT)
        self.value = 1.0 if 1.0 / PACE_NORMAL < ratio < PACE_NORMAL else ratio

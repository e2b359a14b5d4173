"""A latency histogram with logarithmic buckets: cheap to record, exact to merge, close to quantile.

Values are counted in microseconds. Up to 16 µs each microsecond has a bucket of its own; above, every
power of two is cut into 8, so a bucket is at most 1/8 of its lower edge wide and the middle of the bucket
is within 6.25 % of any value in it (the layout of HdrHistogram with one significant digit).
"""

from collections.abc import Iterable, Mapping

SUB_BUCKETS = 8


def bucket_of(seconds: float) -> int:
    """The bucket index of a duration; negative durations (a clock's jitter) count as zero."""
    micros = int(seconds * 1e6)
    if micros < 16:
        return max(0, micros)
    shift = micros.bit_length() - 4
    return (shift << 3) + (micros >> shift)


def edges_of(bucket: int) -> tuple[float, float]:
    """Lower and upper edge of a bucket, in seconds: it holds lower ≤ value < upper."""
    if bucket < 16:
        return bucket / 1e6, (bucket + 1) / 1e6
    shift = (bucket >> 3) - 1
    mantissa = bucket - (shift << 3)
    return (mantissa << shift) / 1e6, ((mantissa + 1) << shift) / 1e6


class Histogram:
    """Counts by bucket, their number and the exact sum of what was recorded (seconds)."""

    __slots__ = ("count", "counts", "sum_s")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.count = 0
        self.sum_s = 0.0

    def record(self, seconds: float) -> None:
        micros = int(seconds * 1e6)
        if micros < 16:
            bucket = max(0, micros)
        else:
            shift = micros.bit_length() - 4
            bucket = (shift << 3) + (micros >> shift)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.count += 1
        self.sum_s += seconds

    def merge(self, others: Iterable["Histogram"]) -> "Histogram":
        """Add the others to this one, which is returned."""
        for other in others:
            for bucket, count in other.counts.items():
                self.counts[bucket] = self.counts.get(bucket, 0) + count
            self.count += other.count
            self.sum_s += other.sum_s
        return self

    def quantile(self, q: float) -> float | None:
        """The value (seconds) below which a share ``q`` of what was recorded lies, interpolated inside its
        bucket. None when nothing was recorded. Raises ValueError unless 0 ≤ q ≤ 1."""
        if not 0 <= q <= 1:
            raise ValueError(f"a quantile lies between 0 and 1, not {q}")
        if self.count == 0:
            return None
        rank, below, upper = q * self.count, 0, 0.0
        for bucket in sorted(self.counts):
            count = self.counts[bucket]
            lower, upper = edges_of(bucket)
            if below + count >= rank:
                return lower + (upper - lower) * max(0.0, rank - below) / count
            below += count
        return upper

    @property
    def mean_s(self) -> float | None:
        return self.sum_s / self.count if self.count else None

    def sparse(self) -> dict[str, int]:
        """Bucket index as text → count: the wire form."""
        return {str(bucket): count for bucket, count in self.counts.items()}

    @classmethod
    def from_sparse(cls, counts: Mapping[str, int], sum_s: float) -> "Histogram":
        histogram = cls()
        histogram.counts = {int(bucket): count for bucket, count in counts.items() if count}
        histogram.count = sum(histogram.counts.values())
        histogram.sum_s = sum_s
        return histogram

    def __repr__(self) -> str:
        p50, p99 = self.quantile(0.5), self.quantile(0.99)
        return f"<Histogram n={self.count} mean={self.mean_s} p50={p50} p99={p99}>"

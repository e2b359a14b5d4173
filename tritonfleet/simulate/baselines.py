"""Other autoscalers by their published rules, for comparison. All are given the same router and replicas.

Each takes its target as the first argument; everything else has its published default.
"""

from collections import deque
from math import ceil, floor

from tritonfleet.simulate.meter import Meter
from tritonfleet.simulate.scalers import Pool


class Hpa:
    """Kubernetes HorizontalPodAutoscaler v2: ceil(replicas · metric / target), every 15 s.

    Rules and defaults as in its documentation (kubernetes.io, "Horizontal Pod Autoscaling"): tolerance 0.1;
    scale-down stabilization 300 s, the most that was recommended; up by at most 100 % or 4 pods, whichever is
    more, in 15 s; pods that are not ready count as using 0 % when it would grow.
    """

    interval_s = 15.0

    def __init__(self, target: float, metric: str = "utilization") -> None:
        """``metric``: "utilization" (busy share, mean of 15 s), or "queue" (Triton's tutorial "Autoscaling
        and Load Balancing Generative AI w/ Triton Server and TensorRT-LLM": a minute's seconds in queue ÷
        seconds in compute, 1 by default; waiting in our router counts as queue, which Triton's own metric
        would not see)."""
        self.name = f"hpa-{metric}"
        self._target, self._metric = target, metric
        self._recommended: deque[tuple[float, int]] = deque()

    def desired(self, now: float, pool: Pool, meter: Meter) -> int:
        wanted = pool.size
        value = self._value(pool, meter)
        if value is not None and pool.ready:
            ratio = value / self._target
            if ratio > 1 and pool.loading:
                ratio = max(ratio * pool.ready / (pool.ready + pool.loading), 1.0)
                wanted = pool.size if ratio <= 1.1 else ceil((pool.ready + pool.loading) * ratio)
            elif abs(ratio - 1) > 0.1:
                wanted = ceil(pool.ready * ratio)
        self._recommended.append((now, wanted))
        while self._recommended[0][0] <= now - 300:
            self._recommended.popleft()
        if wanted < pool.size:
            return min(pool.size, max(count for _, count in self._recommended))
        return min(wanted, max(2 * pool.size, pool.size + 4))

    def _value(self, pool: Pool, meter: Meter) -> float | None:
        seen = meter.window(15.0 if self._metric == "utilization" else 60.0)
        if seen is None or not seen.ready:
            return None
        if self._metric == "utilization":
            return min(seen.busy_s / (seen.ready * pool.instances * seen.span_s), 1.0)
        waited = seen.queue_s + seen.waiting * seen.span_s
        return waited / max(seen.busy_s, 1e-6)


class Knative:
    """Knative's pod autoscaler, KPA, by concurrency, every 2 s (knative.dev, "Autoscaling", and the defaults
    of its ConfigMap config-autoscaler).

    Stable window 60 s, panic window 6 s, panic from 200 % of what is ready until a stable window without;
    never down in panic; up to ×1000, down to ÷2 at once.
    """

    name, interval_s = "knative", 2.0

    def __init__(self, target: float) -> None:
        """``target``: concurrent requests a replica, the 70 % of its capacity already in it."""
        self._target = target
        self._panic_until = -1.0
        self._panic_size = 0

    def desired(self, now: float, pool: Pool, meter: Meter) -> int:
        stable, panic = meter.window(60.0), meter.window(6.0)
        if stable is None or panic is None:
            return pool.size
        ready = max(pool.ready, 1)
        least, most = floor(ready / 2), ceil(1000 * ready)
        calm = min(max(ceil((stable.in_flight + stable.waiting) / self._target), least), most)
        hurried = min(max(ceil((panic.in_flight + panic.waiting) / self._target), least), most)
        if hurried / ready >= 2.0:
            if now >= self._panic_until:
                self._panic_size = 0
            self._panic_until = now + 60.0
        if now < self._panic_until:
            self._panic_size = max(self._panic_size, hurried, calm, pool.ready)
            return self._panic_size
        return calm


class RayServe:
    """Ray Serve's default policy (docs.ray.io, "Advanced Ray Serve Autoscaling").

    Replicas · (ongoing requests a replica ÷ target) over the last 30 s, acted on after it has asked the same
    way for 30 s (up) or 600 s (down).
    """

    name, interval_s = "ray-serve", 1.0

    def __init__(self, target: float = 2.0) -> None:
        self._target = target
        self._way, self._since = 0, 0.0

    def desired(self, now: float, pool: Pool, meter: Meter) -> int:
        seen = meter.window(30.0)
        if seen is None:
            return pool.size
        wanted = max(ceil((seen.in_flight + seen.waiting) / self._target), pool.minimum)
        way = (wanted > pool.size) - (wanted < pool.size)
        if way != self._way:
            self._way, self._since = way, now
        if way and now - self._since >= (30.0 if way > 0 else 600.0):
            self._way = 0
            return wanted
        return pool.size

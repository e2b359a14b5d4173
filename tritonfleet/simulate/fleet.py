"""The part of a simulated pool that is not about requests: virtual time, replicas that load, serve, die and
leave, the scaler's word, and the record of it all.

Restarts (`core.restart`) and whoever scales are the real ones. How requests are served is the subclass's:
one by one (`simulate.engine`) or by their rates (`simulate.aggregate`).
"""

import random
from collections.abc import Callable
from heapq import heappop, heappush

from tritonfleet.core.histogram import Histogram
from tritonfleet.core.restart import RestartPolicy, after_failure
from tritonfleet.simulate.meter import BIN_S, Meter
from tritonfleet.simulate.replica import Job, Replica
from tritonfleet.simulate.result import Point, Result, reversals
from tritonfleet.simulate.scalers import Fleet, Pool, Scaler
from tritonfleet.simulate.scenario import Scenario

WARM_S = 5.0  # as `controller.signals.WARM_S`
WAKES_S = 300.0  # a request waits so long for a pool that sleeps: `startup_timeout`, if not given


class SimulatedFleet:
    """Events happen in order of time; of the same time, in the order in which they were asked for."""

    def __init__(self, scenario: Scenario, scaler: Scaler) -> None:
        self.scenario, self.scaler = scenario, scaler
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._turn = 0
        self._draw = random.Random(f"{scenario.seed} failures")  # noqa: S311 # for a simulation
        self._replicas: list[Replica] = []
        self._serving: list[Replica] = []
        self._numbers = 0
        self._size = scenario.initial
        self._sizes = [self._size]
        self.meter = Meter()
        self._latencies, self._recent = Histogram(), Histogram()
        self._arrived = self._arrived_before = 0
        self._missed = self._refused = self._resent = self._failures = self._peak = 0
        self._replica_s = 0.0
        self._woken_at = 0.0  # a replica serves again since then
        self._timeline: list[Point] = []

    # ------------------------------------------------------------ what the subclass knows

    def _waiting(self) -> int:
        """Requests in the router."""
        raise NotImplementedError

    def _sample(self) -> None:
        """Close a bin of the meter; called every `BIN_S`."""
        raise NotImplementedError

    def _more_room(self) -> None:
        """A replica has become ready."""

    def _lost(self, jobs: list[Job]) -> None:
        """A replica has died with these."""

    # ------------------------------------------------------------ time

    def _begin(self) -> None:
        for _ in range(self.scenario.initial):
            self._ready(self._launch())
        self._at(BIN_S, self._sampled)
        self._at(self.scaler.interval_s, self._scale)
        self._at(self.scenario.every_s, self._point)
        for when in self.scenario.kills_s:
            self._at(when, self._kill)

    def _at(self, when: float, what: Callable[[], None]) -> None:
        self._turn += 1
        heappush(self._events, (when, self._turn, what))

    def _step(self) -> None:
        """To the next event."""
        self.now, _, happens = heappop(self._events)
        happens()

    def _sampled(self) -> None:
        self._sample()
        self._at(self.now + BIN_S, self._sampled)

    # ------------------------------------------------------------ replicas

    def _launch(self) -> Replica:
        replica = Replica(self._numbers, self.now)
        self._numbers += 1
        self._replicas.append(replica)
        self._peak = max(self._peak, len(self._replicas))
        return replica

    def _load(self, replica: Replica, delay_s: float = 0.0) -> None:
        spread = self.scenario.cold_start_spread
        takes = self.scenario.cold_start_s * self._draw.uniform(1 - spread, 1 + spread)
        replica.cold_start_s = takes
        self._at(self.now + delay_s + takes, lambda: self._ready(replica))

    def _ready(self, replica: Replica) -> None:
        if replica.gone:
            return
        replica.cold_start_s = replica.cold_start_s or self.scenario.cold_start_s
        replica.ready_at = self.now
        self._renew()
        if self.scenario.mtbf_s is not None:
            since = self.now
            lives = self._draw.expovariate(1 / self.scenario.mtbf_s)
            self._at(self.now + lives, lambda: self._fail(replica, since))
        self._more_room()

    def _fail(self, replica: Replica, since: float) -> None:
        if replica.gone or replica.ready_at != since:
            return
        self._failures += 1
        lost = replica.lose_all()
        verdict = after_failure(
            RestartPolicy(), replica.failures, ready_for_s=self.now - since, what="it died"
        )
        replica.failures = verdict.failures
        if replica.leaving:
            self._gone(replica)
        else:
            self._load(replica, verdict.delay_s)
        self._renew()
        self._lost(lost)

    def _kill(self) -> None:
        if self._serving:
            first = self._serving[0]
            self._fail(first, first.ready_at or 0.0)

    def _gone(self, replica: Replica) -> None:
        replica.gone = True
        self._replicas.remove(replica)
        self._replica_s += self.now - replica.launched_at
        self._renew()

    def _renew(self) -> None:
        slept = not self._serving
        self._serving = [replica for replica in self._replicas if replica.serves]
        if slept and self._serving:
            self._woken_at = self.now

    @property
    def _patience_s(self) -> float:
        """How long a request that comes now may wait in the router."""
        asleep = not self._serving and not self.scenario.minimum and isinstance(self.scaler, Fleet)
        return max(self.scenario.max_wait_s, WAKES_S) if asleep else self.scenario.max_wait_s

    # ------------------------------------------------------------ size

    def _pool(self) -> Pool:
        kept = [replica for replica in self._replicas if not replica.leaving]
        ages = [self.now - (replica.ready_at or 0.0) for replica in self._serving]
        warming = sum(age < WARM_S for age in ages)
        return Pool(
            self._size, self.scenario.minimum, self.scenario.maximum, len(self._serving),
            warming if self.now > WARM_S else 0, sum(replica.ready_at is None for replica in kept),
            len(self._replicas) - len(kept), self.scenario.instances, self.scenario.slots,
            max((replica.cold_start_s or 0.0 for replica in self._serving), default=None),
            min((age for age in ages if age >= WARM_S), default=None), self._waiting(),
        )  # fmt: skip

    def _scale(self) -> None:
        wanted = self.scaler.desired(self.now, self._pool(), self.meter)
        wanted = min(max(wanted, self.scenario.minimum), self.scenario.maximum)
        if wanted != self._size:
            self._size = wanted
            self._sizes.append(wanted)
        kept = [replica for replica in self._replicas if not replica.leaving]
        for _ in range(wanted - len(kept)):
            self._load(self._launch())
        # Not-ready ones first, then the highest numbers, as `core.reconcile` has it.
        kept.sort(key=lambda replica: (replica.ready_at is None, replica.number), reverse=True)
        for replica in kept[: max(len(kept) - wanted, 0)]:
            replica.leaving = True
            if not replica.in_flight:
                self._gone(replica)
        self._renew()
        self._at(self.now + self.scaler.interval_s, self._scale)

    # ------------------------------------------------------------ measuring

    def _point(self) -> None:
        rate = (self._arrived - self._arrived_before) / self.scenario.every_s
        p99, self._arrived_before = self._recent.quantile(0.99), self._arrived
        self._recent = Histogram()
        self._timeline.append(Point(self.now, rate, self._size, len(self._serving), self._waiting(), p99))
        self._at(self.now + self.scenario.every_s, self._point)

    def result(self) -> Result:
        spent = self._replica_s + sum(self.now - replica.launched_at for replica in self._replicas)
        return Result(
            scaler=self.scaler.name,
            seed=self.scenario.seed,
            duration_s=self.now,
            requests=self._arrived,
            refused=self._refused,
            resent=self._resent,
            slo_s=self.scenario.slo_s,
            missed=self._missed,
            p50_s=self._latencies.quantile(0.5) or 0.0,
            p99_s=self._latencies.quantile(0.99) or 0.0,
            replica_hours=spent / 3600,
            peak_replicas=self._peak,
            scale_actions=len(self._sizes) - 1,
            reversals=reversals(self._sizes),
            failures=self._failures,
            timeline=tuple(self._timeline),
        )

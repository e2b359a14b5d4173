"""What the routers' table says beside who is there: costs, paces and regions (`core.correction`).

At every reading of a replica's statistics a sample is taken of what Triton and the routers have counted; the
differences over the last seconds are what the corrections are made of.
"""

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from tritonfleet.core.correction import ModelDone, ReplicaDone, learned_slots, paces, prior
from tritonfleet.core.settings import Setting, partial_regions
from tritonfleet.core.stats import ModelCounters, busy_ns
from tritonfleet.core.wire import RouterTelemetry

WINDOW_S = 12.0
SHORTEST_S = 4.0  # two readings: less says too little


@dataclass(frozen=True, slots=True)
class TableHints:
    """``paces`` by instance, ``slots`` by instance and model where more was learned than the configuration
    says, ``priors`` by model, ``regions`` as in `RouterTable`."""

    paces: Mapping[str, float] = field(default_factory=dict)
    priors: Mapping[str, float] = field(default_factory=dict)
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    slots: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    models: dict[str, ModelDone]  # since the replica, or a router, began


@dataclass(slots=True)
class _Replica:
    pool: str
    samples: deque[_Sample] = field(default_factory=deque)
    slots: dict[str, int] = field(default_factory=dict)  # learned


class Hints:
    def __init__(self) -> None:
        self._replicas: dict[str, _Replica] = {}  # by instance
        self._paces: dict[str, float] = {}
        self._priors: dict[str, float] = {}

    def count(
        self,
        instance: str,
        pool: str,
        reading: Iterable[ModelCounters],
        reports: Iterable[RouterTelemetry],
        instances: Mapping[str, int],
        now: float,
        slots: Mapping[str, int] = MappingProxyType({}),
        steps: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    ) -> None:
        """A replica's statistics; those of one instance in their order. ``reports``: the newest of all
        running routers; ``instances`` and ``slots``: by model, how many executions go on at once and how
        many requests it can usefully hold, by its configuration; ``steps``: by ensemble, whom it asks."""
        told = [call for report in reports for call in report.calls if call.instance == instance]
        models = {}
        by_model: defaultdict[str, list[ModelCounters]] = defaultdict(list)
        for counters in reading:
            by_model[counters.model].append(counters)
        for model, versions in by_model.items():
            calls = [call for call in told if call.model == model]
            models[model] = ModelDone(
                sum(busy_ns(one.counters) for one in versions) / 1e9,
                sum(one.success_count for one in versions),
                sum(call.served for call in calls),
                sum(call.expected_s for call in calls),
                instances.get(model, 1),
            )
        for ensemble, asked in steps.items():
            for model in asked:
                if ensemble in models and model in models:
                    within = models[model].within + models[ensemble].requests
                    models[model] = replace(models[model], within=within)
        samples = self._replicas.setdefault(instance, _Replica(pool)).samples
        if samples and _fell(samples[-1].models, models):
            samples.clear()
        samples.append(_Sample(now, models))
        while len(samples) > 2 and samples[1].at <= now - WINDOW_S:
            samples.popleft()
        self._learn_slots(self._replicas[instance], slots)
        self._correct(pool)

    def settle(self, alive: Iterable[str]) -> None:
        """Instances that are not ``alive`` have ended."""
        for gone in self._replicas.keys() - set(alive):
            del self._replicas[gone]
            self._paces.pop(gone, None)

    def for_table(self, settings: tuple[Setting, ...], serving: Collection[str]) -> TableHints:
        """``serving``: the instances in the table."""
        paces = {name: pace for name, pace in self._paces.items() if pace != 1.0}
        slots = {name: one.slots for name, one in self._replicas.items() if one.slots and name in serving}
        return TableHints(paces, self._priors, partial_regions(settings, serving), slots)

    @staticmethod
    def _learn_slots(replica: _Replica, configured: Mapping[str, int]) -> None:
        done = _done(replica.samples)
        for model, limit in configured.items() if done is not None else ():
            if done is not None and model in done.models:
                known = replica.slots.get(model, 0)
                found = learned_slots(limit, done.models[model], done.window_s, known)
                if found > limit:
                    replica.slots[model] = found

    def _correct(self, pool: str) -> None:
        done = {name: _done(one.samples) for name, one in self._replicas.items() if one.pool == pool}
        self._paces |= paces({name: one for name, one in done.items() if one is not None}, self._paces)
        whole: defaultdict[str, list[ModelDone]] = defaultdict(list)
        for replica in self._replicas.values():
            for model, counted in replica.samples[-1].models.items():
                whole[model].append(counted)
        for model, counts in whole.items():
            found = prior(counts, self._priors.get(model))
            if found is not None:
                self._priors[model] = found


def _fell(before: Mapping[str, ModelDone], after: Mapping[str, ModelDone]) -> bool:
    """Whether a model was loaded again, or a router started again: then differences mean nothing."""
    return any(
        known.requests > now.requests
        or known.through_routers > now.through_routers
        or known.busy_s > now.busy_s
        for model, known in before.items()
        if (now := after.get(model)) is not None
    )


def _done(samples: deque[_Sample]) -> ReplicaDone | None:
    """Between the first sample and the last; None while they are too close together."""
    first, last = samples[0], samples[-1]
    if last.at - first.at < SHORTEST_S:
        return None
    zero = ModelDone(0.0, 0)
    grown = {}
    for model, now in last.models.items():
        before = first.models.get(model, zero)
        grown[model] = ModelDone(
            now.busy_s - before.busy_s,
            now.requests - before.requests,
            now.through_routers - before.through_routers,
            now.expected_s - before.expected_s,
            now.instances,
            now.within - before.within,
        )
    return ReplicaDone(last.at - first.at, grown)

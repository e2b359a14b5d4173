"""What Triton's own measurements say that the routers cannot see: what a request costs before any came
through a router, and which replica is slower than its peers or loaded by others.

A router knows what it has in flight, which is right at every moment (`core.balance`). Triton's counters come
seconds late, but they count all that a replica did, and how long it computed. So they correct: as a `prior`
for costs that nobody has learned yet, and as a `pace` of a replica, how many seconds it takes for each that
a peer takes. A pace has few levels and each lasts: it is a hint that changes seldom, not a signal.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log10

LEVELS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)  # below 1.5 a replica is as fast as its peers
HOLD = 0.8  # a level ends when the measured pace is below so much of it
MOST_UNSEEN = 1 - 1 / LEVELS[-1]
EVIDENCE_S, EVIDENCE_REQUESTS = 0.5, 50  # of expected work, before a replica is called slow
MOSTLY_SEEN = 0.2  # of its requests may come from elsewhere: of those nobody knows what they should cost
BEYOND = 1.25  # times its instances: so many executions at once are more than measuring error
MOST_SLOTS = 4096
NEW_PRIOR = 1.5  # a prior changes when what is measured is off by this factor


@dataclass(frozen=True, slots=True)
class ModelDone:
    """What one replica did of one model in a window. ``busy_s`` is Triton's compute time of executions, each
    counted once however many requests it served; ``requests`` are all that it executed."""

    busy_s: float
    requests: int
    through_routers: int = 0  # of them, ours, but for those of decoupled models
    expected_s: float = 0.0  # what those were expected to take (`cost.CostModel`)
    instances: int = 1  # executions of the model at once
    within: int = 0  # of ``requests``, those of ensembles on the same replica: they are counted there


@dataclass(frozen=True, slots=True)
class ReplicaDone:
    window_s: float = 0.0
    models: Mapping[str, ModelDone] = field(default_factory=dict)


def unseen_load(done: ReplicaDone) -> float:
    """The share of its time, 0 to 1, that a replica spends on what the routers do not count as work of
    theirs: requests that others send to it, and those of decoupled models, of which none is like another."""
    busy = 0.0
    for model in done.models.values():
        unseen = max(0, model.requests - model.through_routers - model.within)
        if model.requests:
            busy += model.busy_s * unseen / model.requests / model.instances
    return min(busy / done.window_s, MOST_UNSEEN) if done.window_s > 0 else 0.0


def slowness(replica: str, all_done: Mapping[str, ReplicaDone]) -> float:
    """Triton's compute time of a replica over what was expected of its requests, relative to the same of its
    peers; 1.0 without enough evidence on either side. Sizes are in the expectation, so a replica that got
    the long requests is not taken for a slow one."""
    measured = normal = 0.0
    for name, model in all_done[replica].models.items():
        peers = [
            peer
            for other, done in all_done.items()
            if other != replica and (peer := done.models.get(name)) is not None and _is_evidence(peer)
        ]
        if peers and _is_evidence(model):
            ratio = sum(peer.busy_s for peer in peers) / sum(peer.expected_s for peer in peers)
            measured += model.busy_s
            normal += model.expected_s * ratio
    return measured / normal if normal > 0 else 1.0


def _is_evidence(done: ModelDone) -> bool:
    return (
        done.expected_s >= EVIDENCE_S
        and done.through_routers >= EVIDENCE_REQUESTS
        and done.requests - done.through_routers <= MOSTLY_SEEN * done.requests
    )


def paces(all_done: Mapping[str, ReplicaDone], before: Mapping[str, float]) -> dict[str, float]:
    """By instance; ``all_done`` are replicas of one pool. A replica of whose time others take the share u has
    1 − u left, so everything takes 1 / (1 − u) times as long there (processor sharing); only what it has more
    of that than the least loaded peer counts. It is the worse of that and its slowness."""
    left = {name: 1 - unseen_load(done) for name, done in all_done.items()}
    most = max(left.values(), default=1.0)
    return {
        name: level(max(most / left[name], slowness(name, all_done)), before.get(name, 1.0))
        for name in all_done
    }


def level(pace: float, before: float = 1.0) -> float:
    """The largest of `LEVELS` that ``pace`` reaches; the one ``before`` as long as it nearly does."""
    reached = max((one for one in LEVELS if one <= pace), default=1.0)
    return before if before > reached and pace >= HOLD * before else reached


def learned_slots(configured: int, done: ModelDone, window_s: float, before: int) -> int:
    """What a replica can usefully hold of a model whose backend does more than its configuration says: one
    that takes further requests while others are under way, as engines with batching of their own do, has
    more executions at once than it has instances. Then it is given twice as many as it had, which is as much
    as keeps it busy and lets it show whether it can do yet more. Never less than before."""
    at_once = done.busy_s / window_s if window_s > 0 else 0.0
    known = max(configured, before)
    if at_once <= BEYOND * done.instances:
        return known
    return max(known, min(2 * round(at_once), MOST_SLOTS))


def prior(model: list[ModelDone], before: float | None) -> float | None:
    """Seconds of a replica that a request takes on average; None while nothing was executed. Two digits, and
    the one ``before`` while it is about right: it is for a router that has learned nothing yet."""
    requests = sum(done.requests for done in model)
    busy_s = sum(done.busy_s / done.instances for done in model)
    if not requests or busy_s <= 0:
        return before
    measured = busy_s / requests
    if before is not None and 1 / NEW_PRIOR < measured / before < NEW_PRIOR:
        return before
    return round(measured, 1 - int(log10(measured) // 1))

"""Sizes of pools: pinned by a person, or set by the load, or the fleet file's.

Called with every tick: takes a sample of what routers and replicas report, and every two seconds lets
`core.autoscale` decide for each pool whose file has an autoscale section, pinned ones included (what it
decides about these is shown, not carried out). What it remembers outlasts the controller.
"""

from dataclasses import replace
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from tritonfleet.config.autoscale_spec import AutoscaleSpec
from tritonfleet.config.cron import last_and_next
from tritonfleet.config.pool_spec import PoolSpec
from tritonfleet.controller import saved
from tritonfleet.controller.saved import SavedPin
from tritonfleet.controller.signals import PoolSamples, sample
from tritonfleet.controller.slot import Slot
from tritonfleet.core.autoscale import Decision, Memory, Policy, decide
from tritonfleet.core.autoscale_record import written
from tritonfleet.core.autoscale_targets import Targets
from tritonfleet.core.model import ReplicaState
from tritonfleet.core.placement import EPSILON
from tritonfleet.core.schedule import Opening
from tritonfleet.core.signals import named, shown
from tritonfleet.core.wire import AutoscaleAnswer, AutoscaleSignal, AutoscaleStatus
from tritonfleet.drivers.clock import steady_time

if TYPE_CHECKING:
    from tritonfleet.controller.fleet import Fleet

DECIDE_S = 2.0
SAVE_S = 10.0


def models_of(pool: PoolSpec) -> tuple[str, ...]:
    """What the pool's replicas would serve: the file's list, or the repository's folders."""
    if pool.models != ("*",):
        return pool.models
    try:
        folders = [one.name for one in Path(pool.model_repository).iterdir() if one.is_dir()]
    except OSError:  # gone for a moment: then nothing can be woken, and nothing would load
        return ()
    return tuple(sorted(name for name in folders if not name.startswith(".")))


def openings(scaling: AutoscaleSpec, now: float) -> tuple[Opening, ...]:
    """Of every entry of the schedule, the window that began last and the one that comes next. The entries are
    by the wall clock; the windows are in the time of ``now``, which does not step with it."""
    ahead = round(time() - steady_time(), 1)
    return tuple(
        Opening(str(entry), entry.min, start - ahead, start - ahead + entry.length)
        for entry in scaling.schedule
        for start in last_and_next(entry.cron, entry.timezone, now + ahead)
        if start is not None
    )


def policy_of(pool: PoolSpec, scaling: AutoscaleSpec, now: float) -> Policy:
    return Policy(
        minimum=pool.replicas.min,
        maximum=pool.replicas.max,
        targets=Targets(
            scaling.target_utilization, scaling.latency.p99, scaling.queue_time.mean, scaling.queue_time.p99,
            scaling.queue_depth,
        ),
        spare=scaling.spare,
        panic_threshold=scaling.scale_up.panic_threshold,
        panic_hold_s=2 * scaling.scale_up.window,
        stabilization_s=scaling.scale_down.stabilization,
        step_s=scaling.scale_down.step,
        forecast=scaling.forecast,
        schedule=openings(scaling, now),
    )  # fmt: skip


class Autoscaler:
    def __init__(self, fleet: "Fleet", pins: dict[str, SavedPin]) -> None:
        self._fleet = fleet
        self.pins = pins  # of fleet.sizes; a size without one has no end
        self._memory = saved.read(fleet.paths.autoscale_file, dict[str, Memory]) or {}
        self.decisions: dict[str, Decision] = {}
        self._acted: dict[str, bool] = {}  # by pool: whether its last decision was carried out
        self.decided: dict[tuple[str, str], int] = {}  # by pool and "up", "down", "hold": how often
        self._samples: dict[str, PoolSamples] = {}
        self._decided_at = self._saved_at = 0.0

    # ------------------------------------------------------------ sizes

    def size_of(self, pool: str) -> int:
        """What is in force now, always within the pool's bounds."""
        found = self._fleet.spec.pools[pool]
        size = self._fleet.sizes.get(pool)
        if size is None and self._acts(pool):
            memory = self._memory.get(pool)
            size = memory.size if memory is not None else None
        size = found.replicas.first_size if size is None else size
        return min(max(size, found.replicas.min), found.replicas.max)

    def reason(self, pool: str) -> str:
        """Why the size is what it is, in words."""
        wanted, size = self._fleet.sizes.get(pool), self.size_of(pool)
        bounds = self._fleet.spec.pools[pool].replicas
        decision = self.decisions.get(pool)
        if wanted is not None:
            pin = self.pins.get(pool, SavedPin())
            by = "paused by hand" if pin.by == "autoscale pause" else "scaled by hand"
            return by if wanted == size else f"scaled to {wanted}, bounds {bounds.min}..{bounds.max}"
        if self._acts(pool):
            return f"autoscaled: {decision.reason}" if decision else "autoscaled: no decision yet"
        if decision is not None:
            return f"the fleet file's size; autoscaling, dry run: {decision.reason}"
        return "the fleet file's size"

    def _acts(self, pool: str) -> bool:
        scaling = self._fleet.spec.pools[pool].autoscale
        return scaling is not None and not scaling.dry_run

    def autoscaled(self, pool: str) -> bool:
        return self._acts(pool) and pool not in self._fleet.sizes

    def pin(self, sizes: dict[str, int], by: str, until: float | None) -> None:
        self._fleet.sizes.update(sizes)
        self.pins.update({pool: SavedPin(by, until) for pool in sizes})

    def unpin(self, pool: str) -> None:
        """What was pinned is where autoscaling goes on from."""
        size = self.size_of(pool)
        self._fleet.sizes.pop(pool, None)
        self.pins.pop(pool, None)
        if pool in self._memory:
            self._memory[pool] = replace(self._memory[pool], size=size)
        elif self._acts(pool):
            self._memory[pool] = Memory(size)

    # ------------------------------------------------------------ with every tick

    def step(self, now: float) -> None:
        ended = [name for name, pin in self.pins.items() if pin.until is not None and pin.until <= now]
        for over in ended:
            if over in self._fleet.sizes:
                self.unpin(over)
                self._fleet.journal.add("pool.unpinned", over, "its time is over")
            self.pins.pop(over, None)
        due = now - self._decided_at >= DECIDE_S
        self._forget_unscaled()
        for name, pool in self._fleet.spec.pools.items():
            if pool.autoscale is None:
                continue
            self._sample(name, pool.autoscale, now)
            if due or (self.size_of(name) == 0 and self._wanted_by(name)):
                self._decide(name, pool, pool.autoscale, now)
        if due:
            self._decided_at = now
        if now - self._saved_at >= SAVE_S:
            self.save(now)

    def _forget_unscaled(self) -> None:
        """Of pools that the file has no autoscale section for: should they get one (again), the load goes on
        from the size they have then."""
        scaled = {name for name, pool in self._fleet.spec.pools.items() if pool.autoscale is not None}
        for kept in (self.decisions, self._memory, self._samples, self._acted):
            for name in kept.keys() - scaled:
                del kept[name]

    def _sample(self, pool: str, scaling: AutoscaleSpec, now: float) -> None:
        samples = self._samples.setdefault(pool, PoolSamples())
        if not samples.due(now):
            return
        telemetry, running = self._fleet.telemetry, self._fleet.workers.running
        reports = telemetry.all_of(running)
        ages = [telemetry.age_s(worker, now) for worker in running]
        known = [age for age in ages if age is not None]
        age = max(known) if known and len(known) == len(ages) else None
        samples.add(sample(reports, age, self._slots(pool), now), scaling.scale_up.window + 1)

    def _slots(self, pool: str) -> list[Slot]:
        return [slot for slot in self._fleet.slots.values() if slot.pool == pool]

    def _decide(self, name: str, pool: PoolSpec, scaling: AutoscaleSpec, now: float) -> None:
        spans = (scaling.scale_up.window, scaling.scale_up.panic_window)
        signals = self._samples[name].signals(self._slots(name), now, spans, self._room(name))
        signals = replace(signals, wanted_by=self._wanted_by(name))
        memory = replace(self._memory.get(name, Memory()), size=self.size_of(name))
        policy = policy_of(pool, scaling, now)
        decision = decide(policy, signals, memory, now)
        before, self.decisions[name] = self.decisions.get(name), decision
        way = "hold" if decision.count == decision.before else "up"
        way = "down" if decision.count < decision.before else way
        self.decided[name, way] = self.decided.get((name, way), 0) + 1
        acts = self.autoscaled(name)
        size = decision.count if acts else memory.size
        self._memory[name] = replace(decision.memory, size=size)
        same = before is not None and (before.before, before.count) == (decision.before, decision.count)
        told = same and not self._acted.get(name, False)  # the same as a deed is a new wish under a pin
        self._acted[name] = acts
        if decision.count == decision.before or (told and not acts):
            return  # a wish that is not carried out is told once
        instead = (
            "" if acts else " (not done: pinned)" if name in self._fleet.sizes else " (not done: dry run)"
        )
        self._fleet.journal.add(
            "pool.autoscaled" if acts else "pool.would_autoscale", name, f"{decision.reason}{instead}",
            **written(policy, decision),
        )  # fmt: skip
        if acts:
            self.save(now)

    # ------------------------------------------------------------ asleep

    def asleep(self) -> dict[str, float]:
        """The models of pools that sleep, but for those that another pool serves, each with the seconds that
        the first replica may take: a request for one may wait so long."""
        found: dict[str, float] = {}
        for name, pool in self.sleeping().items():
            found |= dict.fromkeys(self._models_of(name), pool.startup_timeout)
        served = self._served() if found else set()
        return {model: seconds for model, seconds in found.items() if model not in served}

    def _served(self) -> set[str]:
        """The models that some ready replica has."""
        ready = (slot for slot in self._fleet.slots.values() if slot.state is ReplicaState.READY)
        return {model.name for slot in ready for model in slot.models if model.ready}

    def sleeping(self) -> dict[str, PoolSpec]:
        """The pools that may have no replica and have none that is ready. One that a person set to 0 stays
        there, so it is not among them."""
        return {
            name: pool
            for name, pool in self._fleet.spec.pools.items()
            if not pool.replicas.min
            and self.autoscaled(name)
            and not any(slot.state is ReplicaState.READY for slot in self._slots(name))
        }

    def sleepers_with(self, model: str, version: str = "") -> tuple[str, ...]:
        """The pools that sleep and would serve it if they were woken, as far as the repository's folders say;
        one that is not on this host says nothing against a version."""
        found = []
        for name, pool in self.sleeping().items():
            folder = Path(pool.model_repository) / model
            there = not version or not folder.is_dir() or (version.isdigit() and (folder / version).is_dir())
            if there and model in self._models_of(name):
                found.append(name)
        return tuple(found)

    def _models_of(self, name: str) -> tuple[str, ...]:
        """What a replica of the pool serves when it is ready: what the file says, and what clients loaded and
        unloaded since, which is replayed."""
        found = dict.fromkeys(models_of(self._fleet.spec.pools[name]))
        for said in self._fleet.settings.entries:
            if said.kind == "model" and (not said.pools or name in said.pools):
                found.pop(said.subject, None)
                if said.path.endswith("/RepositoryModelLoad"):
                    found[said.subject] = None
        return tuple(found)

    def _wanted_by(self, name: str) -> str:
        """A model of the pool that requests wait for in the routers while nobody serves it; "" if none."""
        reports = self._fleet.telemetry.all_of(self._fleet.workers.running)
        waiting = {model for report in reports for model in report.waiting_by_model}
        wanted = waiting - self._served() if waiting else waiting
        return min(wanted.intersection(self._models_of(name)), default="") if wanted else ""

    def _room(self, pool: str) -> int:
        """How many fit on the devices beside the other pools at their sizes. A device that is set aside
        counts while replicas serve on there."""
        pools = self._fleet.spec.pools
        taken = sum(self.size_of(name) * one.replicas.share for name, one in pools.items() if name != pool)
        used = {device for slot in self._fleet.slots.values() for device in slot.devices}
        return max(int((self._fleet.desk.usable(used) - taken) / pools[pool].replicas.share + EPSILON), 0)

    # ------------------------------------------------------------ memory

    def save(self, now: float) -> None:
        self._saved_at = now
        wanted = {name: one for name, one in self._memory.items() if name in self._fleet.spec.pools}
        if wanted or self._fleet.paths.autoscale_file.exists():
            self._fleet.disk.write(self._fleet.paths.autoscale_file, wanted)

    def clear(self) -> None:
        self._fleet.paths.autoscale_file.unlink(missing_ok=True)

    # ------------------------------------------------------------ shown

    def statuses(self) -> list[AutoscaleStatus]:
        return [self._status(name, pool) for name, pool in self._fleet.spec.pools.items()]

    def _status(self, name: str, pool: PoolSpec) -> AutoscaleStatus:
        pinned = name in self._fleet.sizes
        mode = "off"
        if pool.autoscale is not None:
            mode = "pinned" if pinned else "dry run" if pool.autoscale.dry_run else "on"
        plain = AutoscaleStatus(name, mode, self.size_of(name), pool.replicas.min, pool.replicas.max)
        pin = self.pins.get(name)
        plain = replace(plain, pinned_until=pin.until if pin and pinned else None, reason=self.reason(name))
        decision = self.decisions.get(name)
        return plain if decision is None else _filled(plain, decision)


def _filled(plain: AutoscaleStatus, decision: Decision) -> AutoscaleStatus:
    signals, memory = decision.signals, decision.memory
    fast = named(signals.fast)
    return replace(
        plain,
        at=decision.at,
        wanted=decision.count,
        asked=decision.asked,
        reason=decision.reason,
        panic=decision.panic,
        clipped=decision.clipped,
        ready=signals.ready,
        warming=signals.warming,
        loading=signals.loading,
        pending=signals.pending,
        leaving=signals.leaving,
        cold_start_s=signals.cold_start_s,
        forecast=str(memory.forecast) if memory.forecast.at else "",
        answers=tuple(AutoscaleAnswer(one.target, one.count, one.why) for one in decision.answers),
        signals=tuple(
            AutoscaleSignal(
                name, one.value, one.age_s, one.trouble, fast[name].value if name in fast else None,
                shown(name, one.value),
            )
            for name, one in named(signals.stable).items()
        ),
        changed_at=memory.changed_at or None,
    )  # fmt: skip

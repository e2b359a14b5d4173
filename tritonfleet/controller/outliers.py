"""Replaces replicas whose answers are bad although their health probes pass, by what the routers report."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tritonfleet.controller.slot import Slot
from tritonfleet.core.device_health import DeviceFailure
from tritonfleet.core.ejection import BAD_STATUSES
from tritonfleet.core.model import ReplicaState
from tritonfleet.core.outliers import Answers, is_broken
from tritonfleet.core.wire import RouterTelemetry

if TYPE_CHECKING:
    from tritonfleet.controller.fleet import Fleet


class Outliers:
    """``_since`` holds, for a launch that was left out once, what all others had answered by then."""

    def __init__(self) -> None:
        self._since: dict[str, dict[str, Answers]] = {}  # by instance

    def review(self, fleet: "Fleet", now: float) -> None:
        """Drain those that are broken and launch them again; at most one of a pool at a time."""
        reports = fleet.telemetry.all_of(fleet.workers.running)
        if not any(row.ejections for report in reports for row in report.replicas):
            self._since.clear()
            return
        answers = answers_of(reports)
        ready = {
            slot.instance.instance: slot for slot in fleet.slots.values() if slot.instance and _is_ready(slot)
        }
        self._since = {
            name: self._since.get(name, answers)
            for name, slot in ready.items()
            if answers.get(name, Answers()).ejections and not slot.held
        }
        for name, before in self._since.items():
            slot = ready[name]
            if not _is_ready(slot) or any(_is_leaving(other, slot.pool) for other in fleet.slots.values()):
                continue
            others = [
                answers.get(other, Answers()).since(before.get(other, Answers()))
                for other, its in ready.items()
                if other != name and its.pool == slot.pool
            ]
            reason = is_broken(answers[name], others)
            if reason:
                _replace(fleet, slot, reason, now)


def _replace(fleet: "Fleet", slot: Slot, reason: str, now: float) -> None:
    fleet.desk.failed(slot.devices, DeviceFailure(now, slot.id, slot.config_hash, reason))
    fleet.journal.add("replica.unhealthy", slot.id, f"{reason}: it is replaced")
    slot.after_stop = "relaunch"
    fleet.lives.drain(slot, f"replaced: {reason}", now)


def _is_ready(slot: Slot) -> bool:
    return slot.state is ReplicaState.READY


def _is_leaving(slot: Slot, pool: str) -> bool:
    return slot.pool == pool and slot.state in (ReplicaState.DRAINING, ReplicaState.STOPPING)


def answers_of(reports: Iterable[RouterTelemetry]) -> dict[str, Answers]:
    """By instance, summed over the workers."""
    found: dict[str, Answers] = {}
    for report in reports:
        for row in report.replicas:
            known = found.get(row.instance, Answers())
            why = row.last_error if row.ejected else known.why
            found[row.instance] = Answers(known.ejections + row.ejections, known.bad, known.finished, why)
        for call in report.calls:
            known = found.get(call.instance, Answers())
            bad = sum(count for code, count in call.codes.items() if int(code) in BAD_STATUSES)
            found[call.instance] = Answers(
                known.ejections, known.bad + bad, known.finished + sum(call.codes.values()), known.why
            )
    return found

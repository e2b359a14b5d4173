"""A decision of the autoscaler as the journal keeps it, and back: what changed, why, and all it rested on.

The journal's data is flat; here a signal ``rate`` is ``signal.rate``, a setting ``spare``
is ``policy.spare``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from tritonfleet.core.autoscale import Decision, Policy
from tritonfleet.core.autoscale_targets import Targets
from tritonfleet.core.model import Event
from tritonfleet.core.signals import named

Value = str | int | float | bool | None
TYPES = {"pool.autoscaled": True, "pool.would_autoscale": False}  # and whether it was carried out
_BOUNDS = ("minimum", "maximum", "room")


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """``at`` in seconds since the epoch. ``signals`` are the means of the stable window, in the units of
    `core.signals.UNITS`; None: not known. What an older version has not written is missing."""

    at: float
    pool: str
    before: int
    after: int
    reason: str
    done: bool
    asked: int | None = None
    clipped: str = ""
    panic: bool = False
    signals: Mapping[str, Value] = field(default_factory=dict)
    bounds: Mapping[str, Value] = field(default_factory=dict)
    policy: Mapping[str, Value] = field(default_factory=dict)


def written(policy: Policy, decision: Decision) -> dict[str, Value]:
    """The data of the decision's event."""
    signals, targets = decision.signals, policy.targets
    data: dict[str, Value] = {
        "before": decision.before, "after": decision.count, "asked": decision.asked,
        "clipped": decision.clipped, "panic": decision.panic,
        "minimum": policy.minimum, "maximum": policy.maximum, "room": signals.room,
    }  # fmt: skip
    counts = ("ready", "warming", "loading", "pending", "broken", "leaving", "cold_start_s")
    data |= {f"signal.{name}": getattr(signals, name) for name in counts}
    data |= {f"signal.{name}": signal.value for name, signal in named(signals.stable).items()}
    settings = [one.name for one in fields(Policy) if one.name not in (*_BOUNDS, "targets", "schedule")]
    data |= {f"policy.{name}": getattr(policy, name) for name in settings}
    data |= {f"policy.{one.name}": getattr(targets, one.name) for one in fields(Targets)}
    data["policy.schedule"] = ", ".join(dict.fromkeys(one.name for one in policy.schedule))
    return data


def read(event: Event) -> DecisionRecord | None:
    """None for an event that is no decision."""
    data = event.data
    before, after, asked = data.get("before"), data.get("after"), data.get("asked")
    if event.type not in TYPES or not isinstance(before, int) or not isinstance(after, int):
        return None
    return DecisionRecord(
        event.at, event.subject, before, after, event.reason, TYPES[event.type],
        asked if isinstance(asked, int) else None,
        str(data.get("clipped") or ""),
        bool(data.get("panic")),
        _part(data, "signal."),
        {name: data[name] for name in _BOUNDS if name in data},
        _part(data, "policy."),
    )  # fmt: skip


def _part(data: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    return {name.removeprefix(prefix): value for name, value in data.items() if name.startswith(prefix)}

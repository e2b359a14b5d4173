"""What an observation of a replica means for its state."""

from dataclasses import dataclass
from typing import Literal

from tritonfleet.core.model import ModelStatus, Replica, ReplicaState


@dataclass(frozen=True, slots=True)
class Probe:
    """One question to one replica, answered or not. ``error`` is "" when it answered; ``refused``: nothing
    listened there, which while loading is the normal state."""

    at: float
    models: tuple[ModelStatus, ...] = ()
    error: str = ""
    refused: bool = False


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    startup_timeout_s: float = 300.0
    failures: int = 3


@dataclass(frozen=True, slots=True)
class Step:
    """A new state, or the same one with a better reason."""

    state: ReplicaState
    reason: str


def unready(models: tuple[ModelStatus, ...], wanted: tuple[str, ...]) -> list[str]:
    """What is not ready of what should be, in words; what was unloaded on purpose should not. ``*`` means all
    that the repository has."""
    if "*" in wanted:
        missing = [model for model in models if not model.ready]
        if not models:
            return ["the model repository is empty"]
    else:
        known = {model.name: model for model in models}
        listed = (
            known.get(name, ModelStatus(name, False, reason="not in the repository")) for name in wanted
        )
        missing = [model for model in listed if not model.ready]
    missing = [model for model in missing if model.reason != "unloaded"]
    return [f"{model.name} ({model.reason})" if model.reason else model.name for model in missing]


def changed_readiness(
    before: tuple[ModelStatus, ...], now: tuple[ModelStatus, ...]
) -> list[tuple[Literal["lost", "back"], str]]:
    """Models of a ready replica that failed, or came back, each with a sentence. What was loaded or unloaded
    on purpose is no news here: whoever did it has noted it."""
    was = {model.name: model for model in before}
    news: list[tuple[Literal["lost", "back"], str]] = []
    for model in now:
        earlier = was.get(model.name, model)
        if earlier.ready and not model.ready and model.reason != "unloaded":
            reason = model.reason or "no reason given"
            news.append(
                ("lost", f"{model.name} is not ready any more ({reason}): nothing is sent there for it")
            )
        elif model.ready and not earlier.ready and earlier.reason != "unloaded":
            news.append(("back", f"{model.name} is ready again"))
    return news


def while_loading(
    replica: Replica, probe: Probe, wanted: tuple[str, ...], policy: HealthPolicy, now: float
) -> Step | None:
    """A replica that was launched and is not ready yet."""
    age = now - (replica.started_at if replica.started_at is not None else replica.since)
    missing = ["its models: the server's port is closed until they are loaded"] if probe.error else []
    missing = missing or unready(probe.models, wanted)
    if not probe.error and not missing:
        ready = sum(model.ready for model in probe.models)
        models = "model" if ready == 1 else "models"
        return Step(ReplicaState.READY, f"{ready} {models} ready after {age:.1f} s")
    waiting = f"waiting for {', '.join(missing)}"
    if probe.error and not probe.refused:
        waiting = f"waiting for its models: {probe.error}"
    if age > policy.startup_timeout_s:
        return Step(ReplicaState.FAILED, f"not ready within {policy.startup_timeout_s:g} s: {waiting}")
    if replica.state is not ReplicaState.LOADING or replica.reason != waiting:
        return Step(ReplicaState.LOADING, waiting)
    return None


def while_serving(probe: Probe, failed_in_a_row: int, policy: HealthPolicy) -> Step | None:
    """A replica that is ready; ``failed_in_a_row`` counts this probe if it failed. One failed probe means
    nothing: probes share one thread of Triton's with slow calls (server issue 4715)."""
    if not probe.error or failed_in_a_row < policy.failures:
        return None
    return Step(
        ReplicaState.FAILED, f"{failed_in_a_row} health probes in a row failed, the last one: {probe.error}"
    )

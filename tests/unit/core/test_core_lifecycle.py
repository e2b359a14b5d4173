"""What an observation means for a replica's state."""

from dataclasses import replace

import pytest

from tritonfleet.core.lifecycle import (
    HealthPolicy,
    Probe,
    changed_readiness,
    unready,
    while_loading,
    while_serving,
)
from tritonfleet.core.model import ModelStatus, Replica, ReplicaState

POLICY = HealthPolicy(startup_timeout_s=300.0, failures=3)
LOADING = Replica(
    "main-0", "main", 1, ReplicaState.LOADING, 100.0, "launched", "hash", started_at=100.0, host="127.0.0.1"
)
DIGITS = ModelStatus("digits", True, ("1",))
ECHO = ModelStatus("echo", True, ("1",))
BROKEN = ModelStatus("broken", False, (), "no module named x")
CLOSED = Probe(101.0, error="nothing listens on 127.0.0.1:20001", refused=True)


def loaded(*models: ModelStatus) -> Probe:
    return Probe(102.0, models)


def test_ready_when_every_model_is() -> None:
    step = while_loading(LOADING, loaded(DIGITS, ECHO), ("*",), POLICY, 102.13)
    assert step is not None
    assert (step.state, step.reason) == (ReplicaState.READY, "2 models ready after 2.1 s")


def test_a_closed_port_is_the_normal_state_of_loading() -> None:
    step = while_loading(LOADING, CLOSED, ("*",), POLICY, 101.0)
    assert step is not None
    assert step.state is ReplicaState.LOADING
    assert step.reason == "waiting for its models: the server's port is closed until they are loaded"


def test_the_same_news_twice_is_no_news() -> None:
    step = while_loading(LOADING, CLOSED, ("*",), POLICY, 101.0)
    assert step is not None
    known = replace(LOADING, reason=step.reason)
    assert while_loading(known, CLOSED, ("*",), POLICY, 102.0) is None


def test_one_model_that_is_not_ready_holds_the_replica_back_by_name() -> None:
    step = while_loading(LOADING, loaded(DIGITS, BROKEN), ("*",), POLICY, 102.0)
    assert step is not None
    assert (step.state, step.reason) == (ReplicaState.LOADING, "waiting for broken (no module named x)")


def test_a_server_that_answers_wrongly_is_quoted() -> None:
    step = while_loading(LOADING, Probe(101.0, error="INTERNAL: out of cheese"), ("*",), POLICY, 101.0)
    assert step is not None
    assert step.reason == "waiting for its models: INTERNAL: out of cheese"


@pytest.mark.parametrize("probe", [CLOSED, loaded(BROKEN), Probe(1.0, error="no answer within 5 s")])
def test_the_startup_timeout_ends_every_kind_of_waiting(probe: Probe) -> None:
    at_the_limit = while_loading(LOADING, probe, ("*",), POLICY, 400.0)
    assert at_the_limit is not None
    assert at_the_limit.state is ReplicaState.LOADING
    late = while_loading(LOADING, probe, ("*",), POLICY, 400.1)
    assert late is not None
    assert late.state is ReplicaState.FAILED
    assert late.reason.startswith("not ready within 300 s: waiting for")


def test_ready_at_the_last_moment_is_ready() -> None:
    step = while_loading(LOADING, loaded(DIGITS), ("*",), POLICY, 1000.0)
    assert step is not None
    assert step.state is ReplicaState.READY


def test_only_the_models_asked_for_count() -> None:
    assert unready((DIGITS, BROKEN), ("digits",)) == []
    assert unready((DIGITS, BROKEN), ("digits", "broken")) == ["broken (no module named x)"]
    assert unready((DIGITS,), ("digits", "image")) == ["image (not in the repository)"]


def test_what_somebody_unloaded_is_not_missing() -> None:
    """Also not where the fleet file names it: a client unloaded it from the whole fleet meanwhile."""
    unloaded = ModelStatus("echo", False, (), "unloaded")
    assert unready((DIGITS, unloaded), ("*",)) == []
    assert unready((DIGITS, unloaded), ("digits", "echo")) == []
    assert unready((DIGITS, ModelStatus("echo", False, (), "unloading")), ("echo",)) == ["echo (unloading)"]


def test_an_empty_repository_is_never_ready() -> None:
    assert unready((), ("*",)) == ["the model repository is empty"]


def test_several_failed_probes_before_a_verdict() -> None:
    failed = Probe(1.0, error="no answer within 5 s")
    assert while_serving(failed, 1, POLICY) is None
    assert while_serving(failed, 2, POLICY) is None
    step = while_serving(failed, 3, POLICY)
    assert step is not None
    assert step.state is ReplicaState.FAILED
    assert step.reason == "3 health probes in a row failed, the last one: no answer within 5 s"


def test_an_answer_is_no_failure_whatever_was_before() -> None:
    assert while_serving(loaded(DIGITS), 99, POLICY) is None


def test_a_model_that_fails_on_a_ready_replica_is_news_and_one_that_was_unloaded_is_not() -> None:
    lost = ModelStatus("echo", False, (), "no module named x")
    assert changed_readiness((DIGITS, ECHO), (DIGITS, lost)) == [
        ("lost", "echo is not ready any more (no module named x): nothing is sent there for it")
    ]
    assert changed_readiness((lost,), (ECHO,)) == [("back", "echo is ready again")]
    unloaded = ModelStatus("echo", False, (), "unloaded")
    for before, after in ((ECHO, unloaded), (unloaded, ECHO), (ECHO, ECHO), (unloaded, lost)):
        assert changed_readiness((before,), (after,)) == []
    assert changed_readiness((), (ECHO,)) == []

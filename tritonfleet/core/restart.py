"""When a replica that failed starts again: exponential backoff, and when to call it a crash loop."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Seconds, and a count of failures in a row."""

    backoff_s: float = 1.0
    max_backoff_s: float = 60.0
    crash_loop_after: int = 3
    reset_after_s: float = 600.0


@dataclass(frozen=True, slots=True)
class RestartVerdict:
    """What follows from a failure. ``failures`` is the length of the row, this one included."""

    failures: int
    delay_s: float
    crash_loop: bool
    reason: str


def after_failure(
    policy: RestartPolicy,
    failures: int,
    *,
    ready_for_s: float | None,
    transient: bool = True,
    what: str,
) -> RestartVerdict:
    """``failures`` earlier failures in a row; ``ready_for_s``: how long the failed launch had been ready,
    None if it never was; ``transient``: whether another try can succeed without a person's help.

    The n-th failure in a row waits ``backoff · 2^(n−1)``, at most ``max_backoff``. The first one of a
    replica that had been ready waits not at all: that launch is known to work. A launch that was ready for
    ``reset_after`` ends the row of those before it.
    """
    if ready_for_s is not None and ready_for_s >= policy.reset_after_s:
        failures = 0
    failures += 1
    crash_loop = failures >= policy.crash_loop_after
    if not transient:
        delay = policy.max_backoff_s
        why = "it cannot succeed before something is changed"
    elif failures == 1 and ready_for_s is not None:
        delay = 0.0
        why = "it had been ready"
    else:
        delay = min(policy.backoff_s * 2.0 ** min(failures - 1, 60), policy.max_backoff_s)
        why = f"failure {failures} in a row"
    when = f"starting again in {delay:g} s" if delay else "starting again at once"
    return RestartVerdict(failures, delay, crash_loop, f"{what}; {when} ({why})")

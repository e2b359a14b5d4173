"""What a fleet file may say of a pool's autoscaling."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from tritonfleet.config.cron import checked_cron, checked_zone
from tritonfleet.config.spec_types import Duration, Part, Whole
from tritonfleet.config.units import format_duration


class LatencySpec(Part):
    p99: Duration | None = None
    """99 of 100 requests are to take at most this long, from the router to the end of the answer."""


class QueueTimeSpec(Part):
    mean: Duration | None = None
    """How long requests may wait on average, in the router and in Triton."""
    p99: Duration | None = None
    """How long 99 of 100 requests may wait at most."""


class ScaleUpSpec(Part):
    window: Duration = 15.0
    """Decisions rest on the means of this time."""
    panic_window: Duration = 6.0
    """In a panic, on those of this time."""
    panic_threshold: Annotated[float, Field(gt=1, le=100)] = 2.0
    """It is a panic if that shorter window asks for this multiple of what is ready."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.panic_window > self.window:
            raise ValueError(
                f"panic_window {format_duration(self.panic_window)} is longer than window "
                f"{format_duration(self.window)}"
            )
        return self


class ScaleDownSpec(Part):
    stabilization: Duration = 300.0
    """A pool shrinks when no more was asked for during this time."""
    step: Duration = 15.0
    """The time between two replicas' going."""


class ScheduleEntry(Part):
    cron: Annotated[str, AfterValidator(checked_cron)]
    """When a window begins: minute, hour, day of month, month, weekday."""
    length: Duration = Field(alias="for")  # `for` is a word of Python's
    """How long it lasts."""
    min: Whole = Field(ge=1, le=1024)
    """The fewest replicas in it, within `replicas`."""
    timezone: Annotated[str, AfterValidator(checked_zone)] = "UTC"
    """The time zone of `cron`, such as Europe/Berlin."""

    def __str__(self) -> str:
        return f'"{self.cron}" ({self.timezone})'


class AutoscaleSpec(Part):
    target_utilization: Annotated[float, Field(gt=0, le=0.95)] | None = 0.65
    """The share of the time that a replica may be busy; `null` leaves this target out."""
    latency: LatencySpec = LatencySpec()
    queue_time: QueueTimeSpec = QueueTimeSpec()
    queue_depth: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """How many requests may wait in the router for each replica."""
    spare: Whole = Field(default=0, ge=0, le=1024)
    """Replicas beyond what is needed, for the loss of so many."""
    forecast: bool = True
    """Start replicas for the load that is forecast for when they are ready, while forecasts prove right."""
    scale_up: ScaleUpSpec = ScaleUpSpec()
    scale_down: ScaleDownSpec = ScaleDownSpec()
    schedule: tuple[ScheduleEntry, ...] = ()
    """Windows with a minimum of their own: entries `{cron: "0 8 * * mon-fri", for: 10h, min: 4, timezone:
    Europe/Berlin}`. `timezone` is UTC if not given. Replicas start early enough to be ready in time."""
    dry_run: bool = False
    """Decide and say so; change nothing."""

"""``NAME=TARGET`` as a person writes it → a scaler."""

from collections.abc import Callable

from tritonfleet.core.autoscale import Policy
from tritonfleet.core.autoscale_targets import Targets
from tritonfleet.simulate.baselines import Hpa, Knative, RayServe
from tritonfleet.simulate.scalers import Fleet, Scaler, Static
from tritonfleet.simulate.scenario import Scenario

# By name: the target that is published as its default, and what makes it of a target.
SCALERS: dict[str, tuple[float, Callable[[float, Scenario], Scaler]]] = {
    "tritonfleet": (
        0.65,
        lambda target, scenario: Fleet(Policy(scenario.minimum, scenario.maximum, Targets(target))),
    ),
    "static": (4, lambda target, _: Static(int(target))),
    "hpa": (0.65, lambda target, _: Hpa(target)),
    "hpa-queue": (1.0, lambda target, _: Hpa(target, "queue")),
    # 70 % of what a replica usefully holds, where Knative's own default is 70 % of 100 requests.
    "knative": (0.0, lambda target, scenario: Knative(target or 0.7 * scenario.slots)),
    "ray-serve": (2.0, lambda target, _: RayServe(target)),
}


def scaler_named(text: str, scenario: Scenario) -> Scaler:
    """``hpa=0.5``; without a target its default. Raises ValueError that says what there is."""
    name, given, value = text.partition("=")
    if name not in SCALERS:
        raise ValueError(f"no scaler {name!r}; there are: {', '.join(SCALERS)}")
    target, make = SCALERS[name]
    if given:
        try:
            target = float(value)
        except ValueError:
            target = -1.0
        whole = name != "static" or target == int(target)
        if not 0 < target < float("inf") or not whole:
            raise ValueError(f"{text!r}: the target is a {'whole ' * (not whole)}number above 0: {name}=2")
    return make(target, scenario)

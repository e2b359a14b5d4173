"""Settings that every test shares."""

from hypothesis import settings

# No deadline: how long an example takes says more about the machine than about the code.
settings.register_profile("tritonfleet", deadline=None, database=None)
settings.load_profile("tritonfleet")

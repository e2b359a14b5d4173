"""Settings that every test shares."""

import signal

from hypothesis import settings

# No deadline: how long an example takes says more about the machine than about the code.
settings.register_profile("tritonfleet", deadline=None, database=None)
settings.load_profile("tritonfleet")

# A shell without job control starts what it runs in the background with Ctrl-C ignored, and so would every
# process of a test be that is to end by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

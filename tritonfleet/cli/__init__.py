"""What a person types: parse, call the control API, print. No decisions."""

import atexit
import gc

# Imports make much and drop nothing, and at the end everything goes: looking for garbage meanwhile, and then,
# would be a fifth of the CPU that `ps` takes.
gc.set_threshold(50_000)
atexit.register(gc.freeze)

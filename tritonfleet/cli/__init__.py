"""What a person types: parse, call the control API, print. No decisions."""

import gc

gc.set_threshold(50_000)  # imports make much and drop nothing: looking for garbage meanwhile takes 10 ms

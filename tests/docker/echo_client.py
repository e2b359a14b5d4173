"""Clients of the echo model as a process of their own, where a test cannot be one: they call ADDRESS until
the standard input ends; then it prints what became of the calls."""

import json
import sys

from docker_fleets import Echoing

if __name__ == "__main__":
    with Echoing(sys.argv[1]) as clients:
        print("calling", flush=True)
        sys.stdin.read()
    print(json.dumps({"answered": clients.answered, "failures": clients.failures}))

"""Ports for replicas: free now, outside the range the system hands out by itself, not given out lately."""

import random
import socket

# Below Linux's default ephemeral range (32768–60999): no outgoing connection of anyone takes one of these
# in the seconds between choosing it and Triton's binding it, which is after its models are loaded.
FIRST, LAST = 20_000, 32_700
TRIES = 500


def free_ports(count: int, taken: set[int]) -> list[int]:
    """``count`` free loopback ports that are not in ``taken``. Raises OSError when there are none."""
    source = random.SystemRandom()
    found: list[int] = []
    for _ in range(TRIES):
        port = source.randint(FIRST, LAST)
        if port in taken or port in found or not is_free(port):
            continue
        found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} free ports between {FIRST} and {LAST}")


def is_free(port: int) -> bool:
    """Whether something could listen there on loopback now."""
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True

"""What a service manager is told: READY=1 when the fleet serves as its file says, and how far it is.

systemd's protocol, sd_notify(3): datagrams of ``KEY=value`` lines to the socket that $NOTIFY_SOCKET names, a
path or, with ``@`` before it, a name in the abstract namespace.
"""

import asyncio
import socket
from contextlib import suppress

from tritonfleet.controller.fleet import Fleet
from tritonfleet.core.model import ReplicaState
from tritonfleet.drivers.clock import steady_time as time

VARIABLE = "NOTIFY_SOCKET"
INTERVAL_S = 0.5


def send(address: str, **told: str) -> None:
    """One datagram. Who does not listen is not told: no fleet ends for that."""
    message = "\n".join(f"{key}={value}" for key, value in told.items())
    target = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.setblocking(False)
        sock.sendto(message.encode(), target)


def progress(fleet: Fleet) -> tuple[bool, str]:
    """Whether every pool has its size ready and every router worker runs, and the numbers in words. Workers
    that others run (`router.external`) are not waited for: their service may wait for this one."""
    counts = {name: (_ready(fleet, name), fleet.size_of(name)) for name in fleet.spec.pools}
    text = ", ".join(f"{name}: {ready} of {size} ready" for name, (ready, size) in counts.items())
    workers = fleet.spec.router.workers
    running = sum(one.running and not one.leaving for one in fleet.workers.infos(time()))
    if running < workers:
        text += f"; router: {running} of {workers} workers"
    ours = fleet.spec.router.external or running >= workers
    return ours and all(ready >= size for ready, size in counts.values()), text


def _ready(fleet: Fleet, pool: str) -> int:
    return sum(slot.pool == pool and slot.state is ReplicaState.READY for slot in fleet.slots.values())


async def report(fleet: Fleet, address: str) -> None:
    """Until cancelled: the status whenever it changes, and once that the fleet is ready."""
    said, once_ready = "", False
    while True:
        ready, text = progress(fleet)
        if ready and not once_ready:
            once_ready = True
            send(address, READY="1", STATUS=text)
        elif text != said:
            send(address, STATUS=text)
        said = text
        await asyncio.sleep(INTERVAL_S)

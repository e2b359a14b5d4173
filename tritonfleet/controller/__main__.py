"""The controller as a process: ``python -m tritonfleet.controller``. `tritonfleet up` starts it detached.

SIGTERM and SIGINT end only the controller: routers and replicas serve on, and the next controller adopts
them.

Exit codes: 0 after SIGTERM or `down`; 1 for a device, a state file or, while nothing runs, an address of
metrics that cannot be used; 2 for a fleet file that cannot; 5 if another controller holds the fleet; 98 if
the router's address is taken.
"""

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from tritonfleet.config import ConfigError, FleetSpec, load_fleet
from tritonfleet.controller import saved, service_manager
from tritonfleet.controller.adopt import adopt
from tritonfleet.controller.api import ControlServer, application
from tritonfleet.controller.commands import RefusedError, scale
from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.history import TrafficHistory
from tritonfleet.controller.metrics_server import MetricsAddressError, MetricsServer
from tritonfleet.controller.paths import FleetPaths
from tritonfleet.controller.router_workers import EXIT_CANNOT_LISTEN, AddressTakenError
from tritonfleet.controller.saved import SavedController
from tritonfleet.controller.shutdown import Shutdown
from tritonfleet.core.wire import ScaleRequest
from tritonfleet.drivers import make_driver, spawn
from tritonfleet.drivers.base import DriverError, Instance
from tritonfleet.drivers.clock import steady_time as time
from tritonfleet.triton.client import TritonClient

log = logging.getLogger("tritonfleet.controller")

EXIT_FAILED, EXIT_CONFIG, EXIT_LOCKED = 1, 2, 5


class LockedError(Exception):
    """Another controller holds the fleet."""


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tritonfleet.controller", description=__doc__)
    parser.add_argument("--file", type=Path, default=Path("tritonfleet.yaml"), help="the fleet file")
    parser.add_argument(
        "--size", action="append", default=[], type=_size, metavar="POOL=N", help="pin a pool's size"
    )
    return parser.parse_args(argv)


def _size(text: str) -> tuple[str, int]:
    pool, equals, number = text.partition("=")
    if not equals or not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not POOL=N")
    return pool, int(number)


def lock(paths: FleetPaths) -> IO[str]:
    """The fleet's lock, held until the returned file is closed. Raises LockedError naming who holds it."""
    while True:
        file = paths.lock.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            holder = saved.read(paths.controller_file, SavedController)
            who = f" (pid {holder.identity.pid}, from {holder.file})" if holder else ""
            raise LockedError(f"a controller of this fleet runs already{who}") from None
        # A controller that ends with its fleet removes the file; one opened just before locks nothing.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), paths.lock.stat()):
                return file
        file.close()


async def control(spec: FleetSpec, arguments: argparse.Namespace, paths: FleetPaths) -> None:
    driver = make_driver(spec, paths.root, os.environ)
    fleet = Fleet(spec, arguments.file.absolute(), paths, driver, await driver.capacity(), _client)
    if arguments.size:
        scale(fleet, ScaleRequest(dict(arguments.size), by="up"))
    # Both fail for a taken address before anything was started; the second may end workers. A fleet that runs
    # is not left without its controller because its metrics cannot be had.
    metrics = (
        MetricsServer(fleet, spec.metrics.listen, must_go_on=bool(await driver.list()))
        if spec.metrics.listen
        else None
    )
    await fleet.workers.adopt()
    identity = spawn.identify(os.getpid())
    if identity is not None:
        fleet.disk.write(paths.controller_file, SavedController(identity, str(fleet.file), time()))
    fleet.journal.add("controller.started", "controller", f"pid {os.getpid()}, {fleet.file}")
    await adopt(fleet)
    shutdown = Shutdown(fleet)
    history = TrafficHistory()
    fleet.keep(lambda: history.run(fleet))
    server = ControlServer(application(fleet, shutdown, history), paths.control_socket)
    serving = asyncio.create_task(server.serve())
    measuring = asyncio.create_task(metrics.serve()) if metrics else None
    fleet.workers.start()
    if arguments.notify:
        fleet.keep(lambda: service_manager.report(fleet, arguments.notify))
    looping = asyncio.create_task(fleet.run())
    ended = await _until_told(shutdown, looping)
    fleet.feed.close()
    if not ended:
        fleet.journal.add("controller.stopping", "controller", "told to end; replicas and routers serve on")
    fleet.journal.close()
    server.stop()
    if metrics is not None and measuring is not None:
        metrics.stop()
        await asyncio.gather(measuring, return_exceptions=True)
        metrics.close()
    looping.cancel()
    await asyncio.gather(serving, looping, return_exceptions=True)
    await fleet.workers.close()
    await fleet.close()
    server.close()
    paths.controller_file.unlink(missing_ok=True)
    fleet.statistics.save(time())
    if ended:
        fleet.settings.clear()
        fleet.statistics.clear()
        fleet.autoscaler.clear()
        fleet.rollouts.revisions.clear()
        paths.state_file.unlink(missing_ok=True)
        paths.lock.unlink(missing_ok=True)  # last: who finds none may begin anew


async def _until_told(shutdown: Shutdown, looping: "asyncio.Task[None]") -> bool:
    """Wait for a signal (False) or the end of `down` (True). Raises what the loop died of, should it."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    waits = {asyncio.create_task(told.wait()), asyncio.create_task(shutdown.done.wait())}
    await asyncio.wait({*waits, looping}, return_when=asyncio.FIRST_COMPLETED)
    for task in waits:
        task.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    if looping.done():
        looping.result()
    return shutdown.done.is_set()


def _client(instance: Instance) -> TritonClient:
    return TritonClient(instance.host, instance.grpc_port, instance.tls)


def main() -> int:
    arguments = parse(sys.argv[1:])
    # Of a service manager; taken out, because routers and replicas inherit the rest.
    arguments.notify = os.environ.pop(service_manager.VARIABLE, "")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        spec = load_fleet(arguments.file, os.environ)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIG
    paths = FleetPaths.of(spec.name)
    try:
        paths.make()
        with lock(paths):
            asyncio.run(control(spec, arguments, paths))
    except LockedError as error:
        log.error("%s", error)
        return EXIT_LOCKED
    except AddressTakenError as error:
        log.error("%s", error)
        return EXIT_CANNOT_LISTEN
    except MetricsAddressError as error:
        log.error("%s", error)
        return EXIT_FAILED
    except (DriverError, RefusedError, ValueError, OSError) as error:
        hint = error.remedy if isinstance(error, DriverError) else ""
        log.error("%s%s", error, f" ({hint})" if hint else "")
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())

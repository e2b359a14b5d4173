"""One router worker as a process: ``python -m tritonfleet.router``. The controller starts these.

Exit codes: 0 after SIGTERM and draining, 98 if it cannot listen, 2 for bad arguments or
certificates.
"""

import argparse
import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack
from errno import EADDRINUSE
from pathlib import Path

import msgspec
import uvloop

from tritonfleet.core.limits import RouterLimits
from tritonfleet.core.wire import RouterTable
from tritonfleet.router.access import AccessLog, dispatcher_with
from tritonfleet.router.board import Board
from tritonfleet.router.client import ClientConnection
from tritonfleet.router.dispatch import Dispatcher
from tritonfleet.router.guard import Guard
from tritonfleet.router.leaving import Drain, empty_queue, let_nobody_in
from tritonfleet.router.management import LOOPBACK, Management
from tritonfleet.router.own import FleetAnswers
from tritonfleet.router.siblings import Siblings, is_taken
from tritonfleet.router.tls import TlsClientConnection, TlsFiles, TlsListener
from tritonfleet.router.traces import TraceExport
from tritonfleet.router.watchdog import watch

log = logging.getLogger("tritonfleet.router")

EXIT_CANNOT_LISTEN = 98
EXIT_BAD_ARGUMENTS = 2
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
HANDSHAKE_S = 1.0  # that a client which was just accepted gets for TLS when we end
BACKLOG = 1024  # connections that wait to be accepted
JOINS = "TRITONFLEET_JOINS"  # "1": other workers serve this address already
JOIN_WAIT_S, JOIN_LOOK_S = 10.0, 0.02
TABLE_WAIT_S = 2.0  # after its start a worker's calls wait this long for a first table


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tritonfleet.router", description=__doc__)
    parser.add_argument("--fleet", default="", help="the fleet's name, for messages and process lists")
    parser.add_argument("--listen", required=True, help="HOST:PORT clients connect to")
    parser.add_argument("--worker", type=int, default=0, help="index among the workers of this address")
    parser.add_argument(
        "--drain-timeout", type=float, default=30.0, help="seconds calls may take after SIGTERM"
    )
    parser.add_argument("--workers", type=int, default=1, help="how many workers share this address")
    parser.add_argument("--board", type=Path, help="a file that the workers share what is in flight by")
    parser.add_argument("--connections", type=int, default=2, help="connections per replica")
    parser.add_argument(
        "--management", default=",".join(LOOPBACK), help="who may change the servers (router.management)"
    )
    parser.add_argument(
        "--limits",
        type=lambda text: msgspec.json.decode(text, type=RouterLimits),
        default=RouterLimits(),
        help="JSON: what a client may do (tritonfleet.core.limits)",
    )
    parser.add_argument("--siblings", type=Path, help="a file by which workers of a fleet know each other")
    parser.add_argument("--settings", default="", help="a name of all of these, which it reports")
    parser.add_argument("--access-log", help="a file, or stdout: one JSON line for each call")
    parser.add_argument("--access-sample", type=float, default=1.0, help="the share of calls in it")
    parser.add_argument("--trace-endpoint", help="http://HOST:4318: where spans go, by OTLP")
    parser.add_argument(
        "--trace-sample", type=float, default=0.01, help="the share of calls without a parent"
    )
    parser.add_argument("--tls-cert", type=Path, help="PEM file; with --tls-key clients must use TLS")
    parser.add_argument("--tls-key", type=Path, help="PEM file")
    parser.add_argument("--tls-client-ca", type=Path, help="PEM file; clients must have a certificate of it")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--control", help="the controller's unix socket")
    source.add_argument("--table", type=Path, help="a JSON file with a fixed table, instead of a controller")
    arguments = parser.parse_args(argv)
    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        parser.error("--tls-cert and --tls-key go together")
    if arguments.tls_client_ca is not None and arguments.tls_cert is None:
        parser.error("--tls-client-ca needs --tls-cert")
    return arguments


def bound_socket(address: str, siblings: Siblings | None = None) -> socket.socket:
    """Bind with SO_REUSEPORT, so that several workers share one port. It does not listen yet, so no
    connection comes here instead of to the others. Raises OSError; also where another fleet's are there."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if siblings is not None and is_taken(family, host, int(port)) and not siblings.are_there():
        raise OSError(EADDRINUSE, "another program has it, or the router of another fleet")
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, int(port)))
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


async def serve(
    arguments: argparse.Namespace, sock: socket.socket, access: AccessLog | None, *, joins: bool
) -> None:
    """``joins``: other workers serve the address already, so it listens when it can serve, not before."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as closing:
        board = _board(arguments.board)
        if board is not None:
            closing.callback(board.close)
        traces = None
        if arguments.trace_endpoint is not None:
            traces = TraceExport(arguments.trace_endpoint, arguments.trace_sample, arguments.fleet)
        for sink in (access, traces):
            if sink is not None:
                closing.callback(sink.close)
        kind = dispatcher_with(access, traces)
        dispatcher = kind(arguments.connections, arguments.workers, arguments.limits, board)
        tasks = [asyncio.create_task(watch(dispatcher))]
        management = Management(arguments.management.split(","))
        if arguments.control is None:
            dispatcher.guard = Guard(management)
            dispatcher.apply(msgspec.json.decode(arguments.table.read_bytes(), type=RouterTable))
        else:
            dispatcher.awaits_table = True
            own = FleetAnswers(dispatcher, arguments.control, management)
            dispatcher.own = own
            closing.push_async_callback(own.close)
            if joins:
                tasks.append(_follow_controller(dispatcher, arguments, closing))
                await _table_is_there(dispatcher, stop)
            loop.call_later(TABLE_WAIT_S, dispatcher.stop_awaiting_table)
        server = await _listen(dispatcher, arguments, sock, tasks)
        if arguments.control is not None and not joins:
            tasks.append(_follow_controller(dispatcher, arguments, closing))
        gc.collect()
        gc.freeze()  # what start-up made lives for ever: the collector need not look at it again
        await stop.wait()
        await _leave(dispatcher, arguments, sock, server)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for replica in (*dispatcher.replicas.values(), *dispatcher.retired.values()):
            await replica.close()


def _board(path: Path | None) -> Board | None:
    try:
        return Board(path) if path is not None else None
    except OSError as error:
        log.warning("choosing replicas by this worker's requests alone: %s", error)
        return None


def _follow_controller(
    dispatcher: Dispatcher, arguments: argparse.Namespace, closing: AsyncExitStack
) -> asyncio.Task[None]:
    from tritonfleet.router.control import ControlLink  # httpx is slow to import: whoever can listens first

    link = ControlLink(dispatcher, arguments.control, arguments.worker, arguments.settings)
    closing.push_async_callback(link.close)
    return asyncio.create_task(link.run())


async def _table_is_there(dispatcher: Dispatcher, stop: asyncio.Event) -> None:
    """Wait for a table and for connections to its replicas, or until it has taken too long."""
    deadline = dispatcher.loop.time() + JOIN_WAIT_S
    while not stop.is_set() and dispatcher.loop.time() < deadline:
        if dispatcher.table is not None and not any(one.untried for one in dispatcher.replicas.values()):
            return
        await asyncio.sleep(JOIN_LOOK_S)


async def _listen(
    dispatcher: Dispatcher,
    arguments: argparse.Namespace,
    sock: socket.socket,
    tasks: list[asyncio.Task[None]],
) -> asyncio.AbstractServer | TlsListener:
    server: asyncio.AbstractServer | TlsListener
    if arguments.tls_cert is not None:
        files = TlsFiles(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca)
        server = TlsListener(sock, files, lambda: TlsClientConnection(dispatcher))
        await server.start()
        tasks.append(asyncio.create_task(server.watch()))
    else:
        server = await dispatcher.loop.create_server(
            lambda: ClientConnection(dispatcher), sock=sock, backlog=BACKLOG
        )
    dispatcher.listening = True
    log.info("listening on %s", arguments.listen)
    return server


async def _leave(
    dispatcher: Dispatcher,
    arguments: argparse.Namespace,
    sock: socket.socket,
    server: asyncio.AbstractServer | TlsListener,
) -> None:
    count = len(dispatcher.clients)
    clients = "1 client connection" if count == 1 else f"{count} client connections"
    log.info("draining %s, at most %g s", clients, arguments.drain_timeout)
    dispatcher.listening = False
    let_nobody_in(sock)
    await empty_queue(sock)
    server.close()
    handshake_s = 0.0 if arguments.tls_cert is None else HANDSHAKE_S
    left = await Drain(dispatcher).run(arguments.drain_timeout, handshake_s)
    if left:
        what = "1 call was" if left == 1 else f"{left} calls were"
        log.warning("%s still running when router.drain_timeout ended, and failed with UNAVAILABLE", what)


def keep_freed_memory() -> None:
    """Let glibc keep the 256 kB buffers that large payloads are read into, instead of giving each back to the
    system and faulting it in again: CPU per MB in 1 MB messages was 1.17 × Envoy's without it, 0.67 × with it
    (benchmarks/payloads.py), for 2 MB more of resident memory. Without glibc nothing happens."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_THRESHOLD, 1 << 20)
    mallopt(M_TRIM_THRESHOLD, 8 << 20)


def main() -> int:
    keep_freed_memory()
    arguments = parse(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("hpack").setLevel(logging.WARNING)
    joins = os.environ.get(JOINS) == "1"
    try:
        siblings = Siblings(arguments.siblings) if arguments.siblings is not None else None
        sock = bound_socket(arguments.listen, siblings)
        if not joins:
            sock.listen(BACKLOG)  # clients may connect while the rest of us is being imported
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        log.error("cannot listen on %s: %s", arguments.listen, why)
        return EXIT_CANNOT_LISTEN
    if arguments.tls_cert is not None:
        try:
            TlsFiles(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca).context()
        except OSError as error:
            log.error("the certificate files of router.tls do not fit: %s", error)
            return EXIT_BAD_ARGUMENTS
    access = None
    if arguments.access_log is not None:
        try:
            access = AccessLog(arguments.access_log, arguments.access_sample)
        except OSError as error:
            log.error("the access log cannot be opened: %s", error)
            return EXIT_BAD_ARGUMENTS
    uvloop.run(serve(arguments, sock, access, joins=joins))
    return 0


if __name__ == "__main__":
    sys.exit(main())

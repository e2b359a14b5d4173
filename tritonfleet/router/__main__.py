"""One router worker as a process: ``python -m tritonfleet.router``. The controller starts these.

Exit codes: 0 after SIGTERM and draining, 98 if it cannot listen, 2 for bad arguments or
certificates.
"""

import argparse
import asyncio
import ctypes
import gc
import logging
import signal
import socket
import sys
from pathlib import Path

import msgspec
import uvloop

from tritonfleet.core.wire import RouterTable
from tritonfleet.router.client import ClientConnection
from tritonfleet.router.dispatch import Dispatcher
from tritonfleet.router.management import LOOPBACK, Management
from tritonfleet.router.own import FleetAnswers
from tritonfleet.router.tls import TlsClientConnection, TlsFiles, TlsListener
from tritonfleet.router.transport import flush_all
from tritonfleet.router.watchdog import watch

log = logging.getLogger("tritonfleet.router")

EXIT_CANNOT_LISTEN = 98
EXIT_BAD_ARGUMENTS = 2
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
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
    parser.add_argument("--connections", type=int, default=2, help="connections per replica")
    parser.add_argument(
        "--management", default=",".join(LOOPBACK), help="networks whose clients may change the servers"
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


def listening_socket(address: str) -> socket.socket:
    """Bind with SO_REUSEPORT, so that several workers share one port. Raises OSError."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, int(port)))
        sock.listen(1024)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


class Drain:
    """Two-step GOAWAY to every client, then wait for their calls."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._changed = asyncio.Event()
        dispatcher.client_drained = lambda _client: self._changed.set()

    async def run(self, timeout_s: float) -> int:
        """Returns how many calls were still running when the time was over."""
        for client in list(self._dispatcher.clients):
            client.begin_drain()
        flush_all(self._dispatcher.touched)
        deadline = asyncio.get_running_loop().time() + timeout_s
        while asyncio.get_running_loop().time() < deadline:
            for client in list(self._dispatcher.clients):
                if not client.streams:
                    client.close()
            if not self._dispatcher.clients:
                return 0
            self._changed.clear()
            try:
                async with asyncio.timeout(0.1):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return sum(len(client.streams) for client in self._dispatcher.clients)


async def serve(arguments: argparse.Namespace, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    dispatcher = Dispatcher(arguments.connections, arguments.workers)
    own = None
    watching = asyncio.create_task(watch(dispatcher))
    link = None
    if arguments.control is not None:
        dispatcher.awaits_table = True
        dispatcher.own = own = FleetAnswers(
            dispatcher, arguments.control, Management(arguments.management.split(","))
        )
        loop.call_later(TABLE_WAIT_S, dispatcher.stop_awaiting_table)
    else:
        dispatcher.apply(msgspec.json.decode(arguments.table.read_bytes(), type=RouterTable))
    server: asyncio.AbstractServer | TlsListener
    reloading = None
    if arguments.tls_cert is not None:
        files = TlsFiles(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca)
        server = TlsListener(sock, files, lambda: TlsClientConnection(dispatcher))
        await server.start()
        reloading = asyncio.create_task(server.watch())
    else:
        server = await loop.create_server(lambda: ClientConnection(dispatcher), sock=sock)
    log.info("listening on %s", arguments.listen)
    following = None
    if arguments.control is not None:
        from tritonfleet.router.control import ControlLink  # httpx is slow to import: listen first

        link = ControlLink(dispatcher, arguments.control, arguments.worker)
        following = asyncio.create_task(link.run())
    gc.collect()
    gc.freeze()  # what start-up made lives for ever: the collector need not look at it again
    await stop.wait()
    log.info("draining %d client connections, at most %g s", len(dispatcher.clients), arguments.drain_timeout)
    if reloading is not None:
        reloading.cancel()
        await asyncio.gather(reloading, return_exceptions=True)
    server.close()
    left = await Drain(dispatcher).run(arguments.drain_timeout)
    if left:
        log.warning("%d calls were still running when the drain timeout ended", left)
    if following is not None and link is not None:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await link.close()
    if own is not None:
        await own.close()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    for replica in (*dispatcher.replicas.values(), *dispatcher.retired.values()):
        await replica.close()


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
    try:
        sock = listening_socket(arguments.listen)
    except (OSError, ValueError) as error:
        log.error("cannot listen on %s: %s", arguments.listen, error)
        return EXIT_CANNOT_LISTEN
    if arguments.tls_cert is not None:
        try:
            TlsFiles(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca).context()
        except OSError as error:
            log.error("the certificate files of router.tls do not fit: %s", error)
            return EXIT_BAD_ARGUMENTS
    uvloop.run(serve(arguments, sock))
    return 0


if __name__ == "__main__":
    sys.exit(main())

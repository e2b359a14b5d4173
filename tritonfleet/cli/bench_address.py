"""Whom `bench` loads: the address that was given, or the fleet's; and how that fleet counts by replica."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.fleet import DEFAULT_FILE, Target, load, locate
from tritonfleet.cli.terminal import Settings

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8001
FRESH_S = 6.0  # how long to wait for statistics that are newer than the load


@dataclass(frozen=True, slots=True)
class Address:
    """``target``: the fleet it belongs to; None for any other server."""

    host: str
    port: int
    tls: bool = False
    target: Target | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address_of(settings: Settings, url: str) -> Address:
    """``url``, or the router of the fleet that is meant, or Triton's default where there is no fleet file.
    Raises CliError."""
    if url:
        return parse(url)
    if settings.fleet:
        target = locate(settings)
        with target.client() as client:
            found = parse(client.snapshot().router.address)
        return Address(found.host, found.port, False, target)
    try:
        spec = load(settings)
    except CliError:
        from pathlib import Path

        if settings.file is None and not Path(DEFAULT_FILE).is_file():
            return Address(DEFAULT_HOST, DEFAULT_PORT)
        raise
    listen = spec.router.listen
    return Address(listen.host, listen.port, spec.router.tls is not None, Target.of(spec))


def parse(url: str) -> Address:
    """``HOST:PORT``; a bare host has Triton's port."""
    host, colon, port = url.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, port = url, str(DEFAULT_PORT)
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535 or "/" in host:
        raise CliError(ExitCode.USAGE, f"--url: {url!r} is not HOST:PORT", hint="127.0.0.1:8001")
    return Address(host.strip("[]"), int(port))


def counts_of(address: Address, model: str) -> Callable[[], Awaitable[dict[str, int]]] | None:
    """Asks the controller how many requests each replica has answered; None where there is none."""
    target = address.target
    if target is None or not target.paths.control_socket.exists():
        return None

    def ask() -> dict[str, int]:
        asked_at = time.time()
        with target.client() as client:
            while True:
                snapshot = client.snapshot()
                readings = [reading for reading in snapshot.readings if reading.model == model]
                fresh = all(snapshot.at - reading.age_s >= asked_at for reading in readings)
                if fresh or time.time() - asked_at > FRESH_S:
                    counts: dict[str, int] = {}
                    for reading in readings:
                        counts[reading.replica] = counts.get(reading.replica, 0) + reading.requests_total
                    return counts
                time.sleep(0.2)

    async def counts() -> dict[str, int]:
        try:
            return await asyncio.to_thread(ask)
        except CliError:
            return {}  # the controller is away: the load itself does not need it

    return counts

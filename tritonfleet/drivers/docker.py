"""Replicas as containers of one Docker daemon, each pinned to its devices by a device request.

A container's labels are the truth about it; nothing is remembered elsewhere but how much of its output has
been copied into the replica's log. Containers without this fleet's label are never touched.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tritonfleet.core.device_access import DeviceLook
from tritonfleet.core.image_pull import ImagePull
from tritonfleet.core.launched import Launched
from tritonfleet.core.model import Device, DeviceKind, ExitStatus
from tritonfleet.drivers import docker_container as container
from tritonfleet.drivers import logs, ports
from tritonfleet.drivers.base import DriverError, Instance, LaunchSpec
from tritonfleet.drivers.clock import steady_time
from tritonfleet.drivers.docker_container import LABEL, Publication
from tritonfleet.drivers.docker_engine import (
    Client,
    DockerEngine,
    NameTakenError,
    NotThereError,
    PortTakenError,
)
from tritonfleet.drivers.docker_facts import listed_gpus
from tritonfleet.drivers.docker_image import ImageStore
from tritonfleet.drivers.docker_logs import Cursor, LogCopy
from tritonfleet.drivers.docker_watch import ExitWatch
from tritonfleet.triton.launch import Ports

PORT_TRIES = 5
LAST_LINES_S = 10.0  # how long a container that has ended may take to hand over its last output


class DockerDriver:
    """See `tritonfleet.drivers.base.Driver`. ``state_dir`` is the fleet's own folder; ``host`` as in
    DOCKER_HOST, "" for what ``environ`` says or else the local daemon."""

    name = "docker"

    def __init__(
        self,
        fleet: str,
        state_dir: Path,
        devices: tuple[Device, ...],
        *,
        host: str = "",
        log_max_bytes: int = 64 << 20,
        log_keep: int = 3,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._fleet, self._state_dir, self._devices = fleet, state_dir, devices
        self._logs = state_dir / "logs"
        self._log_max_bytes, self._log_keep = log_max_bytes, log_keep
        self._engine = DockerEngine(host, os.environ if environ is None else environ)
        self._images = ImageStore(self._engine)
        self._watch = ExitWatch(self._engine, fleet)
        self._exits: dict[str, asyncio.Task[ExitStatus]] = {}  # by handle
        self._copies: dict[str, LogCopy] = {}  # by handle
        self._starting: dict[str, set[int]] = {}  # instance → the ports it is about to take
        self._undoing: set[asyncio.Task[None]] = set()  # launches that were cancelled

    @property
    def away(self) -> str:
        return self._watch.away

    async def capacity(self) -> tuple[Device, ...]:
        return self._devices

    # ------------------------------------------------------------ start

    async def start(self, spec: LaunchSpec) -> Instance:
        if spec.instance in self._starting:
            raise _exists(spec)
        self._starting[spec.instance] = set()
        try:
            if await self._is_there(spec):
                raise _exists(spec)
            log = self._log(spec.replica)
            logs.append_line(log, logs.header(spec.instance, datetime.now(UTC).isoformat(timespec="seconds")))
            await self._images.ensure(spec.container.image, tell=lambda line: logs.append_line(log, line))
            instance = await self._launch(spec)
        except OSError as error:
            raise DriverError(f"cannot start {spec.instance}: {error}") from error
        finally:
            del self._starting[spec.instance]
        self._copy(instance)
        return instance

    async def _is_there(self, spec: LaunchSpec) -> bool:
        name = container.name_of(spec.fleet, spec.instance)
        try:
            await self._engine.call(
                f"cannot start {spec.instance}", lambda client: client.inspect_container(name)
            )
        except NotThereError:
            return False
        return True

    async def _launch(self, spec: LaunchSpec) -> Instance:
        tried: set[int] = set()
        for _ in range(PORT_TRIES):
            at = await self._publication(spec, tried)
            tried |= {at.ports.grpc, at.ports.http, at.ports.metrics}
            told = container.labels(spec, at, state_dir=str(self._state_dir), now=steady_time())
            body = container.creation(
                spec, at, told, log_max_bytes=self._log_max_bytes, log_keep=self._log_keep
            )
            try:
                identity = await self._run(spec, body)
            except NameTakenError as error:
                raise _exists(spec) from error
            except PortTakenError:
                continue
            return container.instance_of(identity, told)
        raise DriverError(f"cannot start {spec.instance}: {PORT_TRIES} times the ports chosen were taken")

    async def _run(self, spec: LaunchSpec, body: dict[str, Any]) -> str:
        """Create and start it. If we are cancelled meanwhile, what the thread makes is removed."""
        name = container.name_of(spec.fleet, spec.instance)
        work = asyncio.ensure_future(
            self._engine.call(
                f"cannot start {spec.instance}", lambda client: _create_and_start(client, body, name)
            )
        )
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            undoing = asyncio.create_task(self._undo(spec, work))
            self._undoing.add(undoing)
            undoing.add_done_callback(self._undoing.discard)
            raise

    async def _undo(self, spec: LaunchSpec, work: "asyncio.Future[str]") -> None:
        with suppress(DriverError):
            identity = await work
            await self._engine.call(
                f"cannot take back {spec.instance}",
                lambda client: client.remove_container(identity, v=True, force=True),
            )

    async def _publication(self, spec: LaunchSpec, tried: set[int]) -> Publication:
        rows = await self._rows()
        taken = {
            int(row["Labels"][f"{LABEL}{kind}-port"])
            for row in rows
            for kind in ("grpc", "http", "metrics")
            if row["Labels"].get(f"{LABEL}{kind}-port", "").isdigit()
        }
        chosen = ports.free_ports(3, taken.union(tried, *self._starting.values()))
        self._starting[spec.instance] = set(chosen)
        remote = self._engine.remote_name
        address = await asyncio.to_thread(socket.gethostbyname, remote) if remote else ""
        return container.published_where(remote, address, Ports(*chosen))

    # ------------------------------------------------------------ list, wait

    async def _rows(self) -> list[dict[str, Any]]:
        """The daemon's summary of every container of this fleet. Raises DriverError for those of another
        fleet with the same name."""
        wanted = {"label": f"{LABEL}fleet={self._fleet}"}
        rows: list[dict[str, Any]] = await self._engine.call(
            "cannot list containers", lambda client: client.containers(all=True, filters=wanted)
        )
        for row in rows:
            owner = row["Labels"].get(f"{LABEL}state-dir", "")
            if owner != str(self._state_dir):
                raise DriverError(
                    f"container {row['Id'][:12]} belongs to another fleet {self._fleet!r}, of {owner}",
                    remedy="give this fleet another name, or end that one",
                    transient=False,
                )
        return rows

    async def list(self) -> list[Instance]:
        found = []
        await asyncio.gather(*self._undoing, return_exceptions=True)
        rows = await self._rows()
        named = [(row, container.instance_of(row["Id"], row["Labels"])) for row in rows]
        self._forget_all_but({instance.instance for _, instance in named})
        for row, instance in named:
            if instance.instance in self._starting:
                continue
            self._copy(instance)
            if container.has_ended(row["State"]):
                instance = _with_exit(instance, await asyncio.shield(self._exit_of(instance)))
            found.append(instance)
        return sorted(found, key=lambda instance: (instance.replica, instance.generation))

    def _exit_of(self, instance: Instance) -> "asyncio.Task[ExitStatus]":
        """One task per container learns of its end, however many wait."""
        task = self._exits.get(instance.handle)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._exits[instance.handle] = asyncio.create_task(
                self._settled(instance), name=f"exit of {instance.instance}"
            )
        return task

    async def _settled(self, instance: Instance) -> ExitStatus:
        status = await self._watch.ended(container.identity_of(instance))
        await self._copied(instance)
        if status.code == 0:
            return status
        said = logs.error_detail(self._log(instance.replica), instance.instance)
        detail = "; ".join(part for part in (status.detail, said) if part)
        return ExitStatus(status.at, status.code, status.signal, detail)

    async def wait(self, instance: Instance) -> ExitStatus:
        if instance.exit is not None:
            return instance.exit
        return await asyncio.shield(self._exit_of(instance))

    async def launch_of(self, instance: Instance) -> Launched:
        identity, what = container.identity_of(instance), f"cannot look at {instance.instance}"
        try:
            found = await self._engine.call(what, lambda client: client.inspect_container(identity))
        except NotThereError as error:
            raise DriverError(f"{instance.instance} does not run") from error
        if container.has_ended(found["State"]["Status"]):
            raise DriverError(f"{instance.instance} does not run")
        image = found["Config"]["Image"]
        own = await self._engine.call(what, lambda client: client.inspect_image(found["Image"]))
        return container.launched_of(found, image, (own.get("Config") or {}).get("Env") or [])

    # ------------------------------------------------------------ stop, remove

    async def stop(self, instance: Instance, grace_s: float) -> ExitStatus:
        """Waits for a daemon that is away: a container that cannot be reached is not stopped."""
        if instance.exit is not None:
            return instance.exit
        ending = self._exit_of(instance)
        if grace_s > 0 and not ending.done():
            await self._signal(instance, "SIGTERM")
            await asyncio.wait({ending}, timeout=grace_s)
        if not ending.done():
            await self._signal(instance, "SIGKILL")
        return await asyncio.shield(ending)

    async def _signal(self, instance: Instance, name: str) -> None:
        identity = container.identity_of(instance)

        def kill(client: Client) -> None:
            if client.inspect_container(identity)["State"]["Running"]:
                client.kill(identity, name)

        with suppress(NotThereError):
            try:
                await self._engine.call_patiently(f"cannot send {name} to {instance.instance}", kill)
            except DriverError as error:
                if "is not running" not in str(error):  # it ended between the two calls
                    raise

    async def remove(self, instance: Instance) -> None:
        identity, what = container.identity_of(instance), f"cannot remove {instance.instance}"
        try:
            found = await self._engine.call_patiently(what, lambda client: client.inspect_container(identity))
        except NotThereError:
            await self._forget(instance)
            return
        if not container.has_ended(found["State"]["Status"]):
            raise DriverError(f"{instance.instance} still runs ({instance.handle})", remedy="stop it first")
        await self._copied(instance)
        with suppress(NotThereError):
            await self._engine.call_patiently(what, lambda client: _remove(client, identity))
        await self._forget(instance)

    def _forget_all_but(self, there: set[str]) -> None:
        """The cursors of containers that went while nobody watched."""
        for path in (self._state_dir / "instances").glob("*.cursor"):
            if path.stem not in there and path.stem not in self._starting:
                Cursor(path).remove()

    async def _forget(self, instance: Instance) -> None:
        copy = self._copies.pop(instance.handle, None)
        if copy is not None:
            await copy.close()
        self._exits.pop(instance.handle, None)
        self._watch.forget(container.identity_of(instance))
        self._cursor(instance).remove()

    async def look(self, instance: Instance) -> DeviceLook | None:
        cpus = {device.id for device in self._devices if device.kind is DeviceKind.CPU}
        if cpus.issuperset(instance.devices):
            return None
        identity = container.identity_of(instance)
        what = f"cannot look into {instance.instance}"
        return await self._engine.call(what, lambda client: listed_gpus(client, identity))

    # ------------------------------------------------------------ logs, the rest

    def _copy(self, instance: Instance, *, follow: bool = True) -> LogCopy:
        """See to it that its output is being copied."""
        copy = self._copies.get(instance.handle)
        if copy is None or copy.ended.is_set():
            identity, log = container.identity_of(instance), self._log(instance.replica)
            copy = LogCopy(self._engine, identity, log, self._cursor(instance), follow=follow)
            self._copies[instance.handle] = copy
        return copy

    async def _copied(self, instance: Instance) -> None:
        """Return when a container that has ended has handed over its output, or seems not to."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_LINES_S):
                if instance.handle in self._copies:
                    await self._copies[instance.handle].ended.wait()
                # Following can miss what was written while it began, or while the daemon restarted.
                await self._copy(instance, follow=False).ended.wait()

    def logs(self, replica: str, *, tail: int | None = 100, follow: bool = False) -> AsyncIterator[str]:
        return logs.read(self._log(replica), tail=tail, follow=follow)

    def pulls(self) -> tuple[ImagePull, ...]:
        return self._images.pulls()

    async def maintain(self) -> None:
        for path in self._logs.glob("*.log"):
            with suppress(OSError):
                if path.stat().st_size >= self._log_max_bytes:  # copying takes a while: not on the loop
                    await asyncio.to_thread(logs.rotate, path, self._log_max_bytes, self._log_keep)
        with suppress(DriverError):  # after a daemon's restart the copies begin anew
            for row in await self._rows():
                if row["State"] == "running":
                    self._copy(container.instance_of(row["Id"], row["Labels"]))

    async def close(self) -> None:
        tasks = list(self._exits.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._exits.clear()
        await asyncio.gather(*self._undoing, return_exceptions=True)
        await self._watch.close()
        await asyncio.gather(*(copy.close() for copy in self._copies.values()))
        self._copies.clear()
        self._engine.close()

    def _log(self, replica: str) -> Path:
        return self._logs / f"{replica}.log"

    def _cursor(self, instance: Instance) -> Cursor:
        return Cursor(self._state_dir / "instances" / f"{instance.instance}.cursor")


def _exists(spec: LaunchSpec) -> DriverError:
    return DriverError(f"{spec.instance} exists already", remedy="start it under a new generation")


def _with_exit(instance: Instance, status: ExitStatus) -> Instance:
    return replace(instance, exit=status)


def _create_and_start(client: Client, body: dict[str, Any], name: str) -> str:
    """Both or nothing, in one thread: whoever waits for it may give up at any point."""
    identity: str = client.create_container_from_config(body, name)["Id"]
    try:
        client.start(identity)
    except BaseException:
        client.remove_container(identity, v=True, force=True)
        raise
    return identity


def _remove(client: Client, identity: str) -> None:
    client.remove_container(identity, v=True)

"""Replicas as processes of this host, on a tritonserver that is found or embedded.

Each instance has one record, a JSON file, and it is the truth together with the live process: the record is
written *before* the launch (an intent, without a pid) and completed after it, so that a controller killed in
between leaves nothing unknown: an intent finds its process again by the markers in its environment.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import time

from tritonfleet.core.image_pull import ImagePull
from tritonfleet.core.launched import Launched, masked
from tritonfleet.core.model import Device, ExitStatus
from tritonfleet.drivers import leftovers, logs, ports, spawn
from tritonfleet.drivers.base import DriverError, Instance, LaunchSpec
from tritonfleet.drivers.clock import steady_time
from tritonfleet.drivers.records import Record, RecordStore
from tritonfleet.triton.embedded import TritonInstallation, TritonNotFoundError, find_tritonserver
from tritonfleet.triton.launch import LOOPBACK, Ports, arguments, environment

SHM = Path("/dev/shm")  # noqa: S108 # where POSIX shared memory is on Linux


class ProcessDriver:
    """See `tritonfleet.drivers.base.Driver`. ``state_dir`` is the fleet's own folder."""

    name = "process"
    away = ""  # the system's processes are always there to be asked

    def __init__(
        self,
        fleet: str,
        state_dir: Path,
        devices: tuple[Device, ...],
        *,
        log_max_bytes: int = 64 << 20,
        log_keep: int = 3,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._fleet = fleet
        self._state_dir = state_dir
        self._logs = state_dir / "logs"
        self._records = RecordStore(state_dir / "instances")
        self._devices = devices
        self._log_max_bytes, self._log_keep = log_max_bytes, log_keep
        self._environ = dict(os.environ if environ is None else environ)
        self._exits: dict[str, asyncio.Task[ExitStatus]] = {}
        self._starting: set[str] = set()

    async def capacity(self) -> tuple[Device, ...]:
        return self._devices

    async def start(self, spec: LaunchSpec) -> Instance:
        if self._records.read(spec.instance) is not None or spec.instance in self._starting:
            raise DriverError(f"{spec.instance} exists already", remedy="start it under a new generation")
        self._starting.add(spec.instance)
        try:
            return await self._launch(spec, await self._installation())
        finally:
            self._starting.discard(spec.instance)

    async def _installation(self) -> TritonInstallation:
        try:
            return await asyncio.to_thread(find_tritonserver, self._environ)
        except TritonNotFoundError as error:
            raise DriverError(str(error), remedy=error.remedy, transient=False) from error
        except OSError as error:
            raise DriverError(
                f"cannot prepare the embedded tritonserver: {error}",
                remedy="make that folder writable, or set XDG_CACHE_HOME to one that is",
                by_device=False,
            ) from error

    async def _launch(self, spec: LaunchSpec, installation: TritonInstallation) -> Instance:
        taken = {port for record in self._records.all() for port in record.ports}
        try:
            chosen = Ports(*ports.free_ports(3, taken))
        except OSError as error:
            raise DriverError(f"cannot start {spec.instance}: {error}", by_device=False) from error
        record = Record.of(
            spec, chosen, shm_prefix=f"tf-{spec.fleet}-{secrets.token_hex(4)}-", now=steady_time()
        )
        command = arguments(
            installation,
            model_repository=spec.model_repository,
            models=spec.models,
            ports=chosen,
            shm_prefix=record.shm_prefix,
            exit_timeout_s=spec.exit_timeout_s,
            devices=spec.devices,
            extra=spec.args,
            tls=spec.tls,
        )
        env = environment(
            installation, self._environ, devices=spec.devices, markers=self._markers(record), extra=spec.env
        )
        changed = {name for name, value in env.items() if self._environ.get(name) != value}
        record = replace(record, env_set=tuple(sorted(changed | set(spec.env))))
        log = self._log(spec.replica)
        try:
            self._records.write(record)
            logs.append_line(log, logs.header(spec.instance, datetime.now(UTC).isoformat(timespec="seconds")))
            identity = await spawn.spawn(command, env, log)
        except OSError as error:
            self._records.remove(spec.instance)
            raise DriverError(f"cannot start {spec.instance}: {error}", by_device=False) from error
        record = replace(record, pid=identity.pid, start_ticks=identity.start_ticks, boot_id=identity.boot_id)
        try:
            self._records.write(record)
        except OSError as error:  # the disk is full by now: nothing may run that is not known of
            await spawn.terminate(identity, 0.0, self._markers(record))
            await spawn.wait_exit(identity)
            with suppress(OSError):
                self._records.remove(spec.instance)
            raise DriverError(f"cannot note {spec.instance}: {error}", by_device=False) from error
        return record.instance_data(LOOPBACK)

    def _markers(self, record: Record) -> dict[str, str]:
        return {
            "TRITONFLEET_FLEET": record.fleet,
            "TRITONFLEET_REPLICA": record.replica,
            "TRITONFLEET_INSTANCE": f"{record.replica}.{record.generation}",
            "TRITONFLEET_STATE_DIR": str(self._state_dir.parent),
        }

    async def list(self) -> list[Instance]:
        found = []
        for record in self._records.all():
            if f"{record.replica}.{record.generation}" in self._starting:
                continue
            current = self._found_again(record)
            if current.exit is None and current.identity is not None and not spawn.alive(current.identity):
                current = await self._settled(current)
            found.append(current.instance_data(LOOPBACK))
        return sorted(found, key=lambda instance: (instance.replica, instance.generation))

    def _found_again(self, record: Record) -> Record:
        """The record; that of a controller that died before it had launched completely is completed first:
        with its process if there is one, else as ended."""
        if record.pid != 0 or record.exit is not None:
            return record
        leaders = spawn.find_session_leaders(self._markers(record))
        if leaders:
            found = leaders[0]
            record = replace(record, pid=found.pid, start_ticks=found.start_ticks, boot_id=found.boot_id)
        else:
            record = replace(
                record, exit=ExitStatus(time(), detail="the controller ended before it was launched")
            )
        self._records.write(record)
        return record

    async def _settled(self, record: Record) -> Record:
        """The record of a process that has ended, its exit filled in and its leftovers ended."""
        status = await self._exit_of(record)
        return replace(record, exit=status)

    def _exit_of(self, record: Record) -> "asyncio.Task[ExitStatus]":
        """One task per instance learns of its end, however many wait."""
        name = f"{record.replica}.{record.generation}"
        task = self._exits.get(name)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._exits[name] = asyncio.create_task(self._watch(record), name=f"exit of {name}")
        return task

    async def _watch(self, record: Record) -> ExitStatus:
        identity = record.identity
        if record.exit is not None or identity is None:
            return record.exit or ExitStatus(time(), detail="it was never launched")
        ended = await spawn.wait_exit(identity)
        name = f"{record.replica}.{record.generation}"
        spawn.end_session(identity.pid, self._markers(record))
        detail = "" if ended.code == 0 else logs.error_detail(self._log(record.replica), name)
        status = ExitStatus(time(), ended.code, ended.signal, detail)
        with suppress(OSError):  # of a full disk: that it has ended shows without it
            if self._records.read(name) is not None:
                self._records.write(replace(record, exit=status))
        return status

    def _known(self, instance: Instance) -> Record | None:
        record = self._records.read(instance.instance)
        return None if record is None else self._found_again(record)

    async def wait(self, instance: Instance) -> ExitStatus:
        record = self._known(instance)
        if record is None:
            return instance.exit or ExitStatus(time(), detail="it was removed")
        return await asyncio.shield(self._exit_of(record))

    async def launch_of(self, instance: Instance) -> Launched:
        record = self._known(instance)
        if record is None or record.identity is None or not spawn.alive(record.identity):
            raise DriverError(f"{instance.instance} does not run")
        command = spawn.command_of(record.pid)
        env = dict(text.split("=", 1) for text in spawn.environment_texts(record.pid) if "=" in text)
        return masked(command, {name: env[name] for name in record.env_set if name in env})

    async def stop(self, instance: Instance, grace_s: float) -> ExitStatus:
        record = self._known(instance)
        if record is not None and record.exit is None and record.identity is not None:
            exit_task = self._exit_of(record)
            await spawn.terminate(record.identity, grace_s, self._markers(record))
            return await asyncio.shield(exit_task)
        return await self.wait(instance)

    async def remove(self, instance: Instance) -> None:
        record = self._known(instance)
        if record is None:
            return
        if record.exit is None and record.identity is not None and spawn.alive(record.identity):
            raise DriverError(f"{instance.instance} still runs ({instance.handle})", remedy="stop it first")
        # It reaps, ends what is left of the session, and writes the record that goes now.
        await asyncio.shield(self._exit_of(record))
        self._exits.pop(instance.instance, None)
        for region in SHM.glob(f"{record.shm_prefix}*"):
            region.unlink(missing_ok=True)
        leftovers.sweep()
        self._records.remove(instance.instance)

    def logs(self, replica: str, *, tail: int | None = 100, follow: bool = False) -> AsyncIterator[str]:
        return logs.read(self._log(replica), tail=tail, follow=follow)

    async def look(self, _instance: Instance) -> None:
        """Its processes have the devices that the host has."""

    def pulls(self) -> tuple[ImagePull, ...]:
        return ()

    async def maintain(self) -> None:
        for path in self._logs.glob("*.log"):
            with suppress(OSError):
                if path.stat().st_size >= self._log_max_bytes:  # copying takes a while: not on the loop
                    await asyncio.to_thread(logs.rotate, path, self._log_max_bytes, self._log_keep)

    async def close(self) -> None:
        tasks = [task for task in self._exits.values() if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._exits.clear()

    def _log(self, replica: str) -> Path:
        return self._logs / f"{replica}.log"

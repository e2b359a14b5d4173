"""What several fields of a valid file together, or the file and the disk, can get wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tritonfleet.config.errors import ConfigProblem, did_you_mean
from tritonfleet.config.pool_spec import ReplicasSpec
from tritonfleet.config.source import Source
from tritonfleet.config.spec import FleetSpec
from tritonfleet.config.spec_types import CpuSlots
from tritonfleet.config.units import format_size
from tritonfleet.core.managers import CERTIFICATE, TOKEN
from tritonfleet.core.tls_files import misfit, no_authorities

STDOUT = "stdout"  # of router.access_log.path: no file
TLS_FILES = ("cert", "key", "client_ca")
CERTIFICATES_WITH_KEYS = (("cert", "key"), ("client_cert", "client_key"))
AUTHORITIES = ("client_ca", "ca")
REPLICA_TLS_FILES = ("cert", "key", "ca", "client_cert", "client_key")


def repositories(source: Source) -> list[ConfigProblem]:
    """Every pool's models against the disk. Works on the file's raw values, so that a missing folder is
    reported beside whatever else is wrong."""
    pools = source.value.get("pools")
    return [
        problem
        for name, pool in (pools.items() if isinstance(pools, dict) else ())
        if isinstance(pool, dict) and isinstance(pool.get("model_repository"), str)
        for problem in _repository(name, pool, source)
    ]


def certificates(source: Source) -> list[ConfigProblem]:
    """The files of ``router.tls`` and of ``triton.tls``, and the secrets of ``router.management``, against
    the disk."""
    files: list[tuple[tuple[str | int, ...], object, str]] = []
    for name, pems in replica_tls(source.value):
        path = ("pools", name, "triton", "tls")
        files += [((*path, key), pems.get(key), "name a PEM file") for key in REPLICA_TLS_FILES]
    given = source.value.get("router")
    router = given if isinstance(given, dict) else {}
    if isinstance(tls := router.get("tls"), dict):
        files += [(("router", "tls", key), tls.get(key), "name a PEM file") for key in TLS_FILES]
    if isinstance(managers := router.get("management"), list):
        files += [
            (("router", "management", index), one.removeprefix(TOKEN), "put a long random word there")
            for index, one in enumerate(managers)
            if isinstance(one, str) and one.startswith(TOKEN)
        ]
    problems = []
    for where, file, hint in files:
        if isinstance(file, str) and file and (why := _unreadable(file)):
            problems.append(source.problem(where, f"{file} {why}", hint=hint))
    return problems or list(_unfit(source))


def _unfit(source: Source) -> Iterator[ConfigProblem]:
    """What OpenSSL cannot use of the files that can be read."""
    for where, tls in tls_sections(source.value):
        for cert, key in CERTIFICATES_WITH_KEYS:
            shown, secret = tls.get(cert), tls.get(key)
            if not (isinstance(shown, str) and shown and isinstance(secret, str) and secret):
                continue
            if why := misfit(shown, secret):
                hint = "the two files of one certificate, PEM, the key without a pass phrase"
                yield source.problem((*where, key), f"{secret} with {shown}: {why}", hint=hint)
        for key in AUTHORITIES:
            file = tls.get(key)
            if isinstance(file, str) and file and (why := no_authorities(file)):
                yield source.problem(
                    (*where, key), f"{file}: {why}", hint="name a PEM file with certificates"
                )


def tls_sections(value: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """``router.tls`` and every ``triton.tls`` of a file's raw values, with where they stand."""
    router = value.get("router")
    if isinstance(router, dict) and isinstance(tls := router.get("tls"), dict):
        yield ("router", "tls"), tls
    for name, tls in replica_tls(value):
        yield ("pools", name, "triton", "tls"), tls


def replica_tls(value: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a file's raw values have as ``triton.tls``, by pool."""
    pools = value.get("pools")
    for name, pool in pools.items() if isinstance(pools, dict) else ():
        triton = pool.get("triton") if isinstance(pool, dict) else None
        tls = triton.get("tls") if isinstance(triton, dict) else None
        if isinstance(tls, dict):
            yield name, tls


def _unreadable(path: str) -> str:
    try:
        with Path(path).open("rb"):
            return ""
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def access_log(source: Source) -> list[ConfigProblem]:
    """The folder of ``router.access_log.path`` against the disk."""
    router = source.value.get("router")
    given = router.get("access_log") if isinstance(router, dict) else None
    path = given.get("path") if isinstance(given, dict) else None
    if not isinstance(path, str) or path in ("", STDOUT) or Path(path).parent.is_dir():
        return []
    message = f"there is no folder {Path(path).parent}"
    return [source.problem(("router", "access_log", "path"), message, hint="make it, or write stdout")]


def _repository(name: str, pool: dict[str, Any], source: Source) -> Iterator[ConfigProblem]:
    path, given = ("pools", name, "model_repository"), pool["model_repository"]
    if not given:
        return  # an unset variable, or "must not be empty": said already
    if "://" in given:
        yield source.problem(
            path, f"{given} is not a folder of this host", hint="copy the models to a folder"
        )
        return
    folder = Path(given)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        yield source.problem(path, f"{folder} {what}", hint="a model repository has one folder per model")
        return
    try:
        found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    except OSError as error:
        yield source.problem(path, f"{folder} cannot be read: {error.strerror}")
        return
    if not found:
        yield source.problem(path, f"{folder} holds no model", hint="put one folder per model there")
        return
    models = pool.get("models")
    if isinstance(models, list):
        yield from _models(name, models, found, folder, source)


def _models(
    name: str, wanted: list[Any], found: list[str], folder: Path, source: Source
) -> Iterator[ConfigProblem]:
    path = ("pools", name, "models")
    for index, model in enumerate(wanted):
        if model in wanted[:index]:
            yield source.problem((*path, index), f"{model} is listed twice")
    if "*" in wanted and len(wanted) > 1:
        yield source.problem(path, '"*" means all models: nothing can stand beside it')
    for index, model in enumerate(wanted):
        if isinstance(model, str) and model != "*" and model not in found:
            hint = did_you_mean(model, found) or f"there are: {', '.join(found)}"
            yield source.problem((*path, index), f"no model {model!r} in {folder}", hint=hint)


def fitted(spec: FleetSpec) -> FleetSpec:
    """A pool that says no ``max`` gets what the listed devices hold, if that is less than the default."""
    count = _device_count(spec)
    pools = dict(spec.pools)
    for name, pool in spec.pools.items():
        room = pool.replicas.room(count) if count else pool.replicas.max
        given = max(pool.replicas.min, pool.replicas.initial or 0)
        if "max" not in pool.replicas.model_fields_set and given <= room < pool.replicas.max:
            smaller = pool.replicas.model_copy(update={"max": room})
            pools[name] = pool.model_copy(update={"replicas": smaller})
    return spec if pools == spec.pools else spec.model_copy(update={"pools": pools})


def _device_count(spec: FleetSpec) -> int:
    """How many devices the file lists; 0 when it lists none."""
    if spec.devices == "auto":
        return 0
    return spec.devices.cpu if isinstance(spec.devices, CpuSlots) else len(spec.devices)


def together(spec: FleetSpec, source: Source) -> list[ConfigProblem]:
    """What single fields of a file, each valid by itself, get wrong together."""
    problems = [*_devices(spec, source), *_images(spec, source), *_managers(spec, source)]
    problems += _limits(spec, source)
    for name, pool in spec.pools.items():
        if pool.restart.backoff > pool.restart.max_backoff:
            message = f"longer than max_backoff, which is {pool.restart.max_backoff:g} s"
            problems.append(source.problem(("pools", name, "restart", "backoff"), message))
    return problems


def _limits(spec: FleetSpec, source: Source) -> Iterator[ConfigProblem]:
    """What one client may, against what all of a worker together may."""
    limits = spec.router.limits
    for kind in ("held", "kept"):
        one, every = f"{kind}_by_connection", f"{kind}_by_all"
        given, most = getattr(limits, one), getattr(limits, every)
        if given <= most:
            continue
        allowed, together = format_size(given), format_size(most)
        if one in limits.model_fields_set:
            message = f"{allowed} is more than all clients together may: {every} is {together}"
            yield source.problem(("router", "limits", one), message, hint=f"raise {every}, or lower this")
        else:
            message = f"{together} is less than {one}, which is {allowed}"
            yield source.problem(
                ("router", "limits", every), message, hint=f"add `{one}: {together}`, or less"
            )


def _managers(spec: FleetSpec, source: Source) -> list[ConfigProblem]:
    tls = spec.router.tls
    if tls is not None and tls.client_ca is not None:
        return []
    message = "no client shows a certificate: router.tls.client_ca is not set"
    return [
        source.problem(("router", "management", index), message, hint="add router.tls with client_ca")
        for index, one in enumerate(spec.router.management)
        if one.startswith(CERTIFICATE)
    ]


def _images(spec: FleetSpec, source: Source) -> list[ConfigProblem]:
    if spec.driver != "docker":
        return []
    hint = "add `image: IMAGE`, a Triton image that the Docker daemon has or can pull"
    return [
        source.problem(("pools", name, "triton", "image"), "is missing: driver is docker", hint=hint)
        for name, pool in spec.pools.items()
        if not pool.triton.image
    ]


def _devices(spec: FleetSpec, source: Source) -> list[ConfigProblem]:
    """Whether every pool at its largest fits, where the file says how many devices there are."""
    count, problems = _device_count(spec), []
    if not count:
        return []
    if not isinstance(spec.devices, CpuSlots) and len(set(spec.devices)) < count:
        problems.append(source.problem(("devices",), "a device is listed twice"))
    for name, pool in spec.pools.items():
        room, each = pool.replicas.room(count), pool.replicas.devices_per_replica
        path = ("pools", name, "replicas", "devices_per_replica")
        if each > count:
            message = f"{each} is too many: the file has {_devices_named(count)}"
            problems.append(source.problem(path, message, hint="list more devices"))
        elif each > 1 and (slices := _slices(spec)):
            message = f"{slices[0]} is a MIG slice, and a process can use one only"
            problems.append(source.problem(path, message, hint="list whole GPUs, or leave this key out"))
        elif pool.replicas.max > room:
            problems.append(_too_many(name, pool.replicas, count, source))
    needed = sum(pool.replicas.first_size * pool.replicas.share for pool in spec.pools.values())
    if not problems and needed > count + 1e-9:
        message = f"the pools start with more replicas than fit on {_devices_named(count)}"
        problems.append(source.problem(("pools",), message, hint="lower their initial sizes, or add devices"))
    return problems


def _slices(spec: FleetSpec) -> list[str]:
    listed = spec.devices if isinstance(spec.devices, tuple) else ()
    return [name for name in listed if name.startswith("MIG-")]


def _too_many(name: str, replicas: ReplicasSpec, count: int, source: Source) -> ConfigProblem:
    """The key that asks for the most, as written: a ``max`` that nobody wrote is not at fault."""
    room, each = replicas.room(count), replicas.devices_per_replica
    key = next(key for key in ("max", "initial", "min") if key in replicas.model_fields_set)
    fits = f"{room} fit{'s' if room == 1 else ''} on {_devices_named(count)}"
    how = f"{each} devices for each" if each > 1 else f"{replicas.per_device} on each"
    message = f"{getattr(replicas, key)} is too many: {fits} with {how}"
    hint = f"write `{key}: {room}`, or add devices"
    return source.problem(("pools", name, "replicas", key), message, hint=hint)


def _devices_named(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"

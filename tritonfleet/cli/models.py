"""`models`: what is loaded where, and changes of it on the whole fleet."""

from tritonfleet.cli import fleet, names
from tritonfleet.cli.client import ControlClient
from tritonfleet.cli.exits import CliError, ExitCode
from tritonfleet.cli.model_states import FleetModel, fleet_models, shown
from tritonfleet.cli.terminal import Output, Settings, say, show, show_data, show_line, width
from tritonfleet.core.wire import FleetSnapshot, RpcRequest


def ls(settings: Settings, name: str) -> None:
    with fleet.locate(settings).client() as client:
        snapshot = client.snapshot()
    found = fleet_models(snapshot, name)
    if name and not found:
        raise _unknown(snapshot, name)
    _show(settings, found)


def load(settings: Settings, name: str) -> None:
    from tritonfleet.triton.model_control import load_request

    _change(settings, name, load_request(name), "loaded")


def unload(settings: Settings, name: str, *, dependents: bool) -> None:
    from tritonfleet.triton.model_control import unload_request

    _change(settings, name, unload_request(name, dependents=dependents), "unloaded")


def _change(settings: Settings, name: str, request: RpcRequest, done: str) -> None:
    """Ask every replica, show what came of it on each, and fail if one refused."""
    with fleet.locate(settings).client() as client:
        _known(client.snapshot(), name, done)
        answer = client.rpc(request)
        found = fleet_models(client.snapshot(), name)
        if answer.status:
            if any(model.ready for model in found):
                _show(settings, found)
            raise CliError(
                ExitCode.FAILED, f"model {name!r} is not {done}: {answer.text}", hint=_log_hint(client)
            )
        _show(settings, found)
        count = sum(len(model.replicas) for model in found)
        say(
            settings,
            f"{name} {done} on {count} replica{'' if count == 1 else 's'}, and so on those that start later",
        )


def _log_hint(client: ControlClient) -> str:
    return f"Triton's own words: tritonfleet --fleet {client.fleet} logs REPLICA"


def _known(snapshot: FleetSnapshot, name: str, done: str) -> None:
    """Unloading what does not exist is no error of Triton's; of a person it is one. What is to be loaded may
    be new in the folder: then only Triton knows."""
    if done == "unloaded" and not fleet_models(snapshot, name):
        raise _unknown(snapshot, name)


def _unknown(snapshot: FleetSnapshot, name: str) -> CliError:
    known = {model.model for model in fleet_models(snapshot)}
    return names.unknown("model", name, known, snapshot.fleet)


def _show(settings: Settings, found: tuple[FleetModel, ...]) -> None:
    if settings.output in (Output.JSON, Output.YAML):
        show_data(found, settings.output)
    elif settings.output is Output.NAME:
        for name in dict.fromkeys(model.model for model in found):
            show_line(name)
    else:
        show(shown(found, width(), wide=settings.output is Output.WIDE))

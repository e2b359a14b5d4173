"""Only the command that was asked for, and its plain options without waking pydantic.

Typer hands every value of an option to pydantic, whose import takes longer than all that `ps` does. Most
values need no conversion: a text where a text is wanted, one of the words of a choice, the default. Those are
taken as they are here; everything else, every error message included, is left to typer. See
docs/decisions/0021.
"""

from collections.abc import Sequence
from copy import copy
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from typer import Typer
from typer.core import TyperGroup
from typer.models import CommandInfo

from tritonfleet.cli.options import command_index


def narrowed(app: Typer, words: Sequence[str]) -> Typer:
    """The command line with only the command that ``words`` name, if they name one: typer makes all that it
    has before it looks for one, which takes longer than `ps` itself."""
    at = command_index(words)
    if at is None:
        return app
    commands = [info for info in app.registered_commands if _name(info) == words[at]]
    groups = [info for info in app.registered_groups if info.name == words[at]]
    if not commands and not groups:
        return app
    narrow = copy(app)
    narrow.registered_commands, narrow.registered_groups = commands, groups
    return narrow


def _name(info: CommandInfo) -> str:
    return info.name or (info.callback.__name__.replace("_", "-") if info.callback else "")


class QuickGroup(TyperGroup):
    """Groups made by ``typer.Typer(cls=QuickGroup)``."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is not None:
            quicken(found, ctx)
        return found

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        quicken(self, ctx)
        return super().parse_args(ctx, args)


def quicken(command: Any, ctx: Any) -> None:
    """Set what typer makes at the first value of a parameter. A typer that does not know this attribute takes
    no notice of it and is only slower."""
    for param in command.get_params(ctx):
        annotation = getattr(getattr(param, "type_descriptor", None), "annotation", None)
        if annotation is not None and getattr(param, "_runtime_param", None) is None:
            param._runtime_param = _AsItIs(param, annotation)  # noqa: SLF001 # there is no public way


class _AsItIs:
    """Stands for typer's RuntimeParam."""

    def __init__(self, param: Any, annotation: Any) -> None:
        self._param = param
        self._default = param.default
        choices = get_args(annotation) if get_origin(annotation) is not Literal else ()
        self._words = get_args(annotation) if get_origin(annotation) is Literal else ()
        self._text = annotation is str or set(choices) == {str, NoneType}

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, str) and (self._text or value in self._words):
            return value
        if value is None and self._default is None and not param.multiple and param.nargs != -1:
            return None
        if value is not None and value is self._default and not callable(value):
            return value
        param._runtime_param = None  # noqa: SLF001 # makes typer's own
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)

"""Commands whose plain options do not wake pydantic.

Typer hands every value of an option to pydantic, whose import takes longer than all that `ps` does. Most
values need no conversion: a text where a text is wanted, one of the words of a choice, the default. Those are
taken as they are here; everything else, every error message included, is left to typer. See
docs/decisions/0021.
"""

from types import NoneType
from typing import Any, Literal, get_args, get_origin

from typer.core import TyperGroup


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

"""Global options wherever they are typed: before the command or after it.

Typer takes them before the command only; people type ``tritonfleet ps -o json``. So what is global and
stands behind the command is moved before it, before parsing. ``-f`` behind `logs` and `events` stays:
there it follows, as in `tail -f`; the file is ``--file`` there.
"""

from collections.abc import Sequence

_WITH_VALUE = {"-f", "--file", "--fleet", "-o", "--output", "--progress"}
_FLAGS = {"--json", "-q", "--quiet", "-v", "--verbose", "--no-input"}
_FOLLOWING = {"logs", "events"}  # commands with a -f of their own


def hoist(arguments: Sequence[str]) -> list[str]:
    """``["ps", "-o", "json"]`` → ``["-o", "json", "ps"]``. What follows ``--`` is left alone."""
    command_at = command_index(arguments)
    if command_at is None:
        return list(arguments)
    command = arguments[command_at]
    hoisted: list[str] = []
    kept: list[str] = []
    words = iter(arguments[command_at + 1 :])
    for word in words:
        if word == "--":
            kept += [word, *words]
            break
        if word in _FLAGS:
            hoisted.append(word)
        elif _takes_value(word) and not (word.startswith("-f") and command in _FOLLOWING):
            if word not in _WITH_VALUE:  # --output=json: the value is in it
                hoisted.append(word)
            elif (value := next(words, None)) is not None:
                hoisted += [word, value]
            else:
                kept.append(word)  # the last word: it lacks its value wherever it stands
        else:
            kept.append(word)
    return [*arguments[:command_at], *hoisted, command, *kept]


def command_index(arguments: Sequence[str]) -> int | None:
    """Where the first word is that is neither a global option nor the value of one."""
    index = 0
    while index < len(arguments):
        word = arguments[index]
        if word == "--":
            return None
        if not word.startswith("-"):
            return index
        index += 2 if word in _WITH_VALUE else 1
    return None


def _takes_value(word: str) -> bool:
    """``-o``, ``--output``, ``--output=json``, ``-ojson``."""
    if word.startswith("--"):
        return word.partition("=")[0] in _WITH_VALUE
    return word[:2] in _WITH_VALUE

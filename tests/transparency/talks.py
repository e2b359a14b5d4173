"""The conversations that are had with every server; `talk` adds one."""

from collections.abc import Callable

from conversation import Conversation

Talk = Callable[[Conversation], None]
TALKS: list[Talk] = []


def talk(function: Talk) -> Talk:
    TALKS.append(function)
    return function

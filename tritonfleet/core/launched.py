"""How a replica's server was launched: command line, environment, container. What may be a secret is masked.

A secret is known by its name (``HF_TOKEN``, ``--http-restricted-api``), or by its place in a URL
(``s3://user:password@host``). Masking is done where the data are read, so that none crosses the control API.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

HIDDEN = "********"
_SECRET = re.compile(
    r"(?i)(secret|token|passw|credential|private|restricted|api.?key|access.?key|auth|pass$|(^|[_-])(key|pwd)$)"
)
_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")


@dataclass(frozen=True, slots=True)
class Launched:
    """``env`` is what the launch set, not what was inherited. ``container``: what else the engine was asked
    for, as names and values for a person. ``running`` False: nothing runs, the next launch is given this, and
    ``command`` has only what the fleet file adds to it."""

    command: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    image: str = ""
    container: tuple[tuple[str, str], ...] = ()
    running: bool = True


def masked(
    command: Sequence[str], env: Mapping[str, str], image: str = "",
    container: Sequence[tuple[str, str]] = (), *, running: bool = True,
) -> Launched:  # fmt: skip
    """Without secrets. A flag's value may stand behind ``=``, or be the next word."""
    words: list[str] = []
    hide_next = False
    for word in command:
        name, sign, _ = word.partition("=")
        is_flag, secret = name.startswith("-"), bool(_SECRET.search(name))
        if hide_next and not is_flag:
            words.append(HIDDEN)
        elif is_flag and sign and secret:
            words.append(f"{name}={HIDDEN}")
        else:
            words.append(_IN_URL.sub(HIDDEN, word))
        hide_next = is_flag and secret and not sign
    shown = {
        name: HIDDEN if value and _SECRET.search(name) else _IN_URL.sub(HIDDEN, value)
        for name, value in env.items()
    }
    return Launched(tuple(words), shown, image, tuple(container), running)

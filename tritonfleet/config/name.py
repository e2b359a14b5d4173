"""Which fleet a file is of, without checking the rest: all that a command needs that asks the controller.

So a file that is being edited still names its fleet, and nobody waits for YAML and pydantic.
"""

import re
from collections.abc import Mapping
from pathlib import Path

NAME = r"^[a-z]([a-z0-9-]{0,29}[a-z0-9])?$"
# A key of the outermost mapping begins its line, and nothing else can begin one so: what belongs to a key is
# indented. Only a plain word is taken, and only where it stands alone.
_LINE = re.compile(r"^name:[ ]+([a-z][a-z0-9-]*)[ ]*(?:[ ]#.*)?$", re.MULTILINE)
_KEY = re.compile(r"^[\"']?name[\"']?[ ]*:", re.MULTILINE)
_NO_NAMES = frozenset(["true", "false", "yes", "no", "on", "off", "null"])  # YAML's words for others


def fleet_name(path: Path, environ: Mapping[str, str]) -> str:
    """ "" where the file does not say, or cannot be read: `load_fleet` tells why."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    name = _plain(text) or _parsed(text, str(path), environ)
    return name if re.fullmatch(NAME, name) else ""


def _plain(text: str) -> str:
    """The name where it can be seen at a glance, as in nearly every file, else ""."""
    found = _LINE.findall(text)
    block = not text.lstrip().startswith(("{", "[", "%", '"', "'"))
    if not block or len(found) != 1 or len(_KEY.findall(text)) != 1 or found[0] in _NO_NAMES:
        return ""
    return str(found[0])


def _parsed(text: str, file: str, environ: Mapping[str, str]) -> str:
    from tritonfleet.config.source import read

    value = read(text, file, environ).value
    name = value.get("name") if isinstance(value, dict) else None
    return name if isinstance(name, str) else ""

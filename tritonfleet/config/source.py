"""A YAML file as a tree of plain values that knows where each of them stands.

PyYAML's nodes carry line and column of every key and value; its usual loader throws them away. Here they are
kept beside the values, by path, so that an error found later, by anyone, can be shown in the file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tritonfleet.config.errors import ConfigProblem

Path = tuple[str | int, ...]

MOST_VALUES = 100_000  # with every alias counted as what it stands for; a fleet file has some dozens

_VARIABLE = re.compile(r"\$(?:\$|\{([^}]*)(\}?))")
_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::(-|\?)(.*))?", re.DOTALL)


@dataclass
class Source:
    """One file's text, its values, and where they stand (line and column from 1)."""

    file: str
    lines: list[str]
    value: Any = None
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    values: dict[Path, tuple[int, int]] = field(default_factory=dict)
    words: dict[Path, str] = field(default_factory=dict)  # scalars as written, before they get their types
    problems: list[ConfigProblem] = field(default_factory=list)

    def problem(self, path: Path, message: str, *, hint: str = "", at_key: bool = False) -> ConfigProblem:
        """A problem with what stands at ``path``, or at the nearest place above that the file has."""
        places = (self.keys, self.values) if at_key else (self.values, self.keys)
        found = path
        while True:
            place = places[0].get(found) or places[1].get(found)
            if place or not found:
                break
            found, places = found[:-1], (self.keys, self.values)
        line, column = place or (1, 1)
        return self.at(line, column, dotted(path), message, hint)

    def given(self, path: Path, otherwise: Any = None) -> Any:
        """The value that stands at ``path``, as it was read."""
        value = self.value
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return otherwise
        return value

    def at(self, line: int, column: int, path: str, message: str, hint: str = "") -> ConfigProblem:
        excerpt = self.lines[line - 1].rstrip("\r\n") if 0 < line <= len(self.lines) else ""
        return ConfigProblem(self.file, line, column, path, message, excerpt, hint)


def dotted(path: Path) -> str:
    """``("pools", "a", "args", 0)`` → ``pools.a.args[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read(text: str, file: str, environ: Mapping[str, str]) -> Source:
    """Parse and interpolate. Whatever is wrong is in ``problems``; the value holds the rest."""
    source = Source(file, text.splitlines())
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        if error.context_mark and line > len(source.lines):  # what is missing at the end began here
            line, column = error.context_mark.line + 1, error.context_mark.column + 1
        words = " ".join(part for part in (error.context, error.problem) if part)
        source.problems.append(source.at(line, column, "", f"not YAML: {words}", _yaml_hint(error)))
        return source
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        character = f"character 0x{ord(text[error.position]):02x}"
        source.problems.append(source.at(line, column, "", f"not YAML: {character} cannot stand in a file"))
        return source
    except RecursionError:
        source.problems.append(source.at(1, 1, "", "not a fleet file: nested too deeply"))
        return source
    if node is not None:
        try:
            source.value = _Reader(source, environ).read(node, ())
        except (RecursionError, OverflowError):
            source.value = None
            source.problems.append(
                source.at(1, 1, "", "not a fleet file: nested too deeply, or endless aliases")
            )
    return source


def _yaml_hint(error: yaml.MarkedYAMLError) -> str:
    """What was probably meant, for the mistakes that people make most."""
    context, problem = error.context or "", error.problem or ""
    if "'\\t'" in problem:
        return "indent with spaces, not tabs"
    if "parsing a flow" in context and error.context_mark:
        return f"the bracket in line {error.context_mark.line + 1} is not closed, or a comma is missing"
    if "quoted scalar" in context:
        return "the quote is not closed"
    if "expected <block end>" in problem:
        return "this line is not indented like the lines it belongs to"
    if "mapping values" in problem:
        return "a key's colon is followed by a space; a value that holds a colon and a space needs quotes"
    if "scanning an alias" in context:
        return 'quote it: "*"'
    if "cannot start any token" in problem:
        return "a value that begins with this character needs quotes"
    return ""


class _Reader:
    def __init__(self, source: Source, environ: Mapping[str, str]) -> None:
        self._source = source
        self._environ = environ
        self._loader = yaml.SafeLoader("")
        self._open: set[int] = set()  # the collections being read, by identity

    def read(self, node: yaml.Node, path: Path) -> Any:
        """The node's value. An alias is read like its anchor; one inside its own anchor is a problem."""
        self._source.values[path] = _place(node)
        if len(self._source.values) > MOST_VALUES:
            raise OverflowError("aliases of aliases")
        if id(node) in self._open:
            self._problem(node, path, "this anchor holds an alias of itself")
            return None
        self._open.add(id(node))
        try:
            return self._read(node, path)
        finally:
            self._open.remove(id(node))

    def _read(self, node: yaml.Node, path: Path) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                self._problem(key_node, path, "merge keys (<<) are not supported", "repeat the keys")
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node, path, "a key must be a word")
                continue
            key = str(key_node.value)
            here = (*path, key)
            if key in found:
                line, _ = self._source.keys[here]
                self._problem(key_node, here, f"this key stands here twice, first in line {line}")
                continue
            self._source.keys[here] = _place(key_node)
            found[key] = self.read(value_node, here)
        return found

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        text = self._source.words[path] = str(node.value)
        if "\0" in text:
            self._problem(node, path, "holds a NUL character, which no path, argument or variable can")
            return ""
        if "$" in text and isinstance(node, yaml.ScalarNode):
            text, changed = self._interpolate(text, node, path)
            if changed:
                plain = node.style is None
                resolve: Any = self._loader.resolve  # PyYAML's stubs leave it untyped
                tag = resolve(yaml.ScalarNode, text, (plain, not plain))
                node = yaml.ScalarNode(tag, text, node.start_mark, node.end_mark)
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            words = error.problem if isinstance(error, yaml.MarkedYAMLError) else error
            self._problem(node, path, f"cannot be read: {words}")
            return None

    def _interpolate(self, text: str, node: yaml.Node, path: Path) -> tuple[str, bool]:
        def replace(match: re.Match[str]) -> str:
            inside = match.group(1)
            if inside is None:
                return "$"
            if not match.group(2):
                self._problem(
                    node, path, f"{match.group()} is not closed", "write ${NAME}, or $$ for a plain $"
                )
                return ""
            parts = _INSIDE.fullmatch(inside)
            if parts is None:
                self._problem(
                    node, path, f"${{{inside}}} is not a variable", "write ${NAME} or ${NAME:-default}"
                )
                return ""
            name, kind, rest = parts.groups()
            value = self._environ.get(name, "")
            if value:
                return value
            if kind == "-":
                return str(rest)
            if kind == "?":
                self._problem(node, path, f"${name} is not set: {rest}" if rest else f"${name} is not set")
            elif name not in self._environ:
                self._problem(
                    node, path, f"${name} is not set", f"set it, or give a default: ${{{name}:-value}}"
                )
            return ""

        result = _VARIABLE.sub(replace, text)
        return result, result != text

    def _problem(self, node: yaml.Node, path: Path, message: str, hint: str = "") -> None:
        line, column = _place(node)
        self._source.problems.append(self._source.at(line, column, dotted(path), message, hint))


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
